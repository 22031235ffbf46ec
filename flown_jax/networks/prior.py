"""Networks of another data set as the source of a flow, as in the paper (A.4.2).

Networks that were trained on another data set are made into networks for the zoos' sets: their
classifier is drawn anew, noise is added, and the autoencoder's encoder makes latents of them from
which the flow starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from flown_jax.meta_model.latents import Standardiser
from flown_jax.networks.space import NetworkSpace
from flown_jax.weights.implanted import Prior, implant


@struct.dataclass
class PriorSource:
    """What makes latents of the prior, but for the encoder.

    Attributes:
      prior: the networks.
      target: space of the zoos' weights. statistics: of their latents.
    """

    prior: Prior
    target: NetworkSpace
    statistics: Standardiser

    def vectors(self, key: Array, noise: float, count: int) -> Array:
        """Standardised joint vectors (count, D)."""
        return (implant(key, self.prior, noise, count) - self.target.mean) / self.target.scale

    def encode(self, codec: nn.Module, encoder: Any, x: Array) -> Array:
        """Standardised posterior means (B, ...) of standardised joint vectors x (B, D).

        Args:
          encoder: variables, at least those of `encoder_part`.
        """
        return self.statistics.apply(codec.apply(encoder, x, method="encode").mode())

    def latents(self, key: Array, codec: nn.Module, encoder: Any, noise: float, n: int) -> Array:
        """n standardised latents of the prior, where the flow starts."""
        return self.encode(codec, encoder, self.vectors(key, noise, n))

    def mean_square(self, noise: float) -> Array:
        """Of the entries of `vectors`, over networks and draws."""
        prior = self.prior
        squares = (prior.centre - self.target.mean) ** 2 + prior.spread**2 + noise**2
        return jnp.mean(squares / self.target.scale**2)


def encoder_part(codec: nn.Module, variables: Any, size: int) -> Any:
    """The variables of a codec of vectors (D = size,) that its encoder uses."""

    def init(key: Array) -> Any:
        return codec.init(key, jnp.zeros((1, size)), method="encode")

    return _same_part(variables, jax.eval_shape(init, jax.random.key(0)))


def _same_part(tree: Any, like: Any) -> Any:
    if not isinstance(like, Mapping):
        return tree
    return {name: _same_part(tree[name], part) for name, part in like.items()}
