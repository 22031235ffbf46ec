"""Little zoos: of several seeds, and of the states of one network."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.reconstruct import get_config
from flown_jax.weights import zoo
from tests.experiments.walk import changed
from tests.weights import small

SPEC = small.spec(channels=(4, 3), hidden=(5,), num_classes=10)
SEEDS = range(10)
HELD_OUT = (8, 9)
STATES = range(1, 13)


def write(folder: Any, states: bool = False, **fields: Any) -> Any:
    """A zoo in a folder, of seeds or of states; fields replace those of its rows."""
    zoo.create(folder, SPEC, dataset="digits", recipe={})
    if states:
        start, drift = small.vectors((0, 1), SPEC.size)
        for state in STATES:
            weights = start + 0.1 * np.sin(state) * drift
            zoo.add(folder, weights[None], small.rows((0,), state, **fields))
        return folder
    zoo.add(folder, small.vectors(SEEDS, SPEC.size), small.rows(SEEDS, 1, HELD_OUT, **fields))
    return folder


def config(folder: Any, **values: Any) -> ConfigDict:
    """The tiny config on that zoo; keys have __ for dots."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    return changed(get_config("tiny"), {"zoo": str(folder), **named})
