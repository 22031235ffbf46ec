"""How a network is wired: groups of nodes and of edges, and from them a graph's index arrays.

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
from typing import Any

import numpy as np

from flown_jax.errors import UserError

ZERO, ONE = 0, 1  # places of the constants
_OFFSET = 2  # of the weights behind them
ROLES = ("input", "hidden", "output")
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
_MOST = 2**31  # features that int32 can count


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes of one layer, contiguous.

    Attributes:
      name: of the layer, PyTorch's without ".weight"; "input" for the inputs.
      start, size: its nodes are start .. start + size - 1.
      role: input, hidden or output.
      level: number of the hidden group, from 0; 0 for inputs and outputs.
      positions: copies of each unit (repeated nodes), one after the other: node p * units + u.
      blocks: units stay together in so many blocks of equal size, the heads of an attention:
        groups that are tied move their blocks alike, and units move freely within a block.
    """

    name: str
    start: int
    size: int
    role: str
    level: int
    positions: int = 1
    blocks: int = 1

    @property
    def units(self) -> int:
        """Channels or neurons, each counted once."""
        return self.size // self.positions


def places(start: int, shape: Sequence[int]) -> np.ndarray:
    """Places in [0, 1, *w] of a tensor that begins at w[start], int32 of its shape."""
    stop = start + math.prod(shape)
    return np.arange(start + _OFFSET, stop + _OFFSET, dtype=np.int32).reshape(shape)


@dataclass
class _Nodes:
    name: str
    units: int
    role: str
    features: tuple[np.ndarray | None, ...]
    activation: int
    positions: int | None
    blocks: int

    @property
    def size(self) -> int:
        return self.units * (self.positions or 1)


@dataclass
class _Edges:
    name: str
    source: int
    target: int
    senders: np.ndarray  # within the source
    receivers: np.ndarray  # within the target
    features: np.ndarray  # (E,) one weight, (E, k) from feature 0 on, (E, kh, kw) in the middle
    parameters: bool
    ties: bool


