"""A velocity of latents that have no order worth using: everything flat through linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.conditioning.task_embedding import TaskEmbedding, class_tokens
from flown_jax.errors import UserError
from flown_jax.layers.dense import Dense
from flown_jax.layers.embeddings import sinusoidal_embedding


class MLPVelocity(nn.Module):
    """velocity(x, t, condition) of latents x of any shape (B, ...); zero before training.

    The condition is None or named arrays (B, n, E_i); which of the two a network takes is settled
    when its parameters are made.

    Attributes:
      hidden_dims: widths of the hidden layers.
      time_dim: width of the sinusoidal embedding of the time.
      embedding_dim: of the task embedding.
      time_scale: t is multiplied by it first (1 feeds t in [0, 1], as in `UNet`).
      dtype: of the computation; None keeps the input's.
    """

    hidden_dims: Sequence[int] = (256, 256, 256)
    time_dim: int = 32
    embedding_dim: int = 32
    time_scale: float = 1.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Array, t: Array | float, condition: Mapping[str, Array] | None = None
    ) -> Array:
        """Returns the velocity, of x's shape.

        Args:
          x: (B, ...).
          t: times, scalar or (B,).
          condition: None or named arrays (B, n, E_i).
        Raises:
          UserError: times or a condition that do not fit.
        """
        batch = x.shape[0]
        t = jnp.asarray(t, jnp.float32)
        if t.shape not in ((), (batch,)):
            raise UserError(f"t must be a scalar or of shape ({batch},), got {t.shape}.")
        times = jnp.broadcast_to(t, (batch,)) * self.time_scale
        parts = [x.reshape(batch, -1), sinusoidal_embedding(times, self.time_dim)]
        self._check_parameters(condition)
        if condition is not None:
            known = class_tokens(condition)
            if known.shape[0] != batch:
                raise UserError(f"x is of {batch} tasks and the condition of {known.shape[0]}.")
            embed = TaskEmbedding(self.embedding_dim, dtype=self.dtype, name="task_embedding")
            parts.append(embed(known))
        h = jnp.concatenate([part.astype(x.dtype) for part in parts], axis=-1)
        for i, width in enumerate(self.hidden_dims):
            h = jax.nn.silu(Dense(width, dtype=self.dtype, name=f"hidden_{i}")(h))
        zeros = nn.initializers.zeros
        out = Dense(
            math.prod(x.shape[1:]),
            kernel_init=zeros,
            bias_init=zeros,
            dtype=self.dtype,
            name="out",
        )
        return out(h).reshape(x.shape)

    def _check_parameters(self, condition: Mapping[str, Array] | None) -> None:
        """Parameters made with a condition are of another network than those made without."""
        if self.is_initializing():
            return
        conditioned = self.has_variable("params", "task_embedding")
        if conditioned != (condition is not None):
            raise UserError(
                f"the velocity's parameters were made {'with' if conditioned else 'without'} a "
                f"condition and are used {'without' if conditioned else 'with'} one."
            )
