"""Choices that are made on validation tasks, never on test tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from flown_jax.evaluation.classification import index_of_best
from flown_jax.few_shot.evaluation import sampled, single
from flown_jax.few_shot.target_heads import fit_heads
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.models import heads as linear
from flown_jax.models.logistic import fit_logistic


def choose_baselines(
    validation: TaskTable,
    probe: Mapping[str, Any],
    *,
    lengths: Sequence[float],
    l2: Sequence[float],
    inverse_penalties: Sequence[float],
) -> dict[str, Any]:
    """The settings of the fitted baselines with the best validation accuracy.

    Args:
      probe: as in `models.heads.fit_adamw`. lengths: of features, see `target_heads.fit_heads`.
      l2: ridge's penalties. inverse_penalties: logistic regression's, C.
    Returns:
      {"length", "l2", "inverse_penalty"} and the accuracy of every choice, {"probe_accuracy",
      "ridge_accuracy", "logistic_accuracy"}.
    """
    query = jnp.asarray(validation.query())
    support = jnp.asarray(validation.support())
    of_length = [
        single(jnp.asarray(fit_heads(validation, length=length, **probe)), query).accuracy().mean()
        for length in lengths
    ]
    of_l2 = [single(linear.ridge(support, l2=a), query).accuracy().mean() for a in l2]
    fitted = [fit_logistic(validation.support(), inverse_penalty=c) for c in inverse_penalties]
    of_c = [single(jnp.asarray(heads), query).accuracy().mean() for heads in fitted]
    return {
        "length": float(lengths[index_of_best(of_length)]),
        "l2": float(l2[index_of_best(of_l2)]),
        "inverse_penalty": float(inverse_penalties[index_of_best(of_c)]),
        "probe_accuracy": [float(a) for a in of_length],
        "ridge_accuracy": [float(a) for a in of_l2],
        "logistic_accuracy": [float(a) for a in of_c],
    }


def choose_temperature(
    draw: Callable[..., tuple[Array, Any]], validation: TaskTable, grid: Sequence[float]
) -> dict[str, Any]:
    """The temperature of the source whose averaged probabilities are likeliest on validation.

    Args:
      draw: draw(temperature=...) -> heads (S, T, n, F + 1) of the validation tasks, and more.
    Returns:
      {"temperature", "grid", "nll", "ece" and "accuracy" of each, "mean_accuracy" of single
      heads}.
    """
    support, query = jnp.asarray(validation.support()), jnp.asarray(validation.query())
    found: dict[str, list[float]] = {"nll": [], "ece": [], "accuracy": [], "mean_accuracy": []}
    for temperature in grid:
        made = sampled(draw(temperature=temperature)[0], query, support, top=1)
        found["nll"].append(float(made["ensemble"].nll().mean()))
        found["ece"].append(made["ensemble"].ece()[0])
        found["accuracy"].append(float(made["ensemble"].accuracy().mean()))
        found["mean_accuracy"].append(float(made["mean"].accuracy().mean()))
    best = index_of_best(found["nll"], smallest=True)
    return {"temperature": float(grid[best]), "grid": list(grid), **found}
