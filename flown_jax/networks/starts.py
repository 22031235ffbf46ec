"""Starts of training that generated weights are compared with (paper, Table 3).

A start that is random or a network of a zoo differs from run to run; a mean of a zoo is one
network, and its runs differ in the order of the data alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np

from flown_jax.data import image_sets
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.networks.conditions import Conditions, nearest_set
from flown_jax.weights.spec import WeightSpec


def on_disk(names: Iterable[str], data_dir: str | Path) -> tuple[str, ...]:
    """Those of the image sets that are embedded or prepared in `data_dir`, damaged or not."""
    return tuple(name for name in names if image_sets.at_hand(name, data_dir))


def random_starts(keys: jax.Array, spec: WeightSpec, scheme: str) -> np.ndarray | None:
    """Weights (R, D) as `initialise_cnn` draws them; None for a network that is no `CNN`.

    Args:
      keys: (R,).
    Raises:
      UserError: an unknown scheme.
    """
    if not isinstance(spec.module(), CNN):
        return None
    return np.asarray(_random_starts(keys, spec, scheme), np.float32)


@partial(jax.jit, static_argnames=("spec", "scheme"))
def _random_starts(keys: jax.Array, spec: WeightSpec, scheme: str) -> jax.Array:
    module, inputs = spec.module(), spec.inputs_dict
    shape = (inputs["size"], inputs["size"], inputs["channels"])

    def one(key: jax.Array) -> jax.Array:
        return spec.flatten({"params": initialise_cnn(key, module, shape, scheme)})

    return jax.vmap(one)(keys)


def members(seed: int, weights: np.ndarray, count: int) -> np.ndarray:
    """`count` networks of (N, D) in random order, different ones as far as there are so many."""
    order = np.random.default_rng(seed).permutation(len(weights))
    return weights[np.resize(order, count)]


def mean_start(weights: np.ndarray, count: int) -> np.ndarray:
    """The mean of networks (N, D), `count` times."""
    mean = np.asarray(weights, np.float64).mean(0).astype(np.float32)
    return np.repeat(mean[None], count, axis=0)


def nearest(condition: Conditions, banks: Mapping[str, Conditions]) -> str:
    """The data set that is nearest for most of a set's support draws; the first of equals.

    Args:
      condition, banks: as in `conditions.nearest_set`.
    """
    votes = Counter(nearest_set(condition, banks))
    return max(banks, key=lambda name: votes[name])
