"""The UNet velocity of a latent map, conditioned on what is known of a task's classes.

The paper says that the condition is concatenated to the latent (section 2.2) and that it is joined
with the time embedding by a projection (A.4.2); both ways are here, alone or together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from jax import Array

from flown_jax.conditioning.task_embedding import TaskEmbedding, class_tokens
from flown_jax.errors import UserError
from flown_jax.velocity.unet import UNet

INJECTIONS = ("time", "channels", "both")


class TaskUNet(nn.Module):
    """Velocity v(x, t, condition) of latent maps x (B, r, r, e).

    Attributes:
      unet: the network, with as many output channels as x has.
      embedding_dim: of the task embedding (128 in Table 6).
      injection: `time` joins the task embedding with the time's, `channels` appends maps made
        from it, `both` does both.
      condition_channels: of those maps.
      wide: make the maps from all class embeddings by one linear layer, not from the task
        embedding, whose few numbers lose accuracy.
      dtype: of the computation; parameters are float32.
    """

    unet: UNet
    embedding_dim: int = 128
    injection: str = "both"
    condition_channels: int = 8
    wide: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, t: Array, condition: Mapping[str, Array] | None) -> Array:
        """Velocity, of x's shape.

        Args:
          x: (B, r, r, e).
          t: times, scalar or (B,).
          condition: named arrays (B, n, E_i), or None of a network without any.
        Raises:
          UserError: unknown injection.
        """
        if self.injection not in INJECTIONS:
            raise UserError(
                f"injection is {self.injection!r}; it must be one of {', '.join(INJECTIONS)}."
            )
        if condition is None:
            return self.unet(x, t)
        known = class_tokens(condition)
        embedding = TaskEmbedding(self.embedding_dim, name="task_embedding")(known)
        entries: dict[str, Array] = {}
        if self.injection != "channels":
            entries["embedding"] = embedding
        if self.injection != "time":
            row = known.reshape(known.shape[0], -1) if self.wide else embedding
            shape = (*x.shape[1:-1], self.condition_channels)
            maps = nn.Dense(shape[0] * shape[1] * shape[2], name="condition_maps")(row)
            entries["channels"] = maps.reshape(-1, *shape)
        return self.unet(x, t, entries)
