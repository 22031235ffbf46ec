"""Whole networks from conditions: a flow, or a rival, in a weight autoencoder's latent space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array

from flown_jax.few_shot.codec import Standardiser
from flown_jax.few_shot.generator import as_noise_model, as_velocity, sample_keys
from flown_jax.flow import diffusion, sampling
from flown_jax.networks.space import ZooSpace

Condition = Mapping[str, Array]


@struct.dataclass
class ZooLatents:
    """Standardised latents to networks of a data set: space, autoencoder and statistics.

    Attributes:
      space: of the weights.
      variables: of the codec; a `PCACodec` is its own, then `codec` is None.
      statistics: of the codec's latents.
      codec: the module, or None.
    """

    space: ZooSpace
    variables: Any
    statistics: Standardiser
    codec: nn.Module | None = struct.field(pytree_node=False)

    def encode(self, name: str, weights: np.ndarray) -> Array:
        """Standardised posterior means (N, ...) of a set's weights (N, D of the set)."""
        x = self.space.normalise(name, weights)
        if self.codec is None:
            return self.statistics.apply(self.variables.encode(x).mode())
        return self.statistics.apply(self.codec.apply(self.variables, x, method="encode").mode())

    def decode(self, name: str, z: Array) -> Array:
        """Weights (N, D of the set) of standardised latents z (N, ...), read as that set's."""
        return self.space.restore(name, self.vectors(z))

    def vectors(self, z: Array) -> Array:
        """Standardised joint vectors (N, D) of standardised latents z (N, ...)."""
        latent = self.statistics.invert(z)
        if self.codec is None:
            return self.variables.decode(latent)
        return self.codec.apply(self.variables, latent, method="decode")


def sample_flow(
    key: Array,
    velocity: nn.Module,
    params: Any,
    condition: Condition,
    *,
    source: Callable[[Array, tuple[int, ...]], Array],
    latent_shape: tuple[int, ...],
    solver: str,
    steps: int,
    temperature: float = 1.0,
    x0: Array | None = None,
) -> tuple[Array, Array]:
    """One latent (S, ...) for each of S conditions, and the mean number of evaluations.

    A sample depends on its condition and its number, not on how many are drawn.

    Args:
      velocity, params: the network.
      condition: named arrays (S, n, E).
      source: x0 = source(key, shape). latent_shape: of one latent.
      solver, steps: as in `flow.sampling.sample`.
      temperature: factor on the source.
      x0: (S, ...), in the place of draws of the source.
    """
    if x0 is None:
        keys = sample_keys(key, _count(condition))
        x0 = temperature * jax.vmap(lambda k: source(k, (1, *latent_shape))[0])(keys)
    solution = sampling.sample(
        as_velocity(velocity, params), x0, condition, solver=solver, steps=steps
    )
    return solution.x1, jnp.mean(jnp.asarray(solution.nfe))


def sample_diffusion(
    key: Array,
    network: nn.Module,
    params: Any,
    condition: Condition,
    *,
    schedule: diffusion.Schedule,
    latent_shape: tuple[int, ...],
    steps: int,
) -> tuple[Array, Array]:
    """One latent (S, ...) for each of S conditions from a DDPM; as `sample_flow`."""
    key_start, key_steps = jax.random.split(key)
    start = jax.random.normal(key_start, (_count(condition), *latent_shape))
    solution = diffusion.sample_ddpm(
        as_noise_model(network, params, schedule),
        key_steps,
        start,
        condition,
        schedule,
        steps=steps,
    )
    return solution.x1, jnp.asarray(solution.nfe)


def _count(condition: Condition) -> int:
    return next(iter(condition.values())).shape[0]
