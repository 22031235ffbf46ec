"""Networks to networks of the same form, whatever the order of their units.

The equivariant model of Kofinas et al., Graph Neural Networks for Learning Equivariant
Representations of Neural Networks, 2024: a relational transformer, and from its last edges and
nodes a weight and a bias each. Units that are exchanged in what goes in are exchanged in what comes
out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.encoders.graph_encoder import GraphEncoder
from flown_jax.encoders.graph_inputs import OUTPUT
from flown_jax.layers.dense import Dense

_START = 0.01  # of the learned scales


class WeightTransformer(nn.Module):
    """Vectors (B, D) to vectors (B, D).

    Attributes:
      encoder: its graph encoder; d_out None, backbone `transformer`, with `last_edge_update`.
      dtype: of the computation; parameters are float32.
    """

    encoder: GraphEncoder
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, w: Array, mean: Array | float = 0.0, std: Array | float = 1.0) -> Array:
        """The new vectors, s (std x + mean) with a learned s of each layer's weights and biases.

        Args:
          w: (B, D). mean, std: of the weights that come out, before the scale; (D,) or scalars.
        """
        top, depth = self.encoder.topology, self.encoder.depth
        x, e = self.encoder.states(w)
        nodes = self._head(x, top.node_source.shape[1], "node")
        edges = self._head(e, top.edge_source.shape[1], "edge")
        level = jnp.where(top.role == OUTPUT, depth, top.index)
        scales = [
            self.param(f"{kind}_scale", nn.initializers.constant(_START), (depth + 1,))
            for kind in ("node", "edge")
        ]
        of_nodes = jnp.broadcast_to(scales[0][level][:, None], nodes.shape[1:])
        of_edges = jnp.broadcast_to(scales[1][level[top.receivers]][:, None], edges.shape[1:])
        return top.weights(of_nodes, of_edges) * (std * top.weights(nodes, edges) + mean)

    def _head(self, x: Array, features: int, kind: str) -> Array:
        h = jax.nn.relu(Dense(x.shape[-1], dtype=self.dtype, name=f"{kind}_head_0")(x))
        return Dense(features, dtype=self.dtype, name=f"{kind}_head_1")(h)
