"""Pairs of a graph's nodes in three forms, which a relational layer reads in the same way.

A pair has a row i, whose node looks, and a column j, whose node is looked at. `DensePairs` are all
n^2 pairs of graphs of one topology. `SparsePairs` are those that an edge joins, in both directions,
and each node with itself: on them a layer computes what the dense one computes where attention is
masked to them, since these pairs contain their own reverses. `SegmentPairs` are the same pairs of
graphs of any sizes behind one another, as jraph has them.

x is (..., n, d), an array of pairs (..., P, d): P is (n, n) for dense pairs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.errors import UserError

_MOST_DENSE = 4096  # nodes: n^2 arrays of floats beyond are refused


class DensePairs:
    """All pairs of n nodes; arrays of pairs are (..., n, n, d).

    Args:
      rows, columns: (E,), of the pairs that have an edge.
      count: n.
      mask: (..., n, n), pairs that attention reads; None for all, as published.
    Raises:
      UserError: so many nodes that n^2 pairs are out of reach.
    """

    def __init__(
        self, rows: Any, columns: Any, count: int, mask: Array | np.ndarray | None = None
    ) -> None:
        if count > _MOST_DENSE:
            raise UserError(
                f"the graph has {count} nodes, and its dense form {count * count} pairs: take the "
                "form 'sparse'."
            )
        self._edges = rows, columns
        self._count = count
        self._mask = mask

    def spread(self, edges: Array, absent: Array, backward: Array | None = None) -> Array:
        """Values of edges (..., E, d) at their pairs, `absent` (d,) at all others.

        Args:
          backward: values (..., E, d) at the edges' reverses; None for `absent`.
        """
        rows, columns = self._edges
        shape = (*edges.shape[:-2], self._count, self._count, edges.shape[-1])
        pairs = jnp.broadcast_to(absent, shape).at[..., rows, columns, :].set(edges)
        return pairs if backward is None else pairs.at[..., columns, rows, :].set(backward)

    def edges(self, pairs: Array) -> Array:
        """Values (..., E, d) at the edges' pairs."""
        return pairs[..., self._edges[0], self._edges[1], :]

    def rows(self, x: Array) -> Array:
        """Of each pair the row's node."""
        return x[..., :, None, :]

    def columns(self, x: Array) -> Array:
        """Of each pair the column's node."""
        return x[..., None, :, :]

    def reverse(self, pairs: Array) -> Array:
        """At (i, j) what stood at (j, i)."""
        return jnp.swapaxes(pairs, -3, -2)

    def softmax(self, logits: Array) -> Array:
        """Of each row over its columns."""
        if self._mask is not None:
            logits = jnp.where(jnp.asarray(self._mask)[..., None], logits, -jnp.inf)
        return jax.nn.softmax(logits, axis=-2)

    def total(self, pairs: Array) -> Array:
        """Of each row over its columns, (..., n, d)."""
        return pairs.sum(-2)


