"""Weight autoencoders of chunks: layer-wise vectorisation (paper, A.2.1).

A vector is padded with zeros at its end to k chunks of one length. Every chunk is a sample of one
autoencoder; the k latents, channel behind channel, are the network's. That a flow models the k
latents of a network together, and not each by itself, is our reading: the paper does not say.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.encoders.posterior import Posterior
from flown_jax.errors import UserError

_WEIGHTS, _LEAST = 2**18, 8  # of the chunks that are computed at once


class ChunkedAutoencoder(nn.Module):
    """`encode(w) -> Posterior` and `decode(z) -> w`; w (B, D), z (B, ..., k * e).

    Chunks are computed some at a time, and once more for gradients, so that memory hardly grows
    with D. The parameters are those of one chunk's autoencoder.

    Attributes:
      autoencoder: of vectors (B, chunk), with latents (B, ..., e).
      in_dim: D, length of the whole vector.
      chunk: l, length of a chunk; k = ceil(D / l).
      at_once: chunks at a time, of all B vectors; None takes about 260,000 weights.
    """

    autoencoder: nn.Module
    in_dim: int
    chunk: int
    at_once: int | None = None

    def encode(self, w: Array) -> Posterior:
        """Posterior over latents (B, ..., k * e).

        Raises:
          UserError: vectors of another length.
        """
        if w.ndim != 2 or w.shape[1] != self.in_dim:
            raise UserError(
                f"This autoencoder takes weight vectors (B, {self.in_dim}), got {w.shape}."
            )
        padded = jnp.pad(w, ((0, 0), (0, self.count * self.chunk - self.in_dim)))
        posterior = self._some_at_a_time("encode", padded.reshape(-1, self.chunk))
        return jax.tree.map(self._joined, posterior)

    def decode(self, z: Array) -> Array:
        """The vectors (B, D) of latents z (B, ..., k * e).

        Raises:
          UserError: latents that are not those of k chunks.
        """
        if z.ndim < 2 or z.shape[-1] % self.count:
            raise UserError(
                f"This autoencoder decodes latents of {self.count} chunks along their last axis, "
                f"got {z.shape}."
            )
        parts = jnp.moveaxis(z.reshape(*z.shape[:-1], self.count, -1), -2, 1)
        w = self._some_at_a_time("decode", parts.reshape(-1, *parts.shape[2:]))
        return w.reshape(len(z), -1)[:, : self.in_dim]

    def __call__(self, w: Array) -> Array:
        """Vectors decoded from the posterior's mean; touches every parameter."""
        return self.decode(self.encode(w).mode())

    @property
    def count(self) -> int:
        """k."""
        return -(-self.in_dim // self.chunk)

    def _joined(self, latents: Array) -> Array:
        parts = latents.reshape(-1, self.count, *latents.shape[1:])
        parts = jnp.moveaxis(parts, 1, -2)
        return parts.reshape(*parts.shape[:-2], -1)

    def _some_at_a_time(self, method: str, x: Array) -> Any:
        """What a method of the autoencoder makes of rows x (N, ...)."""
        if self.is_initializing():  # parameters cannot be made inside of a loop
            getattr(self.autoencoder, method)(x[:1])
        most = self.at_once or max(_LEAST, _WEIGHTS // self.chunk)
        groups = -(-len(x) // most)
        if groups <= 1:
            return getattr(self.autoencoder, method)(x)
        size = -(-len(x) // groups)
        padded = jnp.pad(x, ((0, groups * size - len(x)), *(((0, 0),) * (x.ndim - 1))))
        module, variables = self.autoencoder.unbind()
        found = jax.lax.map(
            jax.checkpoint(
                lambda part: module.apply(variables, part, method=method),
                prevent_cse=False,  # a loop needs no barriers
            ),
            padded.reshape(groups, size, *x.shape[1:]),
        )
        return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[: len(x)], found)
