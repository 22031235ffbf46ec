"""Heads for the support sets of many tasks: by the flow, by its rivals, by the autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.meta_model.build import Parts
from flown_jax.meta_model.condition import noisy_condition
from flown_jax.meta_model.latents import LatentSpace
from flown_jax.meta_model.sampling import regress, several
from flown_jax.meta_model.support import sight

Condition = Mapping[str, Array]


def context_of(support: Array) -> dict[str, Array]:
    """What heads need of support features (T, n, k, F): class means, and images a class."""
    return {
        "prototypes": support.mean(axis=2),
        "shot": jnp.full(support.shape[0], support.shape[2], jnp.float32),
    }


def draw_heads(
    parts: Parts,
    key: Array,
    support: Array,
    *,
    samples: int,
    condition: Condition | None = None,
    **sampling: Any,
) -> tuple[Array, Array]:
    """Heads (S, T, n, F + 1) of a meta-model, and the mean number of evaluations of each.

    Args:
      support: support features (T, n, k, F).
      condition: None makes it from the support.
      sampling: `solver`, `steps`, `temperature` other than the trained defaults.
    """
    known = sight(parts)[2](support) if condition is None else condition
    return parts.sample(key, known, context_of(support), samples=samples, **sampling)


def draw_heads_with(
    key: Array,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    support: Array,
    *,
    sample: Callable[..., tuple[Array, Array]],
    latent_shape: tuple[int, ...],
    samples: int,
    temperature: float | Array,
) -> tuple[Array, Array]:
    """As `draw_heads`, of a generator that is no meta-model of its own.

    Args:
      sample: `sample_flow` or `sample_diffusion` of `meta_model.sampling`, its network and its
        steps given. params: of the network.
      latent_shape: of one latent, as trained.
    """
    shape = latents.latent_shape(latent_shape, condition)

    def draw(key: Array) -> tuple[Array, Array]:
        given: dict[str, Any] = {"params": params, "condition": condition}
        z, nfe = sample(key, **given, latent_shape=shape, temperature=temperature)
        return latents.decode(z, context_of(support)), nfe

    return several(draw, key, samples)


def regress_heads(
    network: Any,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    support: Array,
    latent_shape: tuple[int, ...],
) -> Array:
    """One head a task by regression, (T, n, F + 1)."""
    shape = latents.latent_shape(latent_shape, condition)
    return latents.decode(regress(network, params, condition, shape), context_of(support))


def regress_noisy_heads(
    network: Any,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    support: Array,
    latent_shape: tuple[int, ...],
    key: Array,
    noise: float,
    *,
    samples: int,
) -> Array:
    """Regressed heads of conditions with the training noise, (S, T, n, F + 1).

    What separates a generator from a regression that is made random in the cheapest way.
    """

    def draw(key: Array) -> Array:
        noisy = noisy_condition(key, condition, noise, support.shape[2])
        return regress_heads(network, params, latents, noisy, support, latent_shape)

    return jax.lax.map(draw, jax.random.split(key, samples))


def reconstruct_heads(latents: LatentSpace, heads: Array, support: Array) -> Array:
    """Heads (T, n, F + 1) encoded and decoded."""
    context = context_of(support)
    return latents.decode(latents.encode(heads, context), context)


def base_heads(latents: LatentSpace, support: Array) -> Array:
    """The base heads (T, n, F + 1) that generated ones correct."""
    return latents.target.base(context_of(support))
