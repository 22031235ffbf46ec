"""Networks that designs generate, each from a draw of support images of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.designs import latent_shape, latents_of, network_of, schedule
from experiments.retrieval.designs import Design
from experiments.stages import Stages
from flown_jax.flow.sources import get_source
from flown_jax.meta_model.keys import named_key
from flown_jax.meta_model.sampling import each_row, row_by_row, sample_diffusion, sample_flow
from flown_jax.networks.rivals import from_density
from flown_jax.networks.space import OfSet
from flown_jax.training.stages import StageContext, StageResult


def of_flow(stages: Stages, design: Design, flow: StageResult) -> StageResult:
    """A stage: networks (S, D of the set) of every set, drawn by a flow."""
    samples = design.config.sampling.samples
    inputs = {**design.drawn_from(flow), "samples": samples}
    return stages(design.stage_name("samples"), inputs, _draw_flow, version=2)


def _draw_flow(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    latents = latents_of(given.codec)
    return {
        name: latents.decode(draw(given, name, given.samples, context.name), OfSet(name))
        for name in given.codec.values["means"]
    }


def draw(
    given: SimpleNamespace, name: str, count: int, row: str, x0: jax.Array | None = None
) -> jax.Array:
    """Standardised latents (S, ...) for a set's support draws of validation images.

    Args:
      given: inputs of a stage, see `Design.drawn_from`.
      row: of a table; what has another name has draws of its own.
      x0: starts, in the place of the source.
    """
    return draw_counted(given, name, count, row, x0)[0]


def draw_counted(
    given: SimpleNamespace, name: str, count: int, row: str, x0: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The same, and the mean number of evaluations of the velocity."""
    return sample_flow(
        named_key(given.seed, row, name),
        network_of(given.velocity, given.codec),
        jax.tree.map(jnp.asarray, given.generator.values["params"]),
        _condition(given, name, count),
        source=each_row(get_source(given.source)),
        latent_shape=latent_shape(given.codec),
        x0=x0,
        **given.sampling,
    )


def of_ddpm(stages: Stages, design: Design, ddpm: StageResult) -> StageResult:
    """A stage: networks of every set, drawn by a DDPM."""
    config, inputs = design.config, design.drawn_from(ddpm)
    del inputs["source"], inputs["sampling"]  # those of a flow
    part = ConfigDict({k: v for k, v in config.ddpm.items() if k != "recipe"})
    more = {"ddpm": part, "samples": config.sampling.samples}
    return stages("samples-ddpm", {**inputs, **more}, _draw_ddpm, version=2)


def _draw_ddpm(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    latents, network = latents_of(given.codec), network_of(given.velocity, given.codec)
    params = jax.tree.map(jnp.asarray, given.generator.values["params"])
    options = {
        "schedule": schedule(given.ddpm),
        "latent_shape": latent_shape(given.codec),
        "steps": given.ddpm.steps,
    }

    def one(key: jax.Array, condition: Mapping[str, jax.Array]) -> jax.Array:
        return sample_diffusion(key, network, params, condition, **options)[0]

    found = {}
    for name in given.codec.values["means"]:
        condition = _condition(given, name, given.samples)
        key = named_key(given.seed, context.name, name)
        found[name] = latents.decode(row_by_row(one, key, condition), OfSet(name))
    return found


def of_density(
    stages: Stages, design: Design, nearest: Mapping[str, list[str]], bandwidth: float | str
) -> StageResult:
    """A stage: networks of every set by kernel density in the latents of a design.

    Args:
      nearest: the set that retrieval names for each support draw of a set.
    """
    inputs = {
        "codec": design.codec,
        "conditions": design.known,
        "nearest": nearest,
        "bandwidth": bandwidth,
        "seed": design.config.seed,
    }
    return stages("samples-kde", inputs, _draw_density, version=2)


def _draw_density(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    latents, found = latents_of(given.codec), {}
    means = given.codec.values["means"]
    z = {name: latents.statistics.apply(jnp.asarray(own)) for name, own in means.items()}
    for name, sets in given.nearest.items():
        key = named_key(given.seed, context.name, name)
        drawn = from_density(key, z, sets, given.bandwidth)
        found[name] = latents.decode(drawn, OfSet(name))
    return found


def _condition(given: SimpleNamespace, name: str, count: int) -> dict[str, jax.Array]:
    bank = given.conditions.values["validation"][name]
    return {key: jnp.asarray(value[:count]) for key, value in bank.items()}
