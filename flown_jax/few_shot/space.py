"""The coordinates in which linear heads are learned.

A head is (n, F + 1), a row [weights | bias] a class. Two heads that differ by the same row added
to every class classify alike, so the class average is removed; and a head can be learned as a
correction to a class-mean head, which few classes cannot overfit. Vectors are laid out as in a
PyTorch state dict: the weight matrix row by row, then the biases.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import struct
from jax import Array

from flown_jax.errors import UserError


@struct.dataclass
class HeadSpace:
    """Heads to and from normalised targets x1.

    Attributes:
      base_scales: (S,) alpha of the base head alpha (mu_c / |mu_c| - average over classes) for
        each number of support images a class in `shots`; 0 for no base head.
      scale: (F + 1,) divisor of each column.
      shots: (S,) ascending; between them alpha is interpolated over the logarithm.
      centred: whether the class average is removed.
      sharpness: (S,) what logits are multiplied by in task losses, for each of `shots`: classes
        that the image encoder was trained on are easier to tell apart than new ones, and a head
        that is calibrated on them is too sure of itself on others. None for 1.
    """

    base_scales: Array
    scale: Array
    shots: tuple[int, ...] = struct.field(pytree_node=False)
    centred: bool = struct.field(pytree_node=False)
    sharpness: Array | None = None

    def base(self, prototypes: Array, shot: Array | float) -> Array:
        """Base heads (..., n, F + 1) of class means of the support.

        Args:
          prototypes: (..., n, F).
          shot: images a class behind each, scalar or (...).
        """
        unit = prototypes / jnp.maximum(jnp.linalg.norm(prototypes, axis=-1, keepdims=True), 1e-6)
        weights = self._of_shot(self.base_scales, shot) * _without_average(unit)
        return jnp.concatenate([weights, jnp.zeros_like(weights[..., :1])], axis=-1)

    def sharpened(self, heads: Array, shot: Array | float) -> Array:
        """The heads (..., n, F + 1) as task losses on training classes take them; see `sharpness`.

        Args:
          shot: images a class, scalar or (...).
        """
        return heads if self.sharpness is None else self._of_shot(self.sharpness, shot) * heads

    def _of_shot(self, values: Array, shot: Array | float) -> Array:
        """One of (S,) values for each shot, between them by the logarithm, (..., 1, 1)."""
        known = jnp.log(jnp.asarray(self.shots, values.dtype))
        return jnp.interp(jnp.log(jnp.asarray(shot, values.dtype)), known, values)[..., None, None]

    def normalise(self, heads: Array, base: Array) -> Array:
        """Targets x1 of heads and the base heads of their tasks, both (..., n, F + 1)."""
        corrections = heads - base
        return (_without_average(corrections) if self.centred else corrections) / self.scale

    def restore(self, x1: Array, base: Array) -> Array:
        """Heads of targets, both (..., n, F + 1): the inverse, up to the class average."""
        corrections = x1 * self.scale
        return base + (_without_average(corrections) if self.centred else corrections)


def fit_head_space(
    heads: Sequence[Array],
    prototypes: Sequence[Array],
    *,
    shots: Sequence[int],
    base_scales: Sequence[float],
    centred: bool,
    standardise: bool,
    sharpness: Sequence[float] | None = None,
) -> HeadSpace:
    """The space in which these heads have unit mean square in every column.

    Args:
      heads, prototypes: for each shot those of its training tasks, (T, n, F + 1) and (T, n, F).
      shots: images a class, ascending.
      base_scales: alpha of the base head at each; 0 for none.
      centred: remove the class average.
      standardise: divide by the root mean square of each column; else by 1.
      sharpness: see `HeadSpace`.
    """
    width = heads[0].shape[-1]
    scales = jnp.asarray(base_scales, heads[0].dtype)
    sharp = None if sharpness is None else jnp.asarray(sharpness, heads[0].dtype)
    space = HeadSpace(scales, jnp.ones(width), tuple(shots), centred, sharp)
    if not standardise:
        return space
    squares = [
        jnp.mean(space.normalise(h, space.base(p, k)) ** 2, axis=(0, 1))
        for h, p, k in zip(heads, prototypes, shots, strict=True)
    ]
    size = jnp.sqrt(jnp.mean(jnp.stack(squares), axis=0))
    # A column that is always zero (a fixed bias) stays as it is.
    return HeadSpace(scales, jnp.where(size > 1e-8, size, 1.0), tuple(shots), centred, sharp)


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
