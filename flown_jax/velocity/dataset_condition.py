"""D2NWG's data set encoder and its UNet, which sees the data set as extra channels.

A data set is image features of a few samples of each class. Two linear layers, one across samples
and classes, one over everything, make of it a map that is appended to the input's channels.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.dense import Dense
from flown_jax.layers.initializers import torch_kernel, torch_uniform
from flown_jax.velocity.unet import UNet

_SLOPE = 0.01


class DatasetCondition(nn.Module):
    """Features (B, classes, samples, F) to a map (B, side, side, channels).

    Attributes:
      max_inputs: classes * samples of the largest data set. Smaller ones use the first rows of the
        first layer's kernel.
      out_dim: width behind the first layer.
      side, channels: of the map.
      dtype: of the computation; None keeps the input's.
    """

    max_inputs: int
    out_dim: int
    side: int
    channels: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Returns the map.

        Raises:
          UserError: features are not four-dimensional, or the data set is too large.
        """
        if features.ndim != 4 or features.shape[1] * features.shape[2] > self.max_inputs:
            raise UserError(
                f"DatasetCondition takes features (B, classes, samples, F) with classes * samples "
                f"<= {self.max_inputs}, got {features.shape}."
            )
        batch, classes, samples, width = features.shape
        dtype = self.dtype or jnp.result_type(features, jnp.float32)
        shape = (self.max_inputs, self.out_dim)
        kernel = self.param("across_kernel", torch_kernel, shape, jnp.float32)
        uniform = torch_uniform(self.max_inputs)
        bias = self.param("across_bias", uniform, (self.out_dim,), jnp.float32)
        # Samples outside, classes inside; then each feature is one row of inputs.
        inputs = features.astype(dtype).transpose(0, 3, 2, 1).reshape(batch, width, -1)
        h = jnp.dot(inputs, kernel[: classes * samples].astype(dtype)) + bias.astype(dtype)
        h = jax.nn.leaky_relu(h, _SLOPE).reshape(batch, -1)
        h = Dense(self.channels * self.side**2, dtype=self.dtype, name="to_map")(h)
        return h.reshape(batch, self.channels, self.side, self.side).transpose(0, 2, 3, 1)


class ConditionedUNet(nn.Module):
    """velocity(x, t, condition) with image features (B, classes, samples, F) as the condition.

    Attributes:
      unet: takes the channels of x and of the map.
      dataset_condition: makes the map, of x's side.
    """

    unet: UNet
    dataset_condition: DatasetCondition

    def __call__(self, x: Array, t: Array | float, condition: Array) -> Array:
        """Returns the velocity (B, H, W, out_channels) at x (B, H, W, C) and t, (B,) or scalar."""
        return self.unet(x, t, {"channels": self.dataset_condition(condition)})
