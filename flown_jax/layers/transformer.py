"""The pre-norm transformer block without positions: a function of a set of tokens."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array


class TransformerBlock(nn.Module):
    """Tokens after self-attention and an MLP, each behind a LayerNorm and a residual sum.

    Permuting the tokens permutes the result.

    Attributes:
      num_heads: of the attention; must divide the width of the tokens.
      mlp_dim: hidden width of the MLP (GELU).
      dtype: of the computation; parameters are float32.
    """

    num_heads: int
    mlp_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Args: tokens (..., n, E). Returns: the same shape. Raises: ValueError on a width."""
        width = tokens.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"token width {width} is not divisible by {self.num_heads} heads.")
        size = width // self.num_heads
        # One matmul for q, k and v: with few tokens the call costs more than the arithmetic.
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(self._norm("norm_1")(tokens))
        query, key, value = jnp.moveaxis(
            qkv.reshape(*tokens.shape[:-1], 3, self.num_heads, size), -3, 0
        )
        scores = jnp.einsum("...ihd,...jhd->...hij", query, key) / jnp.sqrt(size)
        attended = jnp.einsum("...hij,...jhd->...ihd", jax.nn.softmax(scores), value)
        attended = attended.reshape(tokens.shape)
        tokens = tokens + nn.Dense(width, dtype=self.dtype, name="out")(attended)
        hidden = nn.Dense(self.mlp_dim, dtype=self.dtype, name="mlp_in")(
            self._norm("norm_2")(tokens)
        )
        return tokens + nn.Dense(width, dtype=self.dtype, name="mlp_out")(nn.gelu(hidden))

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(dtype=self.dtype, name=name)
