"""Nodes of a graph to one vector that the order of hidden units does not change."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.encoders.graph_inputs import HIDDEN, OUTPUT

POOLINGS = ("layers", "outputs", "mean_outputs", "mean", "class_token")
_FLOOR = 1e-6  # of a variance: the root's gradient at zero would be infinite


def pooled_width(pooling: str, outputs: int, depth: int, node_dim: int) -> int:
    """Length of the vector."""
    return node_dim * {"outputs": outputs, "layers": outputs + 2 * depth}.get(pooling, 1)


def pool(x: Array, topology: Any, pooling: str, depth: int) -> Array:
    """(B, width) of nodes (B, n, d) of graphs of one topology.

    Args:
      pooling: `outputs`, the output nodes one after another; `layers`, these and of each hidden
        layer mean and standard deviation over its units; `mean_outputs`, `mean` of all nodes;
        `class_token`, the first node.
      depth: hidden layers that there may be.
    """
    if pooling == "class_token":
        return x[..., 0, :]
    if pooling == "mean":
        return x.mean(-2)
    outputs = x[..., np.flatnonzero(topology.role == OUTPUT), :]
    if pooling == "mean_outputs":
        return outputs.mean(-2)
    parts = [outputs]
    for level in range(depth if pooling == "layers" else 0):
        units = np.flatnonzero((topology.role == HIDDEN) & (topology.index == level))
        own, count = x[..., units, :], max(len(units), 1)
        mean = own.sum(-2, keepdims=True) / count
        variance = ((own - mean) ** 2).sum(-2, keepdims=True) / count
        parts += [mean, jnp.sqrt(variance + _FLOOR)]
    found = jnp.concatenate(parts, -2)
    return found.reshape(*found.shape[:-2], -1)


def pool_graphs(
    x: Array, of: Array, many: int, at: Any, pooling: str, depth: int, outputs: int
) -> Array:
    """`pool` of nodes (N, d) of `many` graphs behind one another, (many, width).

    A graph of padding has finite values that nothing else depends on.

    Args:
      of: (N,), the graph of each node. at: `role` and `index` of each node.
      outputs: output nodes of a graph.
    """
    output = at.role == OUTPUT
    if pooling in ("mean", "mean_outputs"):
        counted = (jnp.ones_like(output) if pooling == "mean" else output)[:, None]
        return _mean(jnp.where(counted, x, 0.0), counted, of, many)
    # Nodes that are no outputs go nowhere.
    place = jnp.where(output, at.index, outputs)
    found = jnp.zeros((many, outputs, x.shape[-1]), x.dtype).at[of, place].set(x, mode="drop")
    if pooling == "outputs":
        return found.reshape(many, -1)
    # The last part of each graph takes what is no hidden unit.
    hidden = at.role == HIDDEN
    part = of * (depth + 1) + jnp.where(hidden, at.index, depth)
    count, ones = many * (depth + 1), jnp.ones((len(x), 1), x.dtype)
    mean = _mean(x, ones, part, count)
    variance = _mean((x - mean[part]) ** 2, ones, part, count)
    both = jnp.stack([mean, jnp.sqrt(variance + _FLOOR)], 1)
    both = both.reshape(many, depth + 1, 2, -1)[:, :depth]
    return jnp.concatenate([found.reshape(many, -1), both.reshape(many, -1)], -1)


def _mean(x: Array, weight: Array, of: Array, count: int) -> Array:
    total = jax.ops.segment_sum(x, of, count)
    size = jax.ops.segment_sum(weight.astype(x.dtype), of, count)
    return total / jnp.maximum(size, 1.0)
