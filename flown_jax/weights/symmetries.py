"""Changes of a CNN's hidden units that leave its function as it is.

A network computes the same if the units of a hidden layer change places, and the inputs of the next
layer with them; likewise if a unit changes its sign, where the activation is odd. A maximum is not
odd, so units of a pooled layer keep their signs. ReLU and leaky ReLU allow positive factors between
layers as well, the sigmoid a change of sign that the next biases pay for (s(-x) = 1 - s(x)):
`hidden_layers` says so, `transform` does neither, and `canonical` takes both out of a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.models.cnn import CNN
from flown_jax.weights.spec import WeightSpec

_ODD = ("tanh",)  # activations with f(-x) = -f(x)
_MIRRORED = ("sigmoid",)  # with f(-x) = 1 - f(x)
_HOMOGENEOUS = ("relu", "leakyrelu")  # with f(ax) = a f(x) for positive a


@dataclass(frozen=True)
class Layer:
    """A hidden layer.

    Attributes:
      name: its linen name, such as "conv_0".
      units: channels or neurons.
      signs: whether its units may change their signs.
      mirrors: whether they may where the biases behind are those of f - 1/2, as `canonical` has it.
      scales: whether a unit's weights may be multiplied, and those behind it divided.
    """

    name: str
    units: int
    signs: bool
    mirrors: bool = False
    scales: bool = False


@dataclass(frozen=True, eq=False)
class Symmetry:
    """A change of a network's units that leaves its function as it is.

    Attributes:
      permutations: of each hidden layer, (units,): the new unit i is the old unit permutation[i],
      signs: times signs[i], 1 or -1.
    """

    permutations: tuple[np.ndarray, ...]
    signs: tuple[np.ndarray, ...]


def hidden_layers(spec: WeightSpec) -> tuple[Layer, ...]:
    """The layers whose units may change places: all but the classifier.

    Raises:
      UserError: the spec is not of a whole CNN.
    """
    cnn = network(spec)
    kind = cnn.activation
    named = [(f"conv_{i}", n, cnn.pools[i]) for i, n in enumerate(cnn.channels)]
    named += [(f"dense_{i}", n, False) for i, n in enumerate(cnn.hidden)]
    return tuple(
        Layer(
            name,
            units,
            signs=kind in _ODD and not pooled,
            mirrors=kind in _MIRRORED and not pooled,
            scales=kind in _HOMOGENEOUS,
        )
        for name, units, pooled in named
    )


def transform(spec: WeightSpec, weights: np.ndarray, symmetries: Sequence[Symmetry]) -> np.ndarray:
    """The same functions with other units, (N, D); values move and change signs, nothing else.

    Args:
      spec: of a CNN. weights: (N, D). symmetries: one of each network.
    Raises:
      UserError: not a whole CNN, vectors of another length, symmetries of another network, or a
        change of sign in a layer that does not allow it.
    """
    layers, weights = hidden_layers(spec), checked_weights(spec, weights)
    if len(symmetries) != len(weights):
        raise UserError(f"{len(weights)} networks need as many symmetries, not {len(symmetries)}.")
    for symmetry in symmetries:
        _check(symmetry, layers)
    by_layer = range(len(layers))
    permutations = [np.stack([s.permutations[i] for s in symmetries]) for i in by_layer]
    signs = [np.stack([s.signs[i] for s in symmetries]) for i in by_layer]
    return moved(spec, weights, permutations, signs)


def permuted(spec: WeightSpec, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same functions with the units of every hidden layer in a random order, (N, D).

    Args:
      spec: of a CNN. weights: (N, D). rng: of the orders, one of each network and layer.
    Raises:
      UserError: not a whole CNN, or vectors of another length.
    """
    weights = checked_weights(spec, weights)
    orders = [
        rng.permuted(np.tile(np.arange(layer.units), (len(weights), 1)), axis=1)
        for layer in hidden_layers(spec)
    ]
    return moved(spec, weights, orders, [np.ones_like(order) for order in orders])


def moved(
    spec: WeightSpec,
    weights: np.ndarray,
    permutations: Sequence[np.ndarray],
    signs: Sequence[np.ndarray],
) -> np.ndarray:
    """`transform` with the symmetries of K networks as one (K, units) array for each layer.

    Unlike `transform` it checks nothing.
    """
    cnn, count = network(spec), len(weights)
    classes = np.arange(cnn.num_classes)[None].repeat(count, 0)
    # The images are a single input unit, and the classes stay where they are.
    orders = [np.zeros((count, 1), int), *permutations, classes]
    factors = [np.ones((count, 1), int), *signs, np.ones_like(classes)]
    names = [*(layer.name for layer in hidden_layers(spec)), f"dense_{len(cnn.hidden)}"]
    places = {entry.path: spec.slices[entry.name] for entry in spec.entries}
    index = np.empty((count, spec.size), int)
    factor = np.empty((count, spec.size), weights.dtype)
    for i, name in enumerate(names):
        inputs, outputs = orders[i], orders[i + 1]
        place = places[f"params/{name}/kernel"]
        # Flattened maps are blocks of positions, a block for each channel, as kernels are.
        blocks = np.arange(place.start, place.stop)
        blocks = blocks.reshape(outputs.shape[1], inputs.shape[1], -1)
        index[:, place] = blocks[outputs[:, :, None], inputs[:, None]].reshape(count, -1)
        both = factors[i + 1][:, :, None] * factors[i][:, None]
        factor[:, place] = both.reshape(count, -1).repeat(blocks.shape[-1], 1)
        place = places[f"params/{name}/bias"]
        index[:, place] = place.start + outputs
        factor[:, place] = factors[i + 1]
    return np.take_along_axis(weights, index, 1) * factor


def checked_weights(spec: WeightSpec, weights: Any) -> np.ndarray:
    """The vectors as they are, (N, D) with N > 0.

    Raises:
      UserError: they are of another shape, or the spec is not of a whole CNN.
    """
    network(spec)
    weights = np.asarray(weights)
    if weights.ndim != 2 or not len(weights) or weights.shape[1] != spec.size:
        raise UserError(
            f"weights must be (N, {spec.size}), a row for each of N networks, not {weights.shape}."
        )
    return weights


def network(spec: WeightSpec) -> CNN:
    """The network of a spec.

    Raises:
      UserError: the spec is not of a whole CNN.
    """
    if spec.model != "cnn" or spec.partial:
        part = "a part of " if spec.partial else ""
        raise UserError(
            f"only whole networks of the model cnn can be aligned, not {part}{spec.model}."
        )
    return spec.module()


def _check(symmetry: Symmetry, layers: Sequence[Layer]) -> None:
    if not len(symmetry.permutations) == len(symmetry.signs) == len(layers):
        raise UserError(f"a symmetry of this network has {len(layers)} permutations and signs.")
    for layer, order, signs in zip(layers, symmetry.permutations, symmetry.signs, strict=True):
        if not np.array_equal(np.sort(order), np.arange(layer.units)):
            raise UserError(
                f"{layer.name} needs a permutation of 0 to {layer.units - 1}, not {order!s:.80}."
            )
        if np.shape(signs) != (layer.units,) or not np.all(np.abs(signs) == 1):
            raise UserError(f"{layer.name} needs {layer.units} signs 1 or -1, not {signs!s:.80}.")
        if not layer.signs and np.any(np.asarray(signs) < 0):
            raise UserError(
                f"units of {layer.name} must keep their signs: its activation is not odd, or a "
                "max-pooling is before it."
            )
