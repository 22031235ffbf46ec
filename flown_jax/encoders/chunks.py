"""Layer-wise vectorisation (paper A.2.1): pieces of a weight vector share one autoencoder.

A vector is filled with zeros to a multiple of the chunk's length; every chunk is encoded and
decoded by itself, and the decoded chunks are put together. What the autoencoder weighs then grows
with a chunk's length and not with the network's.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.encoders.posterior import Posterior
from flown_jax.errors import UserError

_AT_ONCE = 16  # chunks in memory


class ChunkedAutoencoder(nn.Module):
    """`encode(w) -> Posterior` and `decode(z) -> w` by chunks; w (B, D).

    The latents of the k chunks of a vector stand side by side along the last axis: maps (r, r, e)
    become (r, r, k e), sequences (L, C) become (L, k C).

    Attributes:
      autoencoder: of vectors of a chunk's length, with `encode`, `decode` and `latent_shape`.
      weight_dim: D.
      chunk: length of a chunk.
    """

    autoencoder: nn.Module
    weight_dim: int
    chunk: int

    @property
    def chunks(self) -> int:
        """k, of a vector."""
        return -(-self.weight_dim // self.chunk)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one vector's latent."""
        *places, width = self.autoencoder.latent_shape
        return *places, self.chunks * width

    def encode(self, w: Array) -> Posterior:
        """The posteriors of all chunks of vectors w (B, D), as one.

        Raises:
          UserError: vectors of another length.
        """
        if w.ndim != 2 or w.shape[1] != self.weight_dim:
            raise UserError(
                f"This autoencoder takes weight vectors (B, {self.weight_dim}), got {w.shape}."
            )
        rows = jnp.pad(w, ((0, 0), (0, self.chunks * self.chunk - self.weight_dim)))
        found = self._by_chunks(self.autoencoder.encode, rows.reshape(-1, self.chunk))
        return jax.tree.map(self._together, found)

    def decode(self, z: Array) -> Array:
        """The vectors (B, D) of latents z (B, *latent_shape).

        Raises:
          UserError: latents of another shape.
        """
        if z.shape[1:] != self.latent_shape:
            raise UserError(
                f"This autoencoder decodes latents (B, {', '.join(map(str, self.latent_shape))}), "
                f"got {z.shape}."
            )
        *places, width = self.autoencoder.latent_shape
        apart = jnp.moveaxis(z.reshape(len(z), *places, self.chunks, width), -2, 1)
        rows = self._by_chunks(self.autoencoder.decode, apart.reshape(-1, *places, width))
        return rows.reshape(len(z), -1)[:, : self.weight_dim]

    def __call__(self, w: Array) -> Array:
        """Vectors decoded from the posteriors' means; touches every parameter."""
        return self.decode(self.encode(w).mode())

    def _by_chunks(self, function: Any, rows: Array) -> Any:
        """The function of some chunks (N, ...) at a time, nothing of others kept in memory."""
        count = len(rows)
        if self.is_initializing() or count <= _AT_ONCE:
            return function(rows)
        groups = -(-count // _AT_ONCE)
        filled = jnp.pad(rows, ((0, groups * _AT_ONCE - count), *((0, 0),) * (rows.ndim - 1)))

        def some(module: Any, carry: None, part: Array) -> tuple[None, Any]:
            return carry, function(part)

        scan = nn.scan(
            nn.remat(some, prevent_cse=False),
            variable_broadcast=True,
            split_rngs={"params": False},
        )
        _, found = scan(self, None, filled.reshape(groups, _AT_ONCE, *rows.shape[1:]))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)

    def _together(self, leaf: Array) -> Array:
        """(B k, *places, width) to (B, *places, k width)."""
        *places, width = leaf.shape[1:]
        apart = leaf.reshape(-1, self.chunks, *places, width)
        return jnp.moveaxis(apart, 1, -2).reshape(len(apart), *places, self.chunks * width)
