"""Means over several runs."""

from experiments.compare.means import differences, mean_rows
from experiments.compare.runs import check_alike, load, other_versions

__all__ = ["check_alike", "differences", "load", "mean_rows", "other_versions"]
