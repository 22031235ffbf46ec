"""Self-attention over the places of a map: the autoencoder's and the UNet's.

Both add what they attended to onto their input; places are taken row by row.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.dense import Dense
from flown_jax.layers.normalization import GroupNorm


class SingleHeadAttention(nn.Module):
    """One head over all channels with separate q, k, v (latent diffusion's AttnBlock).

    Attributes:
      num_groups, epsilon: of the normalisation in front.
    """

    num_groups: int
    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns x plus what its places attend to; x (B, H, W, C)."""
        channels = x.shape[-1]
        h = GroupNorm(self.num_groups, self.epsilon, self.dtype, name="norm")(x)
        h = h.reshape(x.shape[0], -1, channels)
        q, k, v = (Dense(channels, dtype=self.dtype, name=name)(h) for name in ("q", "k", "v"))
        weights = jax.nn.softmax(jnp.einsum("bic,bjc->bij", q, k) * channels**-0.5, -1)
        attended = jnp.einsum("bij,bjc->bic", weights, v)
        projected = Dense(channels, dtype=self.dtype, name="proj_out")(attended)
        return x + projected.reshape(x.shape)


class MultiHeadAttention(nn.Module):
    """Heads over the places of a map, output projection zero at the start (ADM's block).

    Attributes:
      num_heads: must divide the channels.
      num_groups, epsilon: of the normalisation in front.
      new_order: layout of the 3C outputs of `qkv`. False: head by head, each with its q, k and v
        (the published default); True: all q, all k, all v, each head by head.
    """

    num_heads: int
    num_groups: int
    epsilon: float
    new_order: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns x plus what its places attend to; x (B, H, W, C).

        Raises:
          UserError: the heads do not divide the channels.
        """
        batch, channels = x.shape[0], x.shape[-1]
        if channels % self.num_heads:
            raise UserError(
                f"Attention with {self.num_heads} heads cannot divide {channels} channels."
            )
        width = channels // self.num_heads
        h = GroupNorm(self.num_groups, self.epsilon, self.dtype, name="norm")(x)
        h = h.reshape(batch, -1, channels)
        qkv = Dense(3 * channels, dtype=self.dtype, name="qkv")(h)
        if self.new_order:
            q, k, v = jnp.moveaxis(qkv.reshape(batch, -1, 3, self.num_heads, width), 2, 0)
        else:
            q, k, v = jnp.moveaxis(qkv.reshape(batch, -1, self.num_heads, 3, width), 3, 0)
        scale = width**-0.25  # on q and k each: the product stays small in half precision
        scores = jnp.einsum("bihd,bjhd->bhij", q * scale, k * scale)
        attended = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores, -1), v)
        zeros = nn.initializers.zeros
        project = Dense(
            channels, kernel_init=zeros, bias_init=zeros, dtype=self.dtype, name="proj_out"
        )
        return x + project(attended.reshape(h.shape)).reshape(x.shape)
