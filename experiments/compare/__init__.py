"""Means over several runs."""

from experiments.means import differences, mean_rows
from experiments.runs import check_alike, load, other_versions

__all__ = ["check_alike", "differences", "load", "mean_rows", "other_versions"]
