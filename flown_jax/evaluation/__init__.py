"""Accuracy, calibration, intervals, tables and figures."""

from flown_jax.evaluation.classification import (
    accuracy,
    ece,
    ensemble_log_probs,
    fit_temperature,
    interval,
    nll,
    paired_interval,
    tempered,
    top_k_by,
)

__all__ = [
    "accuracy",
    "ece",
    "ensemble_log_probs",
    "fit_temperature",
    "interval",
    "nll",
    "paired_interval",
    "tempered",
    "top_k_by",
]
