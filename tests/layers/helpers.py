"""Cheap parameters and cheap compilation: tests compile much and run little."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

# XLA's optimisation takes most of a small network's compile time.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def random_variables(module: Any, *inputs: Any, scale: float = 0.3) -> Any:
    """Variables of the module's shapes, all random (also those that start at zero)."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    random = np.random.default_rng(0)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + scale * random.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def initial_variables(module: Any, *inputs: Any) -> Any:
    """Variables as the module initialises them."""
    return quick_jit(module.init)(jax.random.key(1), *inputs)
