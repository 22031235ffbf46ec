"""BatchNorm's running statistics of generated networks, estimated anew on training images.

A generated or averaged network has no running statistics of its own, and those of the network
around a part were measured with other weights. They are estimated on training images, of every
network alike; on test images they would be a choice by these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.weights.spec import WeightSpec

_VECTORS = 50  # at a time


def reestimated(
    spec: WeightSpec,
    weights: np.ndarray,
    images: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    host: Mapping[str, Any],
    images_at_a_time: int = 100,
) -> tuple[WeightSpec, np.ndarray] | None:
    """The spec of running statistics, and those of each network (S, B); None without BatchNorm.

    The mean over batches of what each layer sees in training mode, where all layers before it
    normalise by the batch, too; variances are biased, as the running ones of a training here.

    Args:
      spec: of the vectors, of a registered network. weights: (S, D).
      images: uint8 (n, H, W, C), of the training split; what is left of the last batch is not used.
      prepare: images of a batch -> the network's input, float32.
      host: variables around a part; of whole networks their running statistics are not used.
    """
    if "batch_stats" not in host:
        return None
    own = WeightSpec.from_module(spec.module(), host, collections=("batch_stats",))
    size = min(images_at_a_time, len(images))
    batches = len(images) // size
    total = np.zeros((len(weights), own.size))
    for batch in range(batches):
        inputs = prepare(images[batch * size : (batch + 1) * size])
        for first in range(0, len(weights), _VECTORS):
            rows = slice(first, first + _VECTORS)
            # One shape, one compilation.
            chosen = np.minimum(np.arange(first, first + _VECTORS), len(weights) - 1)
            found = np.asarray(_statistics(spec, own, host, weights[chosen], inputs))
            total[rows] += found[: len(weights) - first]
    return own, (total / batches).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _statistics(
    spec: WeightSpec, own: WeightSpec, host: Any, weights: jax.Array, images: jax.Array
) -> jax.Array:
    """Of one batch, (S, B)."""
    module = spec.module()

    def updated(vector: jax.Array, before: float) -> jax.Array:
        start = jax.tree.map(lambda leaf: jnp.full_like(leaf, before), host["batch_stats"])
        variables = {**spec.unflatten(vector, host), "batch_stats": start}
        _, changed = module.apply(variables, images, train=True, mutable=["batch_stats"])
        return own.flatten(changed)

    def one(vector: jax.Array) -> jax.Array:
        # What is updated is m old + (1 - m) new, whatever m is.
        from_zeros, from_ones = updated(vector, 0.0), updated(vector, 1.0)
        return from_zeros / (1.0 - (from_ones - from_zeros))

    return jax.vmap(one)(weights)
