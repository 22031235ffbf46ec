"""What the units of a perceptron do on a few learned inputs, as features of its graph's nodes.

Source: Kofinas et al., Graph Neural Networks for Learning Equivariant Representations of Neural
Networks, 2024, for networks that represent images (SIRENs: sin(w0 z), the last layer linear + 0.5).
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.dense import Dense


class ProbeFeatures(nn.Module):
    """Features (B, n, width) of the n nodes of B perceptrons.

    Attributes:
      count: probes, learned inputs that start in U(-1, 1).
      width: of the features.
      frequency: w0 of the hidden layers' sines.
      shift: of the last layer.
    """

    count: int
    width: int
    frequency: float = 30.0
    shift: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, topology: Any, nodes: Array, edges: Array) -> Array:
        """The features.

        Args:
          topology: of the networks, see `weights.graphs`.
          nodes, edges: features (B, n, F) and (B, E, K) of their graphs.
        Raises:
          UserError: a network that is no chain of linear layers.
        """
        groups, centre = topology.groups, edges.shape[-1] // 2
        sizes = [group.size for group in groups]
        blocks = [a * b for a, b in itertools.pairwise(sizes)]
        if sum(blocks) != edges.shape[-2] or not _is_chain(topology, sizes):
            raise UserError("probe features are for chains of linear layers; set probes to 0.")
        first = self.param("inputs", _uniform, (self.count, sizes[0]))
        z = jnp.broadcast_to(first, (nodes.shape[0], *first.shape))
        found, start = [self._projected(z, 0)], 0
        for layer, block in enumerate(blocks, 1):
            # Edges are sorted by sender and receiver: a layer's are its matrix.
            weight = edges[:, start : start + block, centre].reshape(
                -1, *sizes[layer - 1 : layer + 1]
            )
            start += block
            place = slice(groups[layer].start, groups[layer].start + sizes[layer])
            z = z @ weight + nodes[:, None, place, 0]
            z = z + self.shift if layer == len(blocks) else jnp.sin(self.frequency * z)
            found.append(self._projected(z, layer))
        probed = jnp.concatenate(found, -2)
        self.sow("intermediates", "probe", probed)
        return probed

    def _projected(self, z: Array, layer: int) -> Array:
        h = Dense(self.width, dtype=self.dtype, name=f"linear_{layer}")(jnp.swapaxes(z, -1, -2))
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=f"norm_{layer}")(h)


def _uniform(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)


def _is_chain(topology: Any, sizes: list[int]) -> bool:
    layer = np.repeat(np.arange(len(sizes)), sizes)
    return bool(np.all(layer[topology.receivers] == layer[topology.senders] + 1))
