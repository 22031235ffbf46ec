"""What a graph's nodes and edges enter an encoder as (paper, A.2.2; Kofinas et al., 2024).

Random Fourier features of biases and kernels, and learned tables of where a node stands: a row for
every input and every output, one for each hidden layer, whose units are thereby alike.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.layers.dense import Dense

INPUT, HIDDEN, OUTPUT = 0, 1, 2  # roles of nodes, as in `weights.graphs`
ACTIVATIONS = 7
_TABLE = nn.initializers.normal(1.0)


class RandomFourier(nn.Module):
    """[cos(2 pi v b^T), sin(2 pi v b^T)] (..., 2 m) of v (..., d), b (m, d) from N(0, sigma^2).

    The frequencies are drawn once and never trained (collection `constants`). They are not zero
    where v is.

    Attributes:
      frequencies: m. sigma: their standard deviation.
    """

    frequencies: int
    sigma: float = 1.0

    @nn.compact
    def __call__(self, v: Array) -> Array:
        """The features."""

        def draw() -> Array:
            return self.sigma * jax.random.normal(
                self.make_rng("params"), (self.frequencies, v.shape[-1])
            )

        b = self.variable("constants", "frequencies", draw).value
        phases = 2 * math.pi * jnp.dot(v, jax.lax.stop_gradient(b).T)
        return jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], -1)


class GraphInputs(nn.Module):
    """Features of nodes and edges to their vectors.

    Attributes:
      node_dim, edge_dim: of the vectors.
      frequencies, sigma: of the random Fourier features.
      inputs, outputs: how many input and output nodes every graph has.
      levels: hidden layers of the deepest graph.
      positions: places of a map whose units are repeated; 0 without such.
      single: whether there are edges of linear layers whose value stands alone in feature 0.
      activations: whether nodes know their activation.
      edge_levels: add a learned vector of the layer that an edge leads to; not published.
      reverses: an edge's features are followed by those of its reverse and by their sum.
      dtype: of the computation; parameters are float32.
    """

    node_dim: int
    edge_dim: int
    frequencies: int
    sigma: float
    inputs: int
    outputs: int
    levels: int
    positions: int = 0
    single: bool = False
    activations: bool = False
    edge_levels: bool = False
    reverses: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        rows = self.inputs + self.levels + self.outputs
        self.position = self.param("position", _TABLE, (rows, self.node_dim))
        if self.positions:
            self.spatial = self.param("spatial", _TABLE, (self.positions, self.node_dim))
        if self.activations:
            self.activation = self.param("activation", _TABLE, (ACTIVATIONS, self.node_dim))
        if self.edge_levels:
            self.edge_level = self.param("edge_level", _TABLE, (self.levels + 1, self.edge_dim))
        self.node_fourier = RandomFourier(self.frequencies, self.sigma)
        self.edge_fourier = RandomFourier(self.frequencies, self.sigma)
        self.node_hidden = Dense(self.node_dim, dtype=self.dtype)
        self.node_in = Dense(self.node_dim, dtype=self.dtype)
        self.edge_hidden = Dense(self.edge_dim, dtype=self.dtype)
        self.edge_in = Dense(self.edge_dim, dtype=self.dtype)
        if self.single:
            self.single_fourier = RandomFourier(self.frequencies, self.sigma)
            self.single_hidden = Dense(self.edge_dim, dtype=self.dtype)

    def nodes(
        self,
        features: Array,
        role: Any,
        index: Any,
        spatial: Any,
        activation: Any,
        probed: Array | None = None,
    ) -> Array:
        """Vectors of nodes, (..., n, node_dim).

        Args:
          features: (..., n, F), the bias first.
          role: (n,), INPUT, HIDDEN or OUTPUT.
          index: (n,), which of the inputs, hidden layers or outputs.
          spatial: (n,), place of a repeated unit in its map; -1 elsewhere.
          activation: (n,), number of the activation; -1 where none is known.
          probed: (..., n, node_dim), what is added to the biases' features.
        """
        h = self.node_hidden(self.node_fourier(features))
        x = self.node_in(h if probed is None else h + probed)
        x = x + self.position[self.place(role, index)]
        if self.positions:
            x = x + jnp.where(spatial[:, None] < 0, 0.0, self.spatial[jnp.maximum(spatial, 0)])
        if self.activations:
            own = self.activation[jnp.maximum(activation, 0)]
            x = x + jnp.where(activation[:, None] < 0, 0.0, own)
        return x

    def place(self, role: Any, index: Any) -> Array:
        """Rows of the table of positions, (n,)."""
        last = self.inputs + self.levels
        starts = jnp.asarray([0, self.inputs, last])
        return starts[role] + index

    def edges(self, features: Array, single: Any, role: Any, index: Any) -> Array:
        """Vectors of edges, (..., E, edge_dim).

        Args:
          features: (..., E, K). single: (E,), see `single`; ignored without it.
          role, index: (E,), of the node that an edge leads to.
        """
        h = self.edge_hidden(self.edge_fourier(features))
        if self.single:
            alone = self.single_hidden(self.single_fourier(self._alone(features)))
            h = jnp.where(jnp.asarray(single)[:, None], alone, h)
        e = self.edge_in(h)
        if self.edge_levels:
            level = jnp.where(role == OUTPUT, self.levels, index)
            e = e + self.edge_level[level]
        return e

    def absent(self, width: int) -> Array:
        """The vector (edge_dim,) of a pair without an edge: that of zeros.

        Args:
          width: K.
        """
        return self.edge_in(self.edge_hidden(self.edge_fourier(jnp.zeros((width,)))))

    def _alone(self, features: Array) -> Array:
        """Feature 0, (..., 1); with `reverses` the first of each part, (..., 3)."""
        step = features.shape[-1] // 3 if self.reverses else features.shape[-1]
        return features[..., ::step]
