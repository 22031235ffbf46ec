"""A velocity over sets of class codes: one token a class, no positions.

Renaming the classes of a task permutes codes, conditions and velocity alike, so the network
cannot learn an order that means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.conditioning.task_embedding import class_tokens
from flown_jax.layers.embeddings import sinusoidal_embedding
from flown_jax.layers.transformer import TransformerBlock


class TokenTransformer(nn.Module):
    """Velocity v(x, t, condition) of class codes x; zero before training.

    Attributes:
      out_dim: length of a code.
      width: of the tokens inside.
      num_layers, num_heads: of the transformer.
      time_dim: width of the sinusoidal embedding of the time.
      time_scale: factor on t before it.
      dtype: of the computation; parameters are float32.
    """

    out_dim: int
    width: int
    num_layers: int
    num_heads: int
    time_dim: int = 64
    time_scale: float = 1000.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, t: Array, condition: Mapping[str, Array]) -> Array:
        """Velocity (B, n, out_dim).

        Args:
          x: codes (B, n, out_dim).
          t: times, scalar or (B,).
          condition: named arrays (B, n, E_i).
        Raises:
          ValueError: x and condition of different tasks or classes.
        """
        known = class_tokens(condition)
        if known.shape[:2] != x.shape[:2]:
            raise ValueError(f"codes {x.shape[:2]} and condition {known.shape[:2]} do not match.")
        time = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        time = sinusoidal_embedding(time * self.time_scale, self.time_dim)
        time = self._dense(self.width, "time_out")(
            nn.silu(self._dense(self.width, "time_in")(time))
        )
        tokens = self._dense(self.width, "code")(x) + self._dense(self.width, "known")(known)
        tokens = tokens + time[:, None]
        for layer in range(self.num_layers):
            tokens = TransformerBlock(
                self.num_heads, 2 * self.width, self.dtype, name=f"block_{layer}"
            )(tokens)
        tokens = nn.LayerNorm(dtype=self.dtype, name="norm")(tokens)
        zeros = nn.initializers.zeros
        out = nn.Dense(self.out_dim, kernel_init=zeros, dtype=self.dtype, name="out")(tokens)
        # What sets a class apart from the others reaches the output by a linear way, too.
        apart = known - known.mean(axis=1, keepdims=True)
        linear = nn.Dense(
            self.out_dim, use_bias=False, kernel_init=zeros, dtype=self.dtype, name="linear"
        )
        # Velocity and noise contain x itself, by a factor that depends on the time; the normalised
        # tokens lose its size, so it takes a way of its own.
        gain = nn.Dense(self.out_dim, kernel_init=zeros, dtype=self.dtype, name="gain")(time)
        return out + linear(apart) + gain[:, None] * x

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, name=name)
