"""Linear layer with PyTorch's default initialisation (weight and bias)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import Initializer

from flown_jax.layers.initializers import torch_kernel, torch_uniform


class Dense(nn.Module):
    """x (..., C) to x @ kernel + bias (..., features).

    Attributes:
      features: outputs.
      use_bias: whether a bias is added.
      kernel_init, bias_init: None draws from U(+-1/sqrt(C)).
      dtype: of the computation; None keeps the input's. Parameters are float32.
    """

    features: int
    use_bias: bool = True
    kernel_init: Initializer = torch_kernel
    bias_init: Initializer | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the layer's output (..., features) for x (..., C)."""
        width = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (width, self.features), jnp.float32)
        bias_init = self.bias_init or torch_uniform(width)
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        y = jnp.dot(x.astype(dtype), kernel.astype(dtype))
        if self.use_bias:
            y = y + self.param("bias", bias_init, (self.features,), jnp.float32).astype(dtype)
        return y
