"""Accuracy of many weight vectors of one network on the same images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flown_jax.models.many import hits
from flown_jax.weights.spec import WeightSpec

_IMAGES, _VECTORS = 50, 50  # at a time where the vectors are a part of the network
_IMAGES_OF_WHOLE = 200


def measure(
    spec: WeightSpec,
    weights: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    host: Mapping[str, Any] | None = None,
    buffers_spec: WeightSpec | None = None,
    buffers: np.ndarray | None = None,
    update: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """{"accuracy" (K,), "loss" (K,)} of networks given as vectors.

    What the layers before a part compute is computed once for many vectors.

    Args:
      spec: of the vectors; of a registered network. weights: (K, D).
      images: uint8 (n, H, W, C). labels: (n,).
      prepare: images of a block -> the network's input, float32.
      host: variables around a part, and running statistics; None where the vectors are all.
      buffers_spec, buffers: running statistics (K, B) of each vector, in place of the host's.
      update: is told how many images are done.
    """
    count = len(labels)
    size = min(_IMAGES if spec.partial else _IMAGES_OF_WHOLE, count)
    group = min(_VECTORS, len(weights)) if spec.partial else len(weights)
    # One shape, one compilation: the last vectors and the last images are filled up with others.
    vectors = np.minimum(np.arange(-(-len(weights) // group) * group), len(weights) - 1)
    host = jax.device_put(host)
    correct, loss = np.zeros(len(vectors)), np.zeros(len(vectors))
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        inputs = prepare(images[rows % count])
        # A label of -1 marks an image that does not count.
        known = np.where(rows < count, labels[rows % count], -1).astype(np.int32)
        for first in range(0, len(vectors), group):
            part = slice(first, first + group)
            own = None if buffers is None else buffers[vectors[part]]
            found = _sums(spec, buffers_spec, host, weights[vectors[part]], own, inputs, known)
            correct[part] += np.asarray(found[0])
            loss[part] += np.asarray(found[1])
        update(min(start + size, count))
    return {
        "accuracy": correct[: len(weights)] / count,
        "loss": loss[: len(weights)] / count,
    }


def explained(x: np.ndarray, found: np.ndarray) -> float:
    """R2 of vectors found in the place of others: 1 is exact, 0 no better than their mean.

    1 - sum |x - found|^2 / sum |x|^2 over all vectors and entries, in float64.

    Args:
      x: (N, D), minus the mean that is to be beaten. found: (N, D), minus the same.
    """
    x, found = np.asarray(x, np.float64), np.asarray(found, np.float64)
    return float(1 - np.square(x - found).sum() / np.square(x).sum())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sums(
    spec: WeightSpec,
    buffers_spec: WeightSpec | None,
    host: Any,
    weights: jax.Array,
    buffers: jax.Array | None,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Hits and sums of losses over the labelled images of a block, (K,) each."""

    def one(vector: jax.Array, statistics: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        base = host
        if buffers_spec is not None and statistics is not None:
            base = buffers_spec.unflatten(statistics, host)
        logits = spec.apply(vector, images, base)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        right = jnp.sum(hits(logits, labels))
        return right, jnp.sum(jnp.where(labels < 0, 0.0, nll))

    if spec.partial:
        return jax.vmap(one)(weights, buffers)
    return jax.lax.map(lambda pair: one(*pair), (weights, buffers))
