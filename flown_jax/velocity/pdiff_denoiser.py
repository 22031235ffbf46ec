"""p-diff's noise predictor: one-dimensional convolutions on the flat latent, no pooling.

Source: "Neural Network Diffusion" (Wang et al. 2024), the code of February 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.conv1d import Conv1d
from flown_jax.layers.normalization import InstanceNorm1d

_KERNEL = 3


class PDiffDenoiser(nn.Module):
    """eps(x, t, condition) of latents x of any shape (B, ...); there is no condition.

    x is flattened to one channel, its own channels one after the other. Every time has a learned
    row of x's length, which is added before all eight blocks.

    Attributes:
      channels: of the four blocks down; those up mirror them.
      timesteps: T, the number of rows. Whole t are their indices 0..T-1; others are shares of T and
        are rounded, so that `meta_model.sampling.as_noise_model`, which feeds t / T, meets every
        index of a schedule of T steps.
      first_time: every sample gets the row of the batch's first, as in the published code, where
        each of a training batch has a time of its own. False gives each its own.
    """

    channels: Sequence[int] = (64, 128, 256, 512)
    timesteps: int = 1000
    first_time: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array | float, condition: Any = None) -> Array:
        """Returns the predicted noise, of x's shape.

        Args:
          x: (B, ...), at least two entries a sample.
          t: times, scalar or (B,), whole or in [0, 1].
          condition: None.
        Raises:
          UserError: a condition, or times that do not fit.
        """
        if condition is not None:
            raise UserError("p-diff's denoiser takes no condition; choose another velocity.kind.")
        batch, t = x.shape[0], jnp.asarray(t)
        if t.shape not in ((), (batch,)):
            raise UserError(f"t must be a scalar or of shape ({batch},), got {t.shape}.")
        if not jnp.issubdtype(t.dtype, jnp.integer):
            t = jnp.round(t * self.timesteps).astype(jnp.int32)
        if self.first_time and t.ndim:
            t = t[0]
        t = jnp.broadcast_to(jnp.clip(t, 0, self.timesteps - 1), (batch,))
        size = math.prod(x.shape[1:])
        rows = nn.Embed(
            self.timesteps, size, embedding_init=nn.initializers.normal(1.0), name="time"
        )
        time = rows(t)[..., None].astype(x.dtype)

        channels_first = jnp.moveaxis(x, -1, 1)
        h = channels_first.reshape(batch, size, 1)
        kept: list[Array] = []
        for i, width in enumerate(self.channels):
            h = _Block(width, width, first=i == 0, name=f"enc_{i + 1}")(h + time)
            kept.append(h)
        kept.pop()
        for i, width in enumerate(reversed(self.channels[:-1])):
            h = _Block(width, width, name=f"dec_{i + 1}")(h + time) + kept.pop()
        h = _Block(self.channels[0], 1, name=f"dec_{len(self.channels)}")(h + time)
        return jnp.moveaxis(h.reshape(channels_first.shape), 1, -1)


class _Block(nn.Module):
    """Two convolutions, each behind a normalisation and, but at the input, a leaky ReLU."""

    inner: int
    features: int
    first: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        norm = InstanceNorm1d()
        x = norm(x if self.first else jax.nn.leaky_relu(x))
        x = Conv1d(self.inner, _KERNEL, padding=1, name="conv_1")(x)
        return Conv1d(self.features, _KERNEL, padding=1, name="conv_2")(norm(jax.nn.leaky_relu(x)))
