"""What many weight vectors of one network make of the same images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from flown_jax.evaluation.networks import network_logits
from flown_jax.weights.spec import WeightSpec

_IMAGES, _VECTORS = 50, 50  # at a time where the vectors are a part of the network
_IMAGES_OF_WHOLE, _WHOLE = 50, 4  # small CNNs then fit in a cache: half the time of 200, 20


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
    correct, loss = np.zeros(len(weights)), np.zeros(len(weights))
    for rows, part, logits in _blocks(
        spec, weights, images, prepare, host, buffers_spec, buffers, update
    ):
        known = np.broadcast_to(labels[rows], logits.shape[:2])
        answered = ~np.isnan(logits).any(-1)
        correct[part] += ((logits.argmax(-1) == known) & answered).sum(1)
        with np.errstate(invalid="ignore"):  # NaN comes of infinite logits, and stays
            log_probs = special.log_softmax(logits.astype(np.float64), axis=-1)
        loss[part] -= np.take_along_axis(log_probs, known[..., None], -1)[..., 0].sum(1)
    return {"accuracy": correct / len(labels), "loss": loss / len(labels)}


def predictions(
    spec: WeightSpec,
    weights: np.ndarray,
    images: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    host: Mapping[str, Any] | None = None,
    buffers_spec: WeightSpec | None = None,
    buffers: np.ndarray | None = None,
) -> np.ndarray:
    """The class of each image by networks given as vectors, (K, n); -1 for logits not finite.

    Args:
      spec, weights, images, prepare, host, buffers_spec, buffers: as in `measure`.
    """
    found = np.empty((len(weights), len(images)), int)
    for rows, part, logits in _blocks(
        spec, weights, images, prepare, host, buffers_spec, buffers, lambda done: None
    ):
        answered = np.isfinite(logits).all(-1)
        found[part, rows] = np.where(answered, logits.argmax(-1), -1)
    return found


def explained(x: np.ndarray, found: np.ndarray) -> float:
    """R2 of vectors found in the place of others: 1 is exact, 0 no better than their mean.

    1 - sum |x - found|^2 / sum |x|^2 over all vectors and entries, in float64.

    Args:
      x: (N, D), minus the mean that is to be beaten. found: (N, D), minus the same.
    """
    x, found = np.asarray(x, np.float64), np.asarray(found, np.float64)
    return float(1 - np.square(x - found).sum() / np.square(x).sum())


def _blocks(
    spec: WeightSpec,
    weights: np.ndarray,
    images: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    host: Mapping[str, Any] | None,
    buffers_spec: WeightSpec | None,
    buffers: np.ndarray | None,
    update: Callable[[int], None],
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Some images and some vectors at a time: where they are, and their logits (K, n, classes)."""
    count, total = len(images), len(weights)
    size = min(_IMAGES if spec.partial else _IMAGES_OF_WHOLE, count)
    group = min(_VECTORS if spec.partial else _WHOLE, total)
    if buffers_spec is not None and buffers is not None and spec.partial:
        buffers_spec, buffers, host = _shared(buffers_spec, buffers, host)
    host = jax.device_put(host)
    for start in range(0, count, size):
        # One shape, one compilation: the last images and vectors are filled up with others.
        inputs = prepare(images[np.arange(start, start + size) % count])
        rows = slice(start, min(start + size, count))
        for first in range(0, total, group):
            chosen = np.minimum(np.arange(first, first + group), total - 1)
            part = slice(first, min(first + group, total))
            own = None if buffers is None else buffers[chosen]
            found = np.asarray(_logits(spec, buffers_spec, host, weights[chosen], own, inputs))
            yield rows, part, found[: part.stop - first, : rows.stop - start]
        update(rows.stop)


def _shared(
    spec: WeightSpec, buffers: np.ndarray, host: Mapping[str, Any] | None
) -> tuple[WeightSpec | None, np.ndarray | None, Mapping[str, Any]]:
    """Statistics that are the same for all vectors put into the host, the others beside it.

    Before a part they are, and what is computed with them is then computed once.
    """
    host = spec.unflatten(jnp.asarray(buffers[0]), host)
    differ = {n for n, place in spec.slices.items() if np.ptp(buffers[:, place], axis=0).any()}
    if not differ:
        return None, None, host
    columns = np.concatenate(
        [np.arange(spec.size)[spec.slices[n]] for n in spec.names if n in differ]
    )
    return spec.subset(differ.__contains__), buffers[:, columns], host


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(
    spec: WeightSpec,
    buffers_spec: WeightSpec | None,
    host: Any,
    weights: jax.Array,
    buffers: jax.Array | None,
    images: jax.Array,
) -> jax.Array:
    if spec.model == "cnn" and not spec.partial:
        return network_logits(spec, weights, images)

    def one(vector: jax.Array, statistics: jax.Array | None) -> jax.Array:
        base = host
        if buffers_spec is not None and statistics is not None:
            base = buffers_spec.unflatten(statistics, host)
        return spec.apply(vector, images, base)

    if spec.partial:
        return jax.vmap(one)(weights, buffers)
    return jax.lax.map(lambda pair: one(*pair), (weights, buffers))
