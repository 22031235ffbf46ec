"""Group and instance normalisation with PyTorch's conventions (biased variance, epsilon given)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from flown_jax.errors import UserError


class GroupNorm(nn.Module):
    """Normalises each group of channels over the group and all places, then scales and shifts.

    Statistics are float32 whatever `dtype` is, in two passes: the difference of moments would lose
    the digits that tiny weights live in.

    Attributes:
      num_groups: must divide the channels.
      epsilon: added to the variance (1e-6 in the autoencoder, 1e-5 in the UNet).
      dtype: of the output; None keeps the input's.
    """

    num_groups: int
    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the normalised x (B, ..., C).

        Raises:
          UserError: the groups do not divide the channels.
        """
        channels = x.shape[-1]
        if channels % self.num_groups:
            raise UserError(
                f"GroupNorm with num_groups {self.num_groups} cannot divide {channels} channels."
            )
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        return group_normalise(x, scale, bias, self.num_groups, self.epsilon).astype(dtype)


class InstanceNorm1d(nn.Module):
    """Normalises each channel of each sequence over its length; no parameters (PyTorch's default).

    Attributes:
      epsilon: added to the biased variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the normalised x (B, L, C)."""
        centred = x - x.mean(1, keepdims=True)
        variance = jnp.square(centred).mean(1, keepdims=True)
        return centred * lax.rsqrt(variance + self.epsilon)


def group_normalise(x: Array, scale: Array, bias: Array, num_groups: int, epsilon: float) -> Array:
    """x (B, ..., C) normalised within groups, times scale (C,), plus bias (C,), in float32."""
    places = tuple(range(1, x.ndim - 1))
    x = x.astype(jnp.float32)
    # Sums over places first keep the channels innermost, which vectorises; groups are tiny then.
    mean = _group_mean(x.mean(places) if places else x, num_groups)
    centred = x - _spread(mean, x.ndim)
    squares = jnp.square(centred)
    variance = _group_mean(squares.mean(places) if places else squares, num_groups)
    factor = lax.rsqrt(variance + epsilon) * scale
    return centred * _spread(factor, x.ndim) + bias


def _group_mean(x: Array, num_groups: int) -> Array:
    batch, channels = x.shape
    means = x.reshape(batch, num_groups, -1).mean(-1, keepdims=True)
    grouped = jnp.broadcast_to(means, (batch, num_groups, channels // num_groups))
    return grouped.reshape(batch, channels)


def _spread(x: Array, ndim: int) -> Array:
    return x.reshape(x.shape[0], *(1,) * (ndim - 2), x.shape[-1])
