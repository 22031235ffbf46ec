"""How a network is wired: groups of nodes and of edges, from which `graph_tables` makes a graph.

Everything is index arithmetic. A tensor is given as an array of PyTorch's shape that holds, of each
of its values, the place in [0, 1, *w]; a feature of a node or an edge is such a place, and what a
network does not have is place 0. Kernels stand in the middle of K x K features, as if padded with
zeros; so does a single weight, which is a 1 x 1 kernel.
Source: Kofinas et al., Graph Neural Networks for Learning Equivariant Representations of Neural
Networks, 2024; normalisations as in FLoWN A.2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flown_jax.errors import UserError

ZERO, ONE = 0, 1  # places of the constants
OFFSET = 2  # of the weights behind them
_ACTIVATIONS = {
    "none": 0,
    "relu": 1,
    "gelu": 2,
    "quick_gelu": 2,
    "silu": 3,
    "tanh": 4,
    "sigmoid": 5,
    "leaky_relu": 6,
    "leakyrelu": 6,
}
_LONGEST = 2**31 - 3  # a vector whose places are int32


def places(start: int, shape: Sequence[int]) -> np.ndarray:
    """Places in [0, 1, *w] of a tensor that begins at w[start], int32 of its shape.

    Raises:
      UserError: a vector too long for int32.
    """
    stop = start + math.prod(shape)
    if stop > _LONGEST:
        raise UserError(f"a vector of {stop:,} weights is too long for a graph: take a part of it.")
    return np.arange(start + OFFSET, stop + OFFSET, dtype=np.int32).reshape(shape)


@dataclass
class Nodes:
    """A group of nodes; see `Wiring.nodes`."""

    name: str
    units: int
    role: str
    features: tuple[np.ndarray | None, ...]
    activation: int
    positions: int | None
    blocks: int

    @property
    def size(self) -> int:
        """How many nodes, copies of units included."""
        return self.units * (self.positions or 1)


@dataclass
class Edges:
    """Edges from one group of nodes to another.

    Attributes:
      name: of the layer.
      source, target: numbers of the groups.
      senders, receivers: (E,), nodes within the source and within the target.
      features: (E,) single weights, (E, k) to stand from feature 0 on, (E, kh, kw) in the middle.
      parameters: whether the features are weights.
      ties: whether the groups' units belong together.
    """

    name: str
    source: int
    target: int
    senders: np.ndarray
    receivers: np.ndarray
    features: np.ndarray
    parameters: bool = True
    ties: bool = False


class Wiring:
    """Groups of nodes and of edges, added one by one."""

    def __init__(self) -> None:
        self.groups: list[Nodes] = []
        self.edges: list[Edges] = []

    def nodes(
        self,
        name: str,
        units: int,
        *features: np.ndarray | None,
        role: str = "hidden",
        activation: str | None = None,
        positions: int | None = None,
        blocks: int = 1,
    ) -> int:
        """Add a group of nodes; returns its number.

        Args:
          name: of the layer. units: how many.
          features: the bias and further vectors of a value, (units,), or several, (units, m), each
            unit; None for one that the network lacks.
          role: input, hidden or output.
          activation: its name, on hidden nodes; None where it is not known.
          positions: copies of each unit, numbered; None for no repeated nodes.
          blocks: as of `graph_tables.Group`.
        Raises:
          UserError: an unknown activation, a vector of another length.
        """
        if activation is not None and activation not in _ACTIVATIONS:
            raise UserError(
                f"activation {activation!r} of layer {name} is unknown to graphs; it is one of "
                f"{', '.join(_ACTIVATIONS)}."
            )
        for feature in features:
            if feature is not None and len(feature) != units:
                raise UserError(
                    f"layer {name} has {units} units and a vector of {len(feature)} values."
                )
        number = -1 if activation is None or role != "hidden" else _ACTIVATIONS[activation]
        self.groups.append(Nodes(name, units, role, features, number, positions, blocks))
        return len(self.groups) - 1

    def units(self, group: int) -> int:
        """Units of a group, its copies not counted."""
        return self.groups[group].units

    def dense(self, name: str, source: int, target: int, tensor: np.ndarray | None) -> None:
        """Edges from every node to every unit, copies of the unit included.

        Args:
          name: of the layer.
          tensor: (out, in), (out, in, k) or (out, in, kh, kw), `in` counting copies of the source's
            units; None adds nothing.
        Raises:
          UserError: groups of other sizes.
        """
        if tensor is None:
            return
        inputs, outputs = self.groups[source].size, self.groups[target].units
        if tensor.shape[:2] != (outputs, inputs):
            raise UserError(
                f"layer {name} connects {tensor.shape[1]} inputs with {tensor.shape[0]} outputs, "
                f"where the layers have {inputs} and {outputs}."
            )
        size, kernel = self.groups[target].size, tensor.shape[2:]
        tiled = np.tile(tensor, (size // outputs, 1, *(1 for _ in kernel)))
        senders = np.repeat(np.arange(inputs, dtype=np.int32), size)
        receivers = np.tile(np.arange(size, dtype=np.int32), inputs)
        features = tiled.swapaxes(0, 1).reshape(-1, *kernel)
        self.edges.append(Edges(name, source, target, senders, receivers, features))

    def diagonal(self, name: str, source: int, target: int, tensor: np.ndarray | None) -> None:
        """Edges from each unit to its own, copies of it included: a normalisation, a depthwise
        convolution.

        Args:
          tensor: (units,) or (units, kh, kw); None adds nothing.
        Raises:
          UserError: groups of another size.
        """
        if tensor is None:
            return
        if not len(tensor) == self.units(source) == self.units(target):
            raise UserError(
                f"layer {name} has {len(tensor)} values, where the layer before it has "
                f"{self.units(source)} units: branches are known to graphs in base models alone."
            )
        self._one_to_one(name, source, target, tensor, parameters=True)

    def identity(
        self,
        name: str,
        source: int,
        target: int,
        units: int | None = None,
        everywhere: bool = True,
    ) -> None:
        """Edges of value 1 from each unit to its own: a sum.

        Args:
          units: of the first so many units; None for all.
          everywhere: to all copies of a repeated unit; otherwise to the first.
        """
        count = self.units(source) if units is None else units
        ones = np.full((count, 1, 1), ONE, np.int32)
        self._one_to_one(name, source, target, ones, parameters=False, everywhere=everywhere)

    def constant(
        self, name: str, source: int, target: int, senders: np.ndarray, receivers: np.ndarray
    ) -> None:
        """Edges of value 1 between these pairs of units, which ties the groups."""
        ones = np.full((len(senders), 1, 1), ONE, np.int32)
        self.edges.append(Edges(name, source, target, senders, receivers, ones, False, ties=True))

    def _one_to_one(
        self,
        name: str,
        source: int,
        target: int,
        tensor: np.ndarray,
        parameters: bool,
        everywhere: bool = True,
    ) -> None:
        count, group = len(tensor), self.groups[target]
        copies = np.arange(group.size).reshape(-1, group.units)[: None if everywhere else 1, :count]
        senders, receivers = np.tile(np.arange(count), len(copies)), copies.reshape(-1)
        features = np.tile(tensor, (len(copies), *(1 for _ in tensor.shape[1:])))
        self.edges.append(
            Edges(name, source, target, senders, receivers, features, parameters, ties=True)
        )
