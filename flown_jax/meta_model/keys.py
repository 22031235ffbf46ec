"""Randomness by name: what has another name, such as another row of a table, has other draws."""

from __future__ import annotations

import zlib

import jax
import numpy as np
from jax import Array


def named_key(seed: int, *names: str | int) -> Array:
    """The key of a seed and names; another one for each seed, each name and each order of them."""
    key = jax.random.key(seed)
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(repr(name).encode()))
    return key


def named_seed(seed: int, *names: str | int) -> int:
    """The same for NumPy, a number of 32 bits."""
    words = (zlib.crc32(repr(name).encode()) for name in names)
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])