class Wiring:
    """Groups that are added one by one, and the index arrays of them all."""

    def __init__(self) -> None:
        self._nodes: list[_Nodes] = []
        self._edges: list[_Edges] = []

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
          blocks: as of `Group`.
        Raises:
          UserError: an unknown activation, a vector of another length.
        """
        if activation is not None and activation not in _ACTIVATIONS:
            raise UserError(
                f"activation {activation!r} of {name} is unknown to graphs; it is one of "
                f"{', '.join(_ACTIVATIONS)}."
            )
        for feature in features:
            if feature is not None and len(feature) != units:
                raise UserError(f"{name} has {units} units and a vector of {len(feature)} values.")
        number = -1 if activation is None or role != "hidden" else _ACTIVATIONS[activation]
        self._nodes.append(_Nodes(name, units, role, features, number, positions, blocks))
        return len(self._nodes) - 1

    def units(self, group: int) -> int:
        """Units of a group, its copies not counted."""
        return self._nodes[group].units

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
        inputs, outputs = self._nodes[source].size, self._nodes[target].units
        if tensor.shape[:2] != (outputs, inputs):
            raise UserError(
                f"{name} connects {tensor.shape[1]} inputs with {tensor.shape[0]} outputs, where "
                f"the layers have {inputs} and {outputs}."
            )
        size, kernel = self._nodes[target].size, tensor.shape[2:]
        tiled = np.tile(tensor, (size // outputs, 1, *(1 for _ in kernel)))
        self._add(
            name,
            source,
            target,
            np.repeat(np.arange(inputs), size),
            np.tile(np.arange(size), inputs),
            tiled.swapaxes(0, 1).reshape(-1, *kernel),
        )

    def diagonal(self, name: str, source: int, target: int, tensor: np.ndarray | None) -> None:
        """Edges from each unit to its own, copies of it included: a normalisation, a depthwise
        convolution.

        Args:
          tensor: (units,) or (units, kh, kw); None adds nothing.
        """
        if tensor is not None:
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
        """Edges of value 1 between these pairs of units."""
        ones = np.full((len(senders), 1, 1), ONE, np.int32)
        self._add(name, source, target, senders, receivers, ones, parameters=False)

    def _one_to_one(
        self,
        name: str,
        source: int,
        target: int,
        tensor: np.ndarray,
        parameters: bool,
        everywhere: bool = True,
    ) -> None:
        count, group = len(tensor), self._nodes[target]
        copies = np.arange(group.size).reshape(-1, group.units)[: None if everywhere else 1, :count]
        self._add(
            name,
            source,
            target,
            np.tile(np.arange(count), len(copies)),
            copies.reshape(-1),
            np.tile(tensor, (len(copies), *(1 for _ in tensor.shape[1:]))),
            parameters,
            ties=True,
        )

    def _add(
        self,
        name: str,
        source: int,
        target: int,
        senders: np.ndarray,
        receivers: np.ndarray,
        features: np.ndarray,
        parameters: bool = True,
        ties: bool = False,
    ) -> None:
        self._edges.append(
            _Edges(name, source, target, senders, receivers, features, parameters, ties)
        )

    def tables(self, size: int, kernel: int | None, linear_as_conv: bool) -> dict[str, Any]:
        """The fields of a `graphs.Topology`.

        Groups that no tensor touches are left out, and edges of value 1 to and from them.

        Args:
          size: D, length of a weight vector.
          kernel: K; None for the largest side.
          linear_as_conv: put single weights in the middle; otherwise in feature 0, flagged.
        Raises:
          UserError: a kernel larger than K, a graph too large, two edges between two nodes.
        """
        used = {i for i, g in enumerate(self._nodes) if any(f is not None for f in g.features)}
        used |= {end for e in self._edges if e.parameters for end in (e.source, e.target)}
        edges = [e for e in self._edges if {e.source, e.target} <= used]
        numbers = {group: number for number, group in enumerate(sorted(used))}
        nodes = [self._nodes[group] for group in numbers]
        side = _side(edges, kernel)
        starts = np.cumsum([0, *(group.size for group in nodes)])
        count = sum(len(e.senders) for e in edges)
        if max(count, starts[-1]) * side**2 >= _MOST:
            raise UserError(
                f"the graph of this network would have {count:,} edges of {side**2} features, more "
                "than 32 bits can count: take a part of it."
            )
        found = _node_tables(nodes, starts)
        ends = [(starts[numbers[e.source]], starts[numbers[e.target]]) for e in edges]
        empty = [np.zeros(0, int)]  # a part may have no edges
        senders = np.concatenate(
            empty + [e.senders + start for e, (start, _) in zip(edges, ends, strict=True)]
        )
        receivers = np.concatenate(
            empty + [e.receivers + start for e, (_, start) in zip(edges, ends, strict=True)]
        )
        keys = senders * starts[-1] + receivers
        order = np.argsort(keys, kind="stable")
        if len(twice := order[:-1][np.diff(keys[order]) == 0]):
            layers = np.repeat([e.name for e in edges], [len(e.senders) for e in edges])
            raise UserError(
                f"{layers[twice[0]]} has two edges between the same two units, which a graph "
                "cannot tell apart: a residual connection must pass over a layer at least."
            )
        features = np.zeros((count, side**2), np.int32)
        linear = np.zeros(count, bool)
        at = 0
        for e in edges:
            part = slice(at, at := at + len(e.senders))
            linear[part] = e.features.ndim == 1 and not linear_as_conv
            features[part] = _flat(e.features, side, linear_as_conv)
        found |= {
            "size": size,
            "senders": senders[order].astype(np.int32),
            "receivers": receivers[order].astype(np.int32),
            "edge_source": features[order],
            "linear": linear[order],
            "tied": _components([(numbers[e.source], numbers[e.target]) for e in edges if e.ties]),
        }
        found["places"] = _first(size, found["node_source"], found["edge_source"])
        return found


def _side(edges: Sequence[_Edges], kernel: int | None) -> int:
    """K, after a check that everything has a place in K x K."""
    needed = [
        max(e.features.shape[1:])
        if e.features.ndim == 3
        else math.ceil(math.sqrt(math.prod(e.features.shape[1:])))
        for e in edges
    ]
    largest = max(needed, default=1)
    if kernel is None:
        return largest
    if largest > kernel:
        raise UserError(
            f"{edges[needed.index(largest)].name} needs {largest}x{largest} features, more than "
            f"the kernel of {kernel}x{kernel} has."
        )
    return kernel


def _flat(features: np.ndarray, side: int, linear_as_conv: bool) -> np.ndarray:
    """Features in K x K, row by row, (E, K^2)."""
    if features.ndim == 1 and linear_as_conv:
        features = features[:, None, None]
    if features.ndim < 3:
        features = features.reshape(len(features), -1)
        return np.pad(features, ((0, 0), (0, side**2 - features.shape[1])))
    before = [(side - length) // 2 for length in features.shape[1:]]
    pads = [(b, side - length - b) for b, length in zip(before, features.shape[1:], strict=True)]
    return np.pad(features, ((0, 0), *pads)).reshape(len(features), -1)


def _node_tables(nodes: Sequence[_Nodes], starts: np.ndarray) -> dict[str, Any]:
    columns = [
        np.concatenate(
            [_column(f, group.units) for f in group.features] or [_column(None, group.units)], 1
        )
        for group in nodes
    ]
    width = max(c.shape[1] for c in columns)
    source = np.zeros((starts[-1], width), np.int32)
    arrays = {
        name: np.full(starts[-1], -1, dtype)
        for name, dtype in (
            ("role", np.int8),
            ("index", np.int32),
            ("spatial", np.int32),
            ("activation", np.int32),
        )
    }
    groups: list[Group] = []
    for group, column, start in zip(nodes, columns, starts[:-1].tolist(), strict=True):
        copies = group.positions or 1
        part = slice(start, start + group.size)
        source[part, : column.shape[1]] = np.tile(column, (copies, 1))
        hidden = group.role == "hidden"
        level = sum(g.role == "hidden" for g in groups) if hidden else 0
        arrays["role"][part] = ROLES.index(group.role)
        arrays["index"][part] = level if hidden else np.arange(group.size)
        arrays["activation"][part] = group.activation
        if group.positions is not None:
            arrays["spatial"][part] = np.repeat(np.arange(copies), group.units)
        groups.append(Group(group.name, start, group.size, group.role, level, copies, group.blocks))
    return arrays | {"node_source": source, "groups": tuple(groups)}


def _column(feature: np.ndarray | None, units: int) -> np.ndarray:
    if feature is None:
        return np.zeros((units, 1), np.int32)
    return feature.reshape(units, -1)


def _components(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Groups that are linked, directly or over others."""
    found: list[set[int]] = []
    for pair in pairs:
        joined = set(pair).union(*(c for c in found if not c.isdisjoint(pair)))
        found = [c for c in found if c.isdisjoint(pair)] + [joined]
    return tuple(sorted(tuple(sorted(c)) for c in found))


def _first(size: int, *sources: np.ndarray) -> np.ndarray:
    """Where each weight lies first in the sources, one behind the other; -1 for nowhere."""
    found = np.full(size + _OFFSET, -1, np.int64)
    ends = np.cumsum([source.size for source in sources]).tolist()
    for source, end in reversed(list(zip(sources, ends, strict=True))):
        # Of equal indices the last assignment stays.
        found[source.reshape(-1)[::-1]] = np.arange(end - 1, end - 1 - source.size, -1)
    return found[_OFFSET:]
