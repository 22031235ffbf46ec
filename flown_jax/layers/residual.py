"""Residual blocks: the autoencoder's (no time) and the UNet's (modulated by an embedding)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.layers.conv import Conv
from flown_jax.layers.dense import Dense
from flown_jax.layers.normalization import GroupNorm
from flown_jax.layers.resampling import mean_pool, upsample_nearest

_RESAMPLE = {"none": lambda x: x, "up": upsample_nearest, "down": mean_pool}


class ResidualBlock(nn.Module):
    """shortcut(x) + conv2(swish(norm2(conv1(swish(norm1(x))))))  (latent diffusion's ResnetBlock).

    Attributes:
      features: output channels; the shortcut is a 1x1 convolution when they change.
      num_groups, epsilon: of both normalisations.
      form: of the convolutions, see `layers.conv`.
    """

    features: int
    num_groups: int
    epsilon: float
    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns (B, H, W, features) for x (B, H, W, C)."""
        h = x
        for i in (1, 2):
            h = GroupNorm(self.num_groups, self.epsilon, self.dtype, name=f"norm{i}")(h)
            h = Conv(self.features, form=self.form, dtype=self.dtype, name=f"conv{i}")(
                jax.nn.silu(h)
            )
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, form=self.form, dtype=self.dtype, name="nin_shortcut")(x)
        return x + h


class TimeResidualBlock(nn.Module):
    """Residual block with an embedding of time and condition (ADM's ResBlock).

    The embedding is added before the second normalisation, or scales (1 + s) and shifts after it.
    The last convolution starts at zero, so the block starts as its shortcut.

    Attributes:
      features: output channels; the shortcut is a 1x1 convolution when they change.
      num_groups, epsilon: of both normalisations.
      scale_shift: whether the embedding scales and shifts.
      resample: `none`, `up` (nearest, x2) or `down` (2x2 means), inside the block.
      form: of the convolutions, see `layers.conv`.
    """

    features: int
    num_groups: int
    epsilon: float
    scale_shift: bool = False
    resample: str = "none"
    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        """Returns (B, H', W', features) for x (B, H, W, C) and embedding (B, E)."""
        resample = _RESAMPLE[self.resample]
        zeros = nn.initializers.zeros
        norm = {"num_groups": self.num_groups, "epsilon": self.epsilon, "dtype": self.dtype}
        conv = {"form": self.form, "dtype": self.dtype}

        h = resample(jax.nn.silu(GroupNorm(**norm, name="in_norm")(x)))
        h = Conv(self.features, **conv, name="in_conv")(h)
        x = resample(x)

        width = 2 * self.features if self.scale_shift else self.features
        modulation = Dense(width, dtype=self.dtype, name="emb")(jax.nn.silu(embedding))
        modulation = modulation[:, None, None, :]
        out_norm = GroupNorm(**norm, name="out_norm")
        if self.scale_shift:
            scale, shift = jnp.split(modulation, 2, -1)
            h = out_norm(h) * (1 + scale) + shift
        else:
            h = out_norm(h + modulation)
        out_conv = Conv(self.features, **conv, kernel_init=zeros, bias_init=zeros, name="out_conv")
        h = out_conv(jax.nn.silu(h))

        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, **conv, name="skip")(x)
        return x + h
