"""Halving and doubling of maps: mean pooling, nearest neighbours, and their convolutions.

The weight autoencoder pads its stride-2 convolution at the bottom and right only, the UNet on all
sides; a network trained with one computes something else with the other.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.conv import Conv, Padding

BOTTOM_RIGHT: Padding = ((0, 1), (0, 1))
ALL_SIDES: Padding = ((1, 1), (1, 1))


def upsample_nearest(x: Array) -> Array:
    """x (B, H, W, C) with every place repeated in a 2x2 block: (B, 2H, 2W, C)."""
    batch, height, width, channels = x.shape
    blocks = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return blocks.reshape(batch, 2 * height, 2 * width, channels)


def mean_pool(x: Array) -> Array:
    """Means over 2x2 blocks of x (B, H, W, C): (B, H/2, W/2, C).

    Raises:
      UserError: H or W is odd.
    """
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise UserError(f"mean_pool needs a map with even sides, got {height}x{width}.")
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


class Downsample(nn.Module):
    """3x3 convolution of stride 2: (B, H, W, C) to (B, H/2, W/2, C).

    Attributes:
      padding: `BOTTOM_RIGHT` (autoencoder) or `ALL_SIDES` (UNet).
    """

    padding: Padding
    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the map of half the side."""
        # Strides have no canonical form; every form but `lax` takes patches here.
        form = self.form if self.form in ("auto", "lax") else "patches"
        return Conv(
            x.shape[-1], stride=2, padding=self.padding, form=form, dtype=self.dtype, name="conv"
        )(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution: (B, H, W, C) to (B, 2H, 2W, C)."""

    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the map of twice the side."""
        conv = Conv(x.shape[-1], form=self.form, dtype=self.dtype, name="conv")
        return conv(upsample_nearest(x))
