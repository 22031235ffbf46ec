"""Transposed convolution on sequences, stride equal to the kernel (p-diff's decoder)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from flown_jax.layers.initializers import torch_uniform


class ConvTranspose1d(nn.Module):
    """Every position of the sequence becomes a block of `kernel_size` positions.

    out[b, s*l + j, o] = sum_i x[b, l, i] kernel[j, i, o] + bias[o], with s = kernel_size: blocks do
    not overlap, so the layer is one matrix product. PyTorch's weight (in, out, k) is kernel
    transposed; its default bound counts out * k as the fan-in.

    Attributes:
      features: output channels.
      kernel_size: length of a block, and the stride.
      dtype: of the computation; None keeps the input's. Parameters are float32.
    """

    features: int
    kernel_size: int
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns (B, L * kernel_size, features) for x (B, L, C)."""
        batch, length, channels = x.shape
        uniform = torch_uniform(self.features * self.kernel_size)
        shape = (self.kernel_size, channels, self.features)
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        kernel = self.param("kernel", uniform, shape, jnp.float32).astype(dtype)
        y = jnp.einsum("blc,jco->bljo", x.astype(dtype), kernel)
        y = y.reshape(batch, length * self.kernel_size, self.features)
        if self.use_bias:
            y = y + self.param("bias", uniform, (self.features,), jnp.float32).astype(dtype)
        return y
