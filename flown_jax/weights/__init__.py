"""Weights as vectors."""
