"""Sinusoidal embedding of time, as in DDPM and ADM: cosines first."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array


def sinusoidal_embedding(t: Array, width: int, max_period: float = 10000.0) -> Array:
    """[cos(t f), sin(t f)] with f_i = max_period^(-i / half), half = width // 2.

    Args:
      t: times or step numbers, (B,).
      width: columns of the result; an odd width gets one zero column at the end.
      max_period: longest period over 2 pi.
    Returns:
      (B, width), float32.
    Raises:
      ValueError: t is not one-dimensional or width is below 2.
    """
    if t.ndim != 1 or width < 2:
        raise ValueError(
            f"sinusoidal_embedding needs t (B,) and width >= 2, got {t.shape} and {width}."
        )
    half = width // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
    return jnp.pad(embedding, ((0, 0), (0, width % 2)))
