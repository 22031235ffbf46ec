"""From what is known of each class to one vector a task (paper, A.4.2 (2)-(3))."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array


def class_tokens(condition: Mapping[str, Array]) -> Array:
    """All entries of a condition side by side, (B, n, sum of widths), in the order of their names.

    Args:
      condition: named arrays (B, n, E_i): the features of each class's support images, the
        class embeddings of CAML, or both.
    Raises:
      ValueError: no entry, or entries that differ in tasks or classes.
    """
    entries = [condition[name] for name in sorted(condition)]
    shapes = {entry.shape[:-1] for entry in entries}
    if len(shapes) != 1:
        raise ValueError(
            "a condition needs entries of equal (tasks, classes), not "
            + ", ".join(f"{name} {condition[name].shape}" for name in sorted(condition))
            + "."
        )
    return jnp.concatenate(entries, axis=-1)


class TaskEmbedding(nn.Module):
    """One vector a task: the class embeddings in a row, through two linear layers.

    Attributes:
      embedding_dim: width of the hidden layer and of the result (128 in the paper's Table 6).
      dtype: of the computation; parameters are float32.

    The paper names no activation between the layers; SiLU is ours.
    """

    embedding_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, class_embeddings: Array) -> Array:
        """Args: class_embeddings (B, n, E). Returns: (B, embedding_dim)."""
        row = class_embeddings.reshape(class_embeddings.shape[0], -1)
        hidden = nn.silu(nn.Dense(self.embedding_dim, dtype=self.dtype)(row))
        return nn.Dense(self.embedding_dim, dtype=self.dtype)(hidden)
