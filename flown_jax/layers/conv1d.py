"""Convolutions on sequences (B, L, C), plain and transposed (p-diff's autoencoder)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from flown_jax.layers.initializers import torch_kernel, torch_uniform


class Conv1d(nn.Module):
    """Convolution on sequences, with PyTorch's default initialisation.

    out[b, l, o] = sum_ji x[b, stride * l + j - padding, i] kernel[j, i, o] + bias[o], as one matrix
    product over concatenated windows: XLA's CPU gradient of a convolution is slow in loops.

    Attributes:
      features: output channels.
      kernel_size, stride: of the window. padding: zeros at either end.
      dtype: of the computation; None keeps the input's. Parameters are float32.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns (B, (L + 2 padding - kernel_size) // stride + 1, features) for x (B, L, C)."""
        k, channels = self.kernel_size, x.shape[-1]
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        shape = (k, channels, self.features)
        kernel = self.param("kernel", torch_kernel, shape, jnp.float32).astype(dtype)
        bias = self.param("bias", torch_uniform(k * channels), (self.features,), jnp.float32)
        x = jnp.pad(x.astype(dtype), ((0, 0), (self.padding, self.padding), (0, 0)))
        last = x.shape[1] - k + 1
        windows = [x[:, j : j + last : self.stride] for j in range(k)]
        return jnp.concatenate(windows, -1) @ kernel.reshape(-1, self.features) + bias.astype(dtype)


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