class SparsePairs:
    """Both directions of every edge, and each node with itself, of graphs of one topology.

    Pairs are sorted by row. Nodes of a layer have equally many neighbours, so that their rows are
    rectangles: no index is needed to read a row's node, and none to sum over a row.

    Args:
      rows, columns: (E,) of the edges, NumPy arrays.
      count: n.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, count: int) -> None:
        edges, self_ = len(rows), np.arange(count)
        row = np.concatenate([rows, columns, self_])
        column = np.concatenate([columns, rows, self_])
        order = np.lexsort((np.arange(len(row)), column, row))
        place = np.argsort(order)
        self._order = order.astype(np.int32)
        self._place = place.astype(np.int32)
        # The reverse of edge e is pair E + e, a node's own pair is its own.
        partner = np.concatenate(
            [np.arange(edges, 2 * edges), np.arange(edges), np.arange(2 * edges, len(row))]
        )
        self._reverse = place[partner[order]].astype(np.int32)
        self._runs = _runs(np.bincount(row, minlength=count))
        self.count, self._edge_count = len(row), edges

    def spread(self, edges: Array, absent: Array, backward: Array | None = None) -> Array:
        """As in `DensePairs`."""
        count = self.count - edges.shape[-2]
        shape = (*edges.shape[:-2], count, edges.shape[-1])
        others = jnp.broadcast_to(absent, shape)
        if backward is not None:
            others = jnp.concatenate([backward, others[..., backward.shape[-2] :, :]], -2)
        return _permute(jnp.concatenate([edges, others], -2), self._order, self._place)

    def edges(self, pairs: Array) -> Array:
        """As in `DensePairs`."""
        return _permute(pairs, self._place, self._order)[..., : self._edge_count, :]

    def rows(self, x: Array) -> Array:
        """As in `DensePairs`."""
        return self._join(
            jnp.broadcast_to(
                x[..., start:end, None, :], (*x.shape[:-2], end - start, many, x.shape[-1])
            )
            for start, end, many in self._runs
        )

    def columns(self, x: Array) -> Array:
        """As in `DensePairs`."""
        return self.reverse(self.rows(x))

    def reverse(self, pairs: Array) -> Array:
        """As in `DensePairs`."""
        return _permute(pairs, self._reverse, self._reverse)

    def softmax(self, logits: Array) -> Array:
        """As in `DensePairs`."""
        return self._join(jax.nn.softmax(part, axis=-2) for part in self._split(logits))

    def total(self, pairs: Array) -> Array:
        """As in `DensePairs`."""
        return jnp.concatenate([part.sum(-2) for part in self._split(pairs)], -2)

    def _split(self, pairs: Array) -> list[Array]:
        found, start = [], 0
        for first, end, many in self._runs:
            stop = start + (end - first) * many
            part = pairs[..., start:stop, :]
            found.append(part.reshape(*pairs.shape[:-2], end - first, many, pairs.shape[-1]))
            start = stop
        return found

    def _join(self, parts: Any) -> Array:
        flat = [part.reshape(*part.shape[:-3], -1, part.shape[-1]) for part in parts]
        return jnp.concatenate(flat, -2)


class SegmentPairs:
    """The pairs of `SparsePairs`, of graphs of any sizes one after another: x (N, d), pairs (P, d).

    Args:
      rows, columns: (E,) of all edges; arrays of a compiled function may be given.
      count: N, nodes of all graphs.
    """

    def __init__(self, rows: Array, columns: Array, count: int) -> None:
        itself = jnp.arange(count)
        self._rows = jnp.concatenate([rows, columns, itself])
        self._columns = jnp.concatenate([columns, rows, itself])
        self._edges, self._count = len(rows), count

    def spread(self, edges: Array, absent: Array, backward: Array | None = None) -> Array:
        """As in `DensePairs`."""
        others = jnp.broadcast_to(absent, (self._edges + self._count, edges.shape[-1]))
        if backward is not None:
            others = jnp.concatenate([backward, others[self._edges :]])
        return jnp.concatenate([edges, others])

    def edges(self, pairs: Array) -> Array:
        """As in `DensePairs`."""
        return pairs[: self._edges]

    def rows(self, x: Array) -> Array:
        """As in `DensePairs`."""
        return x[self._rows]

    def columns(self, x: Array) -> Array:
        """As in `DensePairs`."""
        return x[self._columns]

    def reverse(self, pairs: Array) -> Array:
        """As in `DensePairs`."""
        edges = self._edges
        return jnp.concatenate([pairs[edges : 2 * edges], pairs[:edges], pairs[2 * edges :]])

    def softmax(self, logits: Array) -> Array:
        """As in `DensePairs`; every row has a pair, the node with itself."""
        largest = jax.ops.segment_max(jax.lax.stop_gradient(logits), self._rows, self._count)
        powers = jnp.exp(logits - largest[self._rows])
        return powers / self.total(powers)[self._rows]

    def total(self, pairs: Array) -> Array:
        """As in `DensePairs`."""
        return jax.ops.segment_sum(pairs, self._rows, self._count)


def _runs(degrees: np.ndarray) -> list[tuple[int, int, int]]:
    """(first node, node behind the last, pairs a node) of nodes with equally many pairs."""
    ends = [*(np.flatnonzero(np.diff(degrees)) + 1), len(degrees)]
    starts = [0, *ends[:-1]]
    return [(int(a), int(b), int(degrees[a])) for a, b in zip(starts, ends, strict=True)]


@jax.custom_vjp
def _permute(x: Array, order: np.ndarray, place: np.ndarray) -> Array:
    """x (..., P, d) in another order; `place` is the inverse of `order`.

    The gradient of a gather is a scatter, unless the gather is known to be a permutation.
    """
    return jnp.take(x, order, axis=-2)


def _permute_forward(x: Array, order: np.ndarray, place: np.ndarray) -> tuple[Array, Any]:
    return jnp.take(x, order, axis=-2), (order, place)


def _permute_backward(saved: Any, gradient: Array) -> tuple[Array, None, None]:
    order, place = saved
    # Differentiable again: the gradient is a permutation, too.
    return _permute(gradient, place, order), None, None


_permute.defvjp(_permute_forward, _permute_backward)


def neighbours(senders: np.ndarray, receivers: np.ndarray, count: int) -> np.ndarray:
    """(n, n), whether two nodes are joined by an edge in either direction, or are one."""
    mask = np.eye(count, dtype=bool)
    mask[senders, receivers] = mask[receivers, senders] = True
    return mask
