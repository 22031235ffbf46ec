"""Principal neighbourhood aggregation on neural graphs, along the edges of the network.

Each node gathers its incoming edges' messages by mean, minimum, maximum and standard deviation, as
they are and scaled by the node's degree.
Sources: Corso et al., Principal Neighbourhood Aggregation for Graph Nets, 2020, in the form of
Kofinas et al., Graph Neural Networks for Learning Equivariant Representations of Neural Networks,
2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flown_jax.layers.dense import Dense

_FLOOR = 1e-5  # of a variance, and beside a standard deviation
_NORM_EPS = 1e-5


class PNA(nn.Module):
    """Nodes (N, hidden) and edges (E, d_e) of any number of graphs to nodes (N, hidden).

    Attributes:
      hidden: width of the nodes. num_layers: layers.
      delta: mean of log(degree + 1) over training nodes, see `log_degree`.
      batch_norm: the normalisation's mean and deviation are over all graphs' nodes, as published,
        so that a graph's output depends on others in its batch; else of each graph.
      modulate: messages are multiplied and shifted by the edge; else the edge is one of three
        inputs of them.
      dtype: of the computation; parameters are float32.
    """

    hidden: int
    num_layers: int
    delta: float
    batch_norm: bool = False
    modulate: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, e: Array, senders: Any, receivers: Any, graph: Any, graphs: int
    ) -> Array:
        """New nodes.

        Args:
          senders, receivers: (E,), nodes of each edge.
          graph: (N,), which graph a node belongs to. graphs: how many there are.
        """
        width = e.shape[-1]
        for layer in range(self.num_layers):
            x = self._gathered(x, e, senders, receivers, layer)
            self.sow("intermediates", f"conv_{layer}", x)
            if layer == self.num_layers - 1:
                break
            one = jnp.zeros_like(graph) if self.batch_norm else graph
            x = _GraphNorm(name=f"norm_{layer}")(x, one, 1 if self.batch_norm else graphs)
            self.sow("intermediates", f"normed_{layer}", x)
            x = jax.nn.silu(x)
            u = self._dense(self.hidden, f"edge_linear_{layer}")(e)
            u = u + self._dense(self.hidden, f"source_linear_{layer}")(x)[senders]
            u = u + self._dense(self.hidden, f"target_linear_{layer}")(x)[receivers]
            e = self._dense(width, f"edge_out_{layer}")(jax.nn.silu(u))
            self.sow("intermediates", f"edge_{layer}", e)
        return x

    def _gathered(self, x: Array, e: Array, senders: Any, receivers: Any, layer: int) -> Array:
        count = x.shape[0]
        ends = [x[receivers], x[senders]]
        if self.modulate:
            scale, shift = jnp.split(
                self._dense(2 * self.hidden, f"edge_encoder_{layer}")(e), 2, -1
            )
            m = self._dense(self.hidden, f"pre_{layer}")(jnp.concatenate(ends, -1))
            m = scale * m + shift
        else:
            coded = self._dense(self.hidden, f"edge_encoder_{layer}")(e)
            m = self._dense(self.hidden, f"pre_{layer}")(jnp.concatenate([*ends, coded], -1))
        degree = jax.ops.segment_sum(jnp.ones(len(m)), receivers, count)[:, None]
        some, divisor = degree > 0, jnp.maximum(degree, 1.0)
        mean = jax.ops.segment_sum(m, receivers, count) / divisor
        square = jax.ops.segment_sum(m**2, receivers, count) / divisor
        # A node without edges has infinities here.
        low = jnp.where(some, jax.ops.segment_min(m, receivers, count), 0.0)
        high = jnp.where(some, jax.ops.segment_max(m, receivers, count), 0.0)
        std = jnp.sqrt(jnp.maximum(square - mean**2, _FLOOR))
        found = jnp.concatenate([mean, low, high, std], -1)
        scaled = jnp.concatenate([found, found * jnp.log(degree + 1) / self.delta], -1)
        y = self._dense(self.hidden, f"post_{layer}")(jnp.concatenate([x, scaled], -1))
        return self._dense(self.hidden, f"linear_{layer}")(y)

    def _dense(self, features: int, name: str) -> Dense:
        return Dense(features, dtype=self.dtype, name=name)


class _GraphNorm(nn.Module):
    """(x - mean) / (std + eps) over nodes and channels of each graph, then affine by channel."""

    @nn.compact
    def __call__(self, x: Array, graph: Any, graphs: int) -> Array:
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        nodes = jax.ops.segment_sum(jnp.ones(len(x)), graph, graphs)
        size = jnp.maximum(nodes * width, 1.0)
        mean = jax.ops.segment_sum(x.sum(-1), graph, graphs) / size
        x = x - mean[graph][:, None]
        variance = jax.ops.segment_sum((x**2).sum(-1), graph, graphs) / size
        # The root's gradient at a variance of zero would be infinite.
        positive = variance > 0
        std = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)
        return x / (std[graph][:, None] + _NORM_EPS) * scale + bias


def log_degree(degrees: Sequence[int] | np.ndarray) -> float:
    """Mean of log(degree + 1) over nodes of these degrees, 1 where it would be 0."""
    return float(np.mean(np.log(np.asarray(degrees, np.float64) + 1))) or 1.0


def log_degree_of(histogram: Sequence[int]) -> float:
    """`log_degree` of a histogram: how many nodes have degree 0, 1, ..."""
    return log_degree(np.repeat(np.arange(len(histogram)), histogram))
