"""Alignment: the hidden units of many CNNs in one order and with one sign ("re-basin").

Networks of different seeds differ in the order and the signs of their units by chance. Aligned ones
are closer to each other, and their averages are better networks.

Units are matched by their activations on some images: the permutation that has the largest sum of
correlations with the units of a reference (of their absolute values, where signs are free). What a
unit computes does not depend on the order below it, so that layers are matched one by one. Units
that are constant on all images, such as dead ones of ReLU, are matched by what they get before the
activation, and arbitrarily where that is constant as well.

    aligned = align(spec, zoo.weights, images)
    others = apply_reference(spec, held_out.weights, aligned.reference)

Alignment to a reference hides near-copies of a network: small differences can lead to another
permutation. `matching.matched_distances` finds them.
Source: Ainsworth et al., Git Re-Basin: Merging Models modulo Permutation Symmetries, 2023, sec. 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.errors import UserError
from flown_jax.models import many
from flown_jax.models.activations import get_activation
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.symmetries import (
    Symmetry,
    checked_weights,
    hidden_layers,
    network,
    transform,
)

_NETWORKS = 16  # of one call; fewer where there are many images:
_EVALUATIONS = 3200  # networks x images of one call, for its memory
_CONSTANT = 1e-5  # of a unit's mean: a smaller standard deviation is rounding


@dataclass(frozen=True, eq=False)
class Reference:
    """What networks are aligned to.

    Attributes:
      images: (B, H, W, C), preprocessed, on which units are compared.
      activations: standardised, of each hidden layer (B positions, units).
    """

    images: np.ndarray
    activations: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Aligned:
    """Networks after alignment.

    Attributes:
      weights: (N, D).
      symmetries: what was done to each network, N of them.
      correlations: (N, hidden layers), mean correlation of a layer's units with the reference's.
      reference: what they are aligned to.
    """

    weights: np.ndarray
    symmetries: tuple[Symmetry, ...]
    correlations: np.ndarray
    reference: Reference


def activations(
    spec: WeightSpec, weights: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Of each hidden layer (N, B positions, units), after pooling and activation.

    Each unit has mean 0 and standard deviation 1 over images and positions. A constant one is what
    it gets before the activation, in the same units, and 0 if that is constant, too.

    Args:
      spec: of a CNN. weights: (N, D). images: (B, H, W, C), preprocessed.
    Raises:
      UserError: not a whole CNN, vectors of another length, images of another size.
    """
    groups = [found for _, found in _groups(spec, checked_weights(spec, weights), images)]
    return tuple(np.concatenate(layer) for layer in zip(*groups, strict=True))


def align(
    spec: WeightSpec,
    weights: np.ndarray,
    images: np.ndarray,
    *,
    reference: np.ndarray | None = None,
    rounds: int = 2,
) -> Aligned:
    """The networks with their units in the order of a reference.

    In the first round this is a network, in later ones the mean of the standardised activations
    of all networks as the round before has aligned them.

    Args:
      spec: of a CNN. weights: (N, D). images: (B, H, W, C), preprocessed.
      reference: (D,), the network of the first round; None takes the first.
      rounds: at least 1.
    Raises:
      UserError: not a whole CNN, vectors of another length, images of another size, no round.
    """
    weights = checked_weights(spec, weights)
    if rounds < 1:
        raise UserError(f"alignment needs at least one round, not {rounds}.")
    first = weights[:1] if reference is None else checked_weights(spec, np.asarray(reference)[None])
    images = np.asarray(images)
    target = tuple(layer[0] for layer in activations(spec, first, images))
    for _ in range(rounds - 1):
        target = _match(spec, weights, Reference(images, target), average=True)[-1]
    return apply_reference(spec, weights, Reference(images, target))


def apply_reference(spec: WeightSpec, weights: np.ndarray, reference: Reference) -> Aligned:
    """Networks with their units in the order of a reference that `align` has found.

    Args:
      spec: of a CNN with the reference's sizes. weights: (N, D).
    Raises:
      UserError: not a whole CNN, vectors of another length, a reference of another CNN.
    """
    weights = checked_weights(spec, weights)
    permutations, signs, correlations, _ = _match(spec, weights, reference, average=False)
    symmetries = tuple(
        Symmetry(tuple(p[i] for p in permutations), tuple(s[i] for s in signs))
        for i in range(len(weights))
    )
    return Aligned(transform(spec, weights, symmetries), symmetries, correlations, reference)


