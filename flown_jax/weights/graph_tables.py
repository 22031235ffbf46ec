"""The index arrays of a graph, from groups of nodes and of edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.weights.wiring import OFFSET, ZERO, Edges, Nodes, Wiring

ROLES = ("input", "hidden", "output")
_MOST = 2**30  # features of all edges, 4 GiB


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


def tables(wiring: Wiring, size: int, kernel: int | None, linear_as_conv: bool) -> dict[str, Any]:
    """The fields of a `graphs.Topology`.

    Groups that no tensor touches are left out, and edges of value 1 to and from them.

    Args:
      wiring: of the whole network.
      size: D, length of a weight vector.
      kernel: K; None for the largest side.
      linear_as_conv: put single weights in the middle; otherwise in feature 0, flagged.
    Raises:
      UserError: a kernel larger than K, a graph too large, two edges between two nodes.
    """
    used = {i for i, g in enumerate(wiring.groups) if any(f is not None for f in g.features)}
    used |= {end for e in wiring.edges if e.parameters for end in (e.source, e.target)}
    edges = [e for e in wiring.edges if {e.source, e.target} <= used]
    numbers = {group: number for number, group in enumerate(sorted(used))}
    nodes = [wiring.groups[group] for group in numbers]
    side = _side(edges, kernel)
    starts = np.cumsum([0, *(group.size for group in nodes)])
    count = sum(len(e.senders) for e in edges)
    if count * side**2 > _MOST:
        raise UserError(
            f"the graph of this network would have {count:,} edges of {side**2} features, more "
            f"than {_MOST:,} in all: take a part of it."
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
    keys = senders.astype(np.int64) * starts[-1] + receivers
    order = np.argsort(keys)
    if len(twice := order[:-1][np.diff(keys[order]) == 0]):
        layers = np.repeat([e.name for e in edges], [len(e.senders) for e in edges])
        raise UserError(
            f"layer {layers[twice[0]]} has two edges between the same two units, which a graph "
            "cannot tell apart: a residual connection must pass over a layer at least."
        )
    features = np.empty((count, side**2), np.int32)
    linear, rank, at = np.empty(count, bool), np.empty(count, np.int64), 0
    rank[order] = np.arange(count)
    for e in edges:
        part = rank[at : (at := at + len(e.senders))]
        linear[part] = e.features.ndim == 1 and not linear_as_conv
        features[part] = _flat(e.features, side, linear_as_conv)
    found |= {
        "size": size,
        "senders": senders[order].astype(np.int32),
        "receivers": receivers[order].astype(np.int32),
        "edge_source": features,
        "linear": linear,
        "tied": _components([(numbers[e.source], numbers[e.target]) for e in edges if e.ties]),
    }
    found["places"] = _first(size, found["node_source"], found["edge_source"])
    return found


def _side(edges: Sequence[Edges], kernel: int | None) -> int:
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
            f"layer {edges[needed.index(largest)].name} needs {largest}x{largest} features, more "
            f"than the kernel of {kernel}x{kernel} has."
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


def _node_tables(nodes: Sequence[Nodes], starts: np.ndarray) -> dict[str, Any]:
    columns = [_columns(group) for group in nodes]
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


def _columns(group: Nodes) -> np.ndarray:
    """Features of a group's units, (units, m), up to the last that the network has."""
    last = max((i for i, f in enumerate(group.features) if f is not None), default=-1)
    absent = np.full((group.units, 1), ZERO, np.int32)
    found = [absent if f is None else f.reshape(group.units, -1) for f in group.features]
    return np.concatenate(found[: last + 1] or [absent], axis=1)


def _components(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Groups that are linked, directly or over others."""
    found: list[set[int]] = []
    for pair in pairs:
        joined = set(pair).union(*(c for c in found if not c.isdisjoint(pair)))
        found = [c for c in found if c.isdisjoint(pair)] + [joined]
    return tuple(sorted(tuple(sorted(c)) for c in found))


def _first(size: int, *sources: np.ndarray) -> np.ndarray:
    """Where each weight lies first in the sources, one behind the other; -1 for nowhere."""
    found = np.full(size + OFFSET, -1, np.int64)
    ends = np.cumsum([source.size for source in sources]).tolist()
    for source, end in reversed(list(zip(sources, ends, strict=True))):
        # Of equal indices the last assignment stays.
        found[source.reshape(-1)[::-1]] = np.arange(end - 1, end - 1 - source.size, -1)
    return found[OFFSET:]
