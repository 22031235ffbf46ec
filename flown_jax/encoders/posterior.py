"""Diagonal Gaussian posterior of a weight autoencoder (paper sec. 2.1, eq. 2)."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

# Latent diffusion's clip: inside it the variance neither over- nor underflows in float32.
LOGVAR_RANGE = (-30.0, 20.0)


@flax.struct.dataclass
class Posterior:
    """q(z | w) = N(mean, exp(logvar)), independent over all entries.

    Attributes:
      mean, logvar: (B, ...), of equal shape.
    """

    mean: Array
    logvar: Array

    @classmethod
    def from_moments(cls, moments: Array) -> Posterior:
        """Posterior whose mean and clipped log variance are the halves of the last axis.

        Args:
          moments: (B, ..., 2E).
        Returns:
          Posterior over (B, ..., E).
        Raises:
          ValueError: the last axis is odd.
        """
        if moments.shape[-1] % 2:
            raise ValueError(f"Moments need an even last axis, got shape {moments.shape}.")
        mean, logvar = jnp.split(moments, 2, -1)
        return cls(mean, jnp.clip(logvar, *LOGVAR_RANGE))

    @property
    def std(self) -> Array:
        """Standard deviations, of the mean's shape."""
        return jnp.exp(0.5 * self.logvar)

    def mode(self) -> Array:
        """The mean."""
        return self.mean

    def sample(self, key: Array) -> Array:
        """One draw of the mean's shape."""
        return self.from_noise(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def from_noise(self, noise: Array) -> Array:
        """mean + std * noise, for standard normal noise of the mean's shape."""
        return self.mean + self.std * noise

    def kl(self) -> Array:
        """KL divergence to N(0, I), summed over each sample's entries: (B,)."""
        terms = 0.5 * (jnp.square(self.mean) + jnp.exp(self.logvar) - 1.0 - self.logvar)
        return terms.reshape(terms.shape[0], -1).sum(-1)


@flax.struct.dataclass
class Point(Posterior):
    """The posterior of an autoencoder that is not variational: all of it at the mean.

    Its divergence from N(0, I), which is infinite, counts as none.
    """

    @classmethod
    def at(cls, latent: Array) -> Point:
        """The latent (B, ...), for certain."""
        return cls(latent, jnp.full_like(latent, LOGVAR_RANGE[0]))

    @property
    def std(self) -> Array:
        """Zeros, of the mean's shape."""
        return jnp.zeros_like(self.mean)

    def kl(self) -> Array:
        """Zeros (B,)."""
        return jnp.zeros(self.mean.shape[:1], self.mean.dtype)
