"""From the zoos' weights to what an autoencoder takes, and back."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from flown_jax.weights.joint import JointSpace
from flown_jax.weights.statistics import distances


@struct.dataclass
class ZooSpace:
    """Joint weight vectors, standardised: minus their mean, over one scale for each tensor.

    Attributes:
      mean: (D,), of the training networks of all data sets.
      scale: (D,), root mean square of a tensor's deviations, the same for all of its values.
      spacing: of each data set, mean distance of two training networks, standardised; 1 where
        it would be 0.
      joint: where each set's weights lie.
    """

    mean: Array
    scale: Array
    spacing: dict[str, Array]
    joint: JointSpace = struct.field(pytree_node=False)

    @classmethod
    def fit(cls, joint: JointSpace, weights: Mapping[str, np.ndarray]) -> ZooSpace:
        """The space of training networks.

        Args:
          weights: (N, D of the set) of each data set.
        """
        parts = {name: joint.embed(name, w).astype(np.float64) for name, w in weights.items()}
        vectors = np.concatenate(list(parts.values()))
        mean = vectors.mean(0)
        scale = np.ones_like(mean)
        for place in joint.slices.values():
            rms = np.sqrt(np.mean((vectors[:, place] - mean[place]) ** 2))
            scale[place] = rms if rms > 0 else 1.0
        spacing = {name: _mean_distance(part / scale) for name, part in parts.items()}
        return cls(
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(scale, jnp.float32),
            {name: jnp.asarray(value, jnp.float32) for name, value in spacing.items()},
            joint,
        )

    def normalise(self, name: str, weights: np.ndarray) -> Array:
        """What the autoencoder takes, (N, D), of a set's weights (N, D of the set)."""
        return (jnp.asarray(self.joint.embed(name, weights)) - self.mean) / self.scale

    def restore(self, name: str, x: Array) -> Array:
        """A set's weights (..., D of the set) of standardised vectors x (..., D)."""
        return self.joint.extract(name, x * self.scale + self.mean)


def _mean_distance(x: np.ndarray) -> float:
    """Of two rows of x (N, D); 1 where there are no two or all are equal: others divide by it."""
    count = len(x)
    return float(distances(x).sum() / max(count * (count - 1), 1)) or 1.0