def assign(correlations: np.ndarray, signs: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best matches of units: permutations, signs and correlations of the matched, (K, units).

    Args:
      correlations: (K, units, units), of the target's units (rows) with a network's.
      signs: whether a unit may change its sign.
    """
    from scipy.optimize import linear_sum_assignment

    scores = np.abs(correlations) if signs else correlations
    best = [linear_sum_assignment(score, maximize=True)[1] for score in scores]
    permutations = np.stack(best)
    found = np.take_along_axis(correlations, permutations[:, :, None], 2)[:, :, 0]
    factors = np.where(signs & (found < 0), -1, 1)
    return permutations, factors, found * factors


def _match(
    spec: WeightSpec, weights: np.ndarray, reference: Reference, average: bool
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray, tuple[np.ndarray, ...]]:
    """Permutations and signs (N, units) of each layer, correlations (N, layers), and the mean of
    the aligned activations, standardised (nothing without `average`)."""
    layers = hidden_layers(spec)
    targets = reference.activations
    if [target.shape[-1] for target in targets] != [layer.units for layer in layers]:
        raise UserError("the reference is of a CNN of other sizes than the networks to align.")
    count = len(weights)
    permutations = [np.empty((count, layer.units), int) for layer in layers]
    signs = [np.empty((count, layer.units), int) for layer in layers]
    correlations = np.empty((count, len(layers)))
    sums = [np.zeros(target.shape) for target in targets if average]
    for part, found in _groups(spec, weights, reference.images):
        for i, (layer, target, own) in enumerate(zip(layers, targets, found, strict=True)):
            if len(target) != own.shape[1]:
                raise UserError("the reference has not the activations of its images.")
            products = np.tensordot(own, target, (1, 0)).swapaxes(1, 2) / len(target)
            order, sign, matched = assign(products, layer.signs)
            permutations[i][part], signs[i][part] = order, sign
            correlations[part, i] = matched.mean(1)
            for k in range(len(own) if average else 0):
                sums[i] += own[k][:, order[k]] * sign[k]
    means = tuple(np.asarray(_per_unit(jnp.asarray(total, jnp.float32))) for total in sums)
    return permutations, signs, correlations, means


def _groups(
    spec: WeightSpec, weights: np.ndarray, images: np.ndarray
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Some networks at a time: where they are, and what `activations` gives for them."""
    images = _checked_images(spec, images)
    size = max(1, min(_NETWORKS, _EVALUATIONS // len(images)))
    for start in range(0, len(weights), size):
        # One shape, one compilation: the last networks are filled up with others.
        rows = np.minimum(np.arange(start, start + size), len(weights) - 1)
        part = slice(start, min(start + size, len(weights)))
        found = _standardised(spec, weights[rows], images)
        yield part, [np.asarray(layer)[: part.stop - start] for layer in found]


def _checked_images(spec: WeightSpec, images: Any) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or not len(images) or not np.issubdtype(images.dtype, np.floating):
        raise UserError(
            f"images must be preprocessed, numbers (B, H, W, C), not {images.dtype} {images.shape}."
        )
    cnn = network(spec)
    given = cnn.kernel_shapes(images.shape[-1], cnn.flat_size(*images.shape[1:3]))
    for entry in spec.entries:
        _, name, leaf = entry.path.split("/")
        if leaf == "kernel" and given[name][-2] != entry.shape[1]:
            raise UserError(
                f"images {images.shape[1:]} give {name} of this CNN {given[name][-2]} inputs, but "
                f"its weights have {entry.shape[1]}."
            )
    return images


@partial(jax.jit, static_argnums=0)
def _standardised(spec: WeightSpec, weights: Array, images: Array) -> list[Array]:
    cnn = network(spec)
    activation = get_activation(cnn.activation)
    params = jax.vmap(spec.unflatten)(weights)["params"]
    x, found = images[None], []
    for i, pooled in enumerate(cnn.pools):
        layer = params[f"conv_{i}"]
        x = many.convolve(x, layer["kernel"], pooled=pooled)
        inner = x + layer["bias"][:, None, None, None, :]
        x = activation(inner)
        found.append(_per_unit(*(y.reshape(len(y), -1, y.shape[-1]) for y in (x, inner))))
    x = jnp.moveaxis(x, -1, 2).reshape(*x.shape[:2], -1)  # as PyTorch: channel, row, column
    for i in range(len(cnn.hidden)):
        layer = params[f"dense_{i}"]
        inner = jnp.einsum("mnk,mkf->mnf", x, layer["kernel"]) + layer["bias"][:, None]
        x = activation(inner)
        found.append(_per_unit(x, inner))
    return found


@jax.jit
def _per_unit(x: Array, inner: Array | None = None) -> Array:
    """x (..., n, units) with mean 0 and standard deviation 1 over n; where it is constant, `inner`
    in the same units, or 0."""
    mean = x.mean(-2, keepdims=True)
    std = x.std(-2, keepdims=True)
    instead = 0.0 if inner is None else _per_unit(inner)
    varies = std > _CONSTANT * jnp.abs(mean)
    return jnp.where(varies, (x - mean) / jnp.where(std > 0, std, 1), instead)
