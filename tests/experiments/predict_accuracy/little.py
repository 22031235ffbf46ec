"""A little zoo whose networks' accuracy shows in the spread of their first tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.predict_accuracy import get_config
from flown_jax.weights import zoo
from tests.experiments.walk import changed
from tests.weights import small

SPEC = small.spec(channels=(5, 4), hidden=(6,), num_classes=3)
SEEDS = range(18)
HELD_OUT = range(14, 18)
EPOCHS = (1, 2)


def rows(epoch: int, **fields: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Weights and table of one epoch."""
    weights = small.vectors(SEEDS, SPEC.size, epoch)
    spread = 0.5 + 0.02 * np.random.default_rng(epoch).permutation(len(SEEDS)) + 0.3 * epoch
    first = weights[:, SPEC.slices[SPEC.names[0]]]
    first *= (spread / first.std(1)).astype(np.float32)[:, None]
    table = small.rows(SEEDS, epoch, HELD_OUT)
    for row, value in zip(table, spread, strict=True):
        accuracy = round(float(1 / (1 + np.exp(-value))), 6)
        row |= {"test_accuracy": accuracy, "validation_accuracy": accuracy - 0.01} | fields
    return weights, table


def write(folder: Any, **fields: Any) -> Any:
    """The zoo in a folder; fields replace those of its rows."""
    zoo.create(folder, SPEC, dataset="digits", recipe={"epochs": 2})
    for epoch in EPOCHS:
        weights, table = rows(epoch, **fields)
        zoo.add(folder, weights, table)
    return folder


def config(folder: Any, **values: Any) -> ConfigDict:
    """The tiny config on that zoo; keys have __ for dots."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    return changed(get_config("tiny"), {"zoo": str(folder), **named})
