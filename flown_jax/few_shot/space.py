"""The coordinates in which linear heads are learned.

A head is (n, F + 1), a row [weights | bias] a class. Two heads that differ by the same row added
to every class classify alike, so the class average is removed; and a head can be learned as a
correction to a class-mean head, which few classes cannot overfit. Vectors are laid out as in a
PyTorch state dict: the weight matrix row by row, then the biases.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from flown_jax.errors import UserError

BASES = ("none", "class_mean")


@struct.dataclass
class HeadSpace:
    """Heads to and from normalised targets x1.

    Attributes:
      base_scale: alpha of the base head alpha (mu_c / |mu_c| - average over classes); 0 for none.
      scale: (F + 1,) divisor of each column.
      centred: whether the class average is removed.
    """

    base_scale: Array
    scale: Array
    centred: bool = struct.field(pytree_node=False)

    def base(self, prototypes: Array) -> Array:
        """Base heads (..., n, F + 1) of class means of the support `prototypes` (..., n, F)."""
        unit = prototypes / jnp.maximum(jnp.linalg.norm(prototypes, axis=-1, keepdims=True), 1e-6)
        weights = self.base_scale * _without_average(unit)
        return jnp.concatenate([weights, jnp.zeros_like(weights[..., :1])], axis=-1)

    def normalise(self, heads: Array, prototypes: Array) -> Array:
        """Targets x1 of heads, both (..., n, F + 1)."""
        corrections = heads - self.base(prototypes)
        return (_without_average(corrections) if self.centred else corrections) / self.scale

    def restore(self, x1: Array, prototypes: Array) -> Array:
        """Heads of targets, both (..., n, F + 1): the inverse, up to the class average."""
        corrections = x1 * self.scale
        corrections = _without_average(corrections) if self.centred else corrections
        return self.base(prototypes) + corrections


def fit_head_space(
    heads: Array, prototypes: Array, *, base_scale: float, centred: bool, standardise: bool
) -> HeadSpace:
    """The space in which these heads have unit mean square in every column.

    Args:
      heads: (T, n, F + 1) of training tasks. prototypes: (T, n, F) of the same tasks.
      base_scale: alpha of the base head; 0 for none.
      centred: remove the class average.
      standardise: divide by the root mean square of each column; else by 1.
    """
    space = HeadSpace(jnp.asarray(base_scale, heads.dtype), jnp.ones(heads.shape[-1]), centred)
    if not standardise:
        return space
    size = jnp.sqrt(jnp.mean(space.normalise(heads, prototypes) ** 2, axis=(0, 1)))
    # A column that is always zero (a fixed bias) stays as it is.
    return HeadSpace(space.base_scale, jnp.where(size > 1e-8, size, 1.0), centred)


def to_vector(heads: Array) -> Array:
    """Vectors (..., n F + n) of heads (..., n, F + 1): weight rows, then biases."""
    weights = heads[..., :-1].reshape(*heads.shape[:-2], -1)
    return jnp.concatenate([weights, heads[..., -1]], axis=-1)


def from_vector(vectors: Array, way: int) -> Array:
    """Heads (..., n, F + 1) of vectors (..., n F + n).

    Raises:
      UserError: a length that `way` does not divide.
    """
    if vectors.shape[-1] % way:
        raise UserError(f"a vector of length {vectors.shape[-1]} is no head of {way} classes.")
    weights = vectors[..., :-way].reshape(*vectors.shape[:-1], way, -1)
    return jnp.concatenate([weights, vectors[..., -way:, None]], axis=-1)


def _without_average(rows: Array) -> Array:
    return rows - rows.mean(axis=-2, keepdims=True)
