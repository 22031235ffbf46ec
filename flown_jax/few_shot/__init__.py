"""Targets that are linear heads on frozen features: tasks, head space, what heads are worth."""
