"""A network of a few weights, its spec, and zoos of it, for the tests of this folder and others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.models import CNN
from flown_jax.weights.spec import WeightSpec

INPUTS = {"size": 8, "channels": 1, "mean": [0.1307], "std": [0.3081], "crop": None}


def network(**overrides: Any) -> CNN:
    """A CNN of 56 weights on 8 x 8 images of one channel."""
    sizes = {"channels": (2, 2), "kernels": (3, 2), "pools": (True, False), "hidden": ()}
    return CNN(**(sizes | {"num_classes": 2} | overrides))


def spec(channels_in: int = 1, inputs: Any = None, **overrides: Any) -> WeightSpec:
    """The spec of `network`."""
    module = network(**overrides)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, channels_in)))
    return WeightSpec.from_module(module, shapes, inputs=INPUTS if inputs is None else inputs)


def rows(seeds: Any, epoch: int = 1, held_out: Any = (), **fields: Any) -> list[dict[str, Any]]:
    """A zoo's rows of these seeds; the accuracy tells the seed."""
    return [
        {
            "seed": seed,
            "epoch": epoch,
            "split": "held_out" if seed in held_out else "train",
            "train_accuracy": None,
            "test_accuracy": 0.5 + seed / 1000,
            **fields,
        }
        for seed in seeds
    ]


def vectors(seeds: Any, size: int, epoch: int = 1) -> np.ndarray:
    """Random vectors, the same for the same seed and epoch."""
    draws = [np.random.default_rng((s, epoch)).normal(size=size) for s in seeds]
    return np.stack(draws).astype(np.float32)
