"""Conditions made from support images."""
