"""Means over several runs."""

from experiments.compare.means import load, mean_rows

__all__ = ["load", "mean_rows"]
