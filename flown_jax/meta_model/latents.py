"""Standardised latents of a target: its space, a weight autoencoder and statistics, all frozen."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from flown_jax.meta_model.targets import TargetSpace


@struct.dataclass
class Standardiser:
    """Zero mean and unit variance: `apply` and `invert`, with the statistics of training data.

    Attributes:
      mean, std: broadcast against the arrays.
    """

    mean: Array
    std: Array

    @classmethod
    def fit(cls, values: Array, axis: tuple[int, ...]) -> Standardiser:
        """Statistics over the given axes of values."""
        std = values.std(axis)
        return cls(values.mean(axis), jnp.where(std > 1e-6, std, 1.0))

    def apply(self, values: Array) -> Array:
        """Standardised values."""
        return (values - self.mean) / self.std

    def invert(self, values: Array) -> Array:
        """Values with the training statistics."""
        return values * self.std + self.mean


@struct.dataclass
class LatentSpace:
    """Weights to standardised latents and back.

    Attributes:
      target: normalisation of the weights.
      variables: of the codec.
      statistics: of the codec's latents.
      codec: a module with `encode(x1) -> Posterior` and `decode(z) -> x1`.
    """

    target: Any
    variables: Any
    statistics: Standardiser
    codec: Any = struct.field(pytree_node=False)

    def encode(self, weights: Any, context: Any) -> Array:
        """Standardised latents (B, ...) of weights, by the posterior's mean."""
        x1 = self.target.normalise(weights, context)
        posterior = self.codec.apply(self.variables, x1, method="encode")
        return self.statistics.apply(posterior.mode())

    def decode(self, z: Array, context: Any) -> Any:
        """Weights of standardised latents z (B, ...)."""
        return self.target.restore(self.targets(z), context)

    def targets(self, z: Array) -> Array:
        """Targets x1 (B, ...) of standardised latents z (B, ...)."""
        latent = self.statistics.invert(z)
        return self.codec.apply(self.variables, latent, method="decode")

    def latent_shape(self, shape: tuple[int, ...], condition: Any) -> tuple[int, ...]:
        """Of one latent: as trained, or with a code for each class of a condition.

        Args:
          shape: as trained. condition: named arrays (B, n, E).
        """
        if not by_class(self.codec):
            return shape
        return (jax.tree.leaves(condition)[0].shape[1], *shape[1:])


def by_class(codec: Any) -> bool:
    """Whether a codec has one code a class, so that any number of classes will do."""
    return getattr(codec, "by_class", False)


def posterior_means(
    codec: Any, variables: Any, target: TargetSpace, weights: Any, context: Any, chunk: int = 500
) -> np.ndarray:
    """Means (N, ...) of the codec's posteriors, not standardised.

    Args:
      weights: arrays with a leading axis N. context: arrays with the same axis, or without any.
      chunk: networks at a time.
    """
    count = len(jax.tree.leaves(weights)[0])
    parts = [slice(start, start + chunk) for start in range(0, count, chunk)]
    take = [jax.tree.map(lambda leaf, p=part: leaf[p], (weights, context)) for part in parts]
    return np.concatenate([np.asarray(_mean(codec, variables, target, *each)) for each in take])


@partial(jax.jit, static_argnums=0)
def _mean(codec: Any, variables: Any, target: Any, weights: Any, context: Any) -> Array:
    return codec.apply(variables, target.normalise(weights, context), method="encode").mode()


def fit_latent_statistics(codec: Any, means: Iterable[np.ndarray]) -> Standardiser:
    """Statistics of posterior means (N, ...): per entry, or per dimension of a class's code."""
    every = jnp.asarray(np.concatenate(list(means)))
    return Standardiser.fit(every, (0, 1) if by_class(codec) else (0,))
