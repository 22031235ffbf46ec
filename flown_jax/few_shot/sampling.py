"""Heads for the support sets of many tasks: by the flow, by its rivals, by the autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.flow import diffusion
from flown_jax.flow.sources import get_source
from flown_jax.meta_model.build import Parts
from flown_jax.meta_model.condition import noisy_condition
from flown_jax.meta_model.latents import LatentSpace
from flown_jax.meta_model.sampling import regress, sample_diffusion, sample_flow, several

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
    known = parts.conditioner(support) if condition is None else condition
    return parts.sample(key, known, context_of(support), samples=samples, **sampling)


def draw_flow_heads(
    key: Array,
    network: Any,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    support: Array,
    *,
    source: str,
    latent_shape: tuple[int, ...],
    samples: int,
    solver: str,
    steps: int,
    temperature: float | Array,
) -> tuple[Array, Array]:
    """As `draw_heads`, of a flow that is no meta-model of its own."""
    shape = latents.latent_shape(latent_shape, condition)
    options: dict[str, Any] = {"source": get_source(source), "latent_shape": shape}
    options |= {"solver": solver, "steps": steps, "temperature": temperature}

    def draw(key: Array) -> tuple[Array, Array]:
        z, nfe = sample_flow(key, network, params, condition, **options)
        return latents.decode(z, context_of(support)), nfe

    return several(draw, key, samples)


def draw_ddpm_heads(
    key: Array,
    network: Any,
    params: Any,
    latents: LatentSpace,
    condition: Condition,
    support: Array,
    *,
    schedule: diffusion.Schedule,
    latent_shape: tuple[int, ...],
    samples: int,
    steps: int,
    temperature: float | Array,
) -> tuple[Array, Array]:
    """As `draw_heads`, of a DDPM in the same latent space."""
    shape = latents.latent_shape(latent_shape, condition)
    options: dict[str, Any] = {"schedule": schedule, "latent_shape": shape}
    options |= {"steps": steps, "temperature": temperature}

    def draw(key: Array) -> tuple[Array, Array]:
        z, nfe = sample_diffusion(key, network, params, condition, **options)
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
