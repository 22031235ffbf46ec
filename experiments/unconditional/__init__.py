"""Generators of one zoo's networks, side by side with what is no model."""
