"""Layers one after the other as groups of nodes and edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flown_jax.errors import UserError
from flown_jax.weights.wiring import Wiring

_FLATTENINGS = ("as_conv", "repeat_nodes", None)
_ORDERS = ("corrected", "published")


@dataclass(frozen=True)
class Options:
    """How a chain becomes a graph; the arguments of `graphs.chain`.

    Raises:
      UserError: an unknown flattening or order.
    """

    flattening: str | None = "as_conv"
    order: str = "corrected"
    residual: tuple[int, ...] = ()
    activations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.flattening not in _FLATTENINGS:
            raise UserError(
                f"flattening {self.flattening!r} is unknown; it is as_conv, repeat_nodes or None."
            )
        if self.order not in _ORDERS:
            raise UserError(f"order {self.order!r} is unknown; it is one of {', '.join(_ORDERS)}.")


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer's tensors as places in [0, 1, *w].

    Attributes:
      name: PyTorch's, without ".weight".
      weight: (out, in, kh, kw) of a convolution, (out, in) of a linear layer, (units,) of a
        normalisation.
      features: of its units: the bias, and what else they have; None for one that is absent.
      present: whether the vector has the weight; otherwise `weight` tells its shape alone.
    """

    name: str
    weight: np.ndarray
    features: tuple[np.ndarray | None, ...] = ()
    present: bool = True


def wire(wiring: Wiring, layers: Sequence[Layer], options: Options) -> None:
    """Add a chain to the wiring: inputs, layers, the last one as outputs.

    Raises:
      UserError: a layer that does not fit the one before it, by name.
    """
    hidden = len(layers) - 1
    for what in ("residual", "activations"):
        if len(getattr(options, what)) not in (0, hidden):
            raise UserError(f"{what} must have one entry for each of {hidden} hidden layers.")
    first = layers[0].weight
    current = wiring.nodes("input", first.shape[first.ndim > 1], role="input")
    groups: list[int] = []
    for i, layer in enumerate(layers):
        positions = _positions(layers, i) if options.flattening == "repeat_nodes" else None
        activation = options.activations[i] if i < hidden and options.activations else None
        group = wiring.nodes(
            layer.name,
            len(layer.weight),
            *layer.features,
            role="hidden" if i < hidden else "output",
            activation=activation,
            positions=positions,
        )
        _connect(wiring, layers, i, current, group, options)
        groups.append(group)
        current = group
    for i, added in enumerate(options.residual):
        if added >= 0:
            _add(wiring, layers, groups, i, added, options.order)


def _connect(
    wiring: Wiring, layers: Sequence[Layer], i: int, source: int, target: int, options: Options
) -> None:
    name, weight, units = layers[i].name, layers[i].weight, wiring.units(source)
    if weight.ndim == 1:
        wiring.diagonal(name, source, target, weight if layers[i].present else None)
        return
    inputs = weight.shape[1]
    flat = i > 0 and _positions(layers, i - 1) is not None
    if flat and options.flattening is not None and inputs % units == 0:
        weight = _flattened(weight, units, options)
    elif inputs != units:
        raise UserError(_broken(name, weight.ndim, inputs, units, flat))
    wiring.dense(name, source, target, weight if layers[i].present else None)


def _positions(layers: Sequence[Layer], i: int) -> int | None:
    """Positions F of the layer's maps, if a linear layer flattens them; else None."""
    if i + 1 >= len(layers) or layers[i + 1].weight.ndim != 2:
        return None
    conv = next((layer for layer in reversed(layers[: i + 1]) if layer.weight.ndim > 1), None)
    if conv is None or conv.weight.ndim != 4:
        return None
    return max(1, layers[i + 1].weight.shape[1] // len(layers[i].weight))


def _flattened(weight: np.ndarray, channels: int, options: Options) -> np.ndarray:
    """The weight of a linear layer on flattened maps, PyTorch's order: channel, then position."""
    outputs, count = len(weight), weight.shape[1] // channels
    if options.flattening == "repeat_nodes":
        if options.order == "published":
            return weight
        return weight.reshape(outputs, channels, count).swapaxes(1, 2).reshape(outputs, -1)
    if count == 1:
        return weight
    side = math.isqrt(count)
    kernel = (side, side) if side**2 == count else (count,)
    return weight.reshape(outputs, channels, *kernel)


def _broken(name: str, rank: int, inputs: int, units: int, flat: bool) -> str:
    if rank == 4:
        if units % inputs == 0:
            return (
                f"layer {name} is a convolution whose kernel takes {inputs} of {units} channels: "
                "grouped ones are known to graphs in base models alone."
            )
        return (
            f"layer {name} is a convolution whose kernel takes {inputs} channels, where the layer "
            f"before it gives {units}: branches are known to graphs in base models alone."
        )
    if flat and inputs % units == 0:
        return (
            f"layer {name} takes {inputs} inputs, maps of {units} channels flattened: flattening "
            "must be as_conv or repeat_nodes."
        )
    return (
        f"layer {name} takes {inputs} inputs, where the layer before it gives {units}: branches "
        "are known to graphs in base models alone."
    )


def _add(
    wiring: Wiring, layers: Sequence[Layer], groups: Sequence[int], i: int, added: int, order: str
) -> None:
    """A residual connection from hidden layer `added` to hidden layer i."""
    name = layers[i].name
    if not added < i:
        raise UserError(
            f"the residual connection to layer {name} must come from a layer before it."
        )
    widths = [wiring.units(groups[number]) for number in (added, i)]
    if order == "corrected" and widths[0] != widths[1]:
        raise UserError(
            f"the residual connection to layer {name} adds {widths[0]} channels to {widths[1]}: "
            "unequal widths are not known to graphs (order='published' adds the first ones)."
        )
    everywhere = order == "corrected"
    wiring.identity(name, groups[added], groups[i], min(widths), everywhere)
