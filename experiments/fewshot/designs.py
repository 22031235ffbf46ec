"""Ways to generate heads: autoencoder, condition, flow and its rivals, each a stage."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.codec import counted, described
from experiments.fewshot.heads import examples_of, space_of
from experiments.stages import Stages, recipe
from experiments.tasks import Tables, conditioner_of
from flown_jax.few_shot.batches import condition_batches, head_batches
from flown_jax.flow import diffusion, paths
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sources import get_source
from flown_jax.meta_model import losses
from flown_jax.meta_model.build import codec_of, latent_space, velocity_of
from flown_jax.meta_model.latents import (
    LatentSpace,
    fit_latent_statistics,
    posterior_means,
)
from flown_jax.meta_model.training import train_codec, train_generator
from flown_jax.training.stages import StageContext, StageResult

_CODEC_LOSS = ("reconstruction", "kl_weight", "sigma_in", "sigma_lat", "task_weight")


@dataclasses.dataclass(frozen=True)
class Design:
    """A way to generate heads: finished stages and a part of the config.

    Attributes:
      name: "" for the main design; else it is appended to the stages' names.
      velocity, condition, flow: of the config.
      codec: finished stage. caml: finished stage, None where the condition does not have it.
    """

    name: str
    velocity: ConfigDict
    condition: ConfigDict
    flow: ConfigDict
    codec: StageResult
    caml: StageResult | None

    def stage_name(self, part: str) -> str:
        """The name of a stage of this design."""
        return f"{part}-{self.name}" if self.name else part


def make_design(
    stages: Stages,
    name: str,
    part: ConfigDict,
    tables: Tables,
    heads: StageResult,
    caml: StageResult,
    *,
    train_query: int,
    seed: int,
    codec: StageResult | None = None,
) -> Design:
    """A design with its weight autoencoder, trained.

    Args:
      part: of the config, with `codec`, `velocity`, `condition` and `flow`.
      train_query: query images a class and step.
      codec: of another design, where it is the same.
    """
    inputs = {
        "codec": counted(part.codec),
        "seed": seed,
        "heads": heads,
        "train": tables.train,
        "train_query": train_query,
    }
    if codec is None:
        codec = stages(f"codec-{name}" if name else "codec", inputs, _train_codec)
    used = caml if "caml" in part.condition.entries else None
    return Design(name, part.velocity, part.condition, part.flow, codec, used)


def _train_codec(context: StageContext) -> dict[str, Any]:
    """The weight autoencoder and the statistics of its latents."""
    given, config = context.inputs, context.inputs.codec
    space, examples = space_of(given.heads), examples_of(given.heads, given.train)
    form = described(config)
    module = codec_of(form, space)
    batch = config.recipe.batch
    variables = train_codec(
        context,
        module,
        space,
        head_batches(examples, seed=given.seed, batch=batch, query=given.train_query),
        recipe(config),
        seed=given.seed,
        **{name: config[name] for name in _CODEC_LOSS},
    )
    means = [
        posterior_means(module, variables, space, e.heads, e.table.context()) for e in examples
    ]
    statistics = fit_latent_statistics(module, means)
    return {
        "variables": variables,
        "latents": {"mean": statistics.mean, "std": statistics.std},
        "latent_shape": list(means[0].shape[1:]),
        "module": form,
    }


def latents_of(codec: StageResult, heads: StageResult) -> LatentSpace:
    """Heads to latents and back, of a finished autoencoder."""
    of = codec.values
    return latent_space(space_of(heads), of["variables"], of["latents"], of["module"])


def network_of(velocity: ConfigDict, codec: StageResult) -> Any:
    """The velocity of a finished autoencoder's latents."""
    return velocity_of(velocity, codec.values["latent_shape"])


def flow_stage(stages: Stages, design: Design, common: dict[str, Any]) -> StageResult:
    """The flow of a design, trained.

    Args:
      common: what all generators depend on: `heads`, `train`, `train_query` and `seed`.
    """
    options = {name: design.flow[name] for name in ("source", "coupling", "sigma", "task_weight")}
    ensemble = design.flow.ensemble if design.flow.ensemble.recipe.steps else None
    inputs = {"options": options, "flow": design.flow.recipe, "ensemble": ensemble}
    return stages(design.stage_name("flow"), {**inputs, **_known(design), **common}, _train_flow)


def _train_flow(context: StageContext) -> dict[str, Any]:
    given, options = context.inputs, context.inputs.options
    noise, source = given.condition.noise, get_source(options["source"])
    matching = partial(
        losses.flow_loss,
        network_of(given.velocity, given.codec),
        path=paths.LinearPath(options["sigma"]),
        coupling=get_coupling(options["coupling"]),
        source=source,
        condition_noise=noise,
        task_weight=options["task_weight"],
    )
    params = _train(context, matching, ConfigDict({"recipe": given.flow}))
    if given.ensemble is None:
        return {"params": params}
    part = given.ensemble
    members = partial(
        losses.ensemble_loss,
        network_of(given.velocity, given.codec),
        source=source,
        condition_noise=noise,
        members=part.members,
        steps=part.solver_steps,
    )

    def through_the_solver(params, key, batch, latents):
        key_flow, key_ensemble = jax.random.split(key)
        value, metrics = matching(params, key_flow, batch, latents)
        ensemble, more = members(params, key_ensemble, batch, latents)
        return part.flow_weight * value + part.weight * ensemble, {**metrics, **more}

    more = {"params": params, "name": "flow-ensemble"}
    return {"params": _train(context, through_the_solver, part, batches=1, **more)}


def rival_stages(
    stages: Stages, design: Design, config: ConfigDict, common: dict[str, Any]
) -> dict[str, StageResult]:
    """A DDPM and a regression with the network, condition and decoder of the design.

    Args:
      config: with `ddpm` and `regression`. common: as in `flow_stage`.
    """
    known = {**_known(design), **common}
    trained = ("timesteps", "task_weight", "recipe")
    ddpm = ConfigDict({name: config.ddpm[name] for name in trained})
    regression = {"regression": config.regression, **known}
    return {
        "ddpm": stages(design.stage_name("ddpm"), {"ddpm": ddpm, **known}, _train_ddpm),
        "regression": stages(design.stage_name("regression"), regression, _train_regression),
    }


def _train_ddpm(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.ddpm
    loss = partial(
        losses.diffusion_loss,
        network_of(given.velocity, given.codec),
        schedule=schedule(part.timesteps),
        condition_noise=given.condition.noise,
        task_weight=part.task_weight,
    )
    return {"params": _train(context, loss, part)}


def _train_regression(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.regression
    loss = partial(
        losses.regression_loss,
        network_of(given.velocity, given.codec),
        condition_noise=given.condition.noise,
        task_weight=part.task_weight,
    )
    return {"params": _train(context, loss, part)}


def schedule(timesteps: int) -> diffusion.Schedule:
    """The DDPM's."""
    return diffusion.iddpm_linear_schedule(timesteps)


def _known(design: Design) -> dict[str, Any]:
    """What every generator of a design depends on."""
    return {
        "velocity": design.velocity,
        "condition": design.condition,
        "permute": design.flow.permute,
        "codec": design.codec,
        "caml": design.caml,
    }


def _train(
    context: StageContext, loss: Any, part: ConfigDict, batches: int = 0, **more: Any
) -> Any:
    """Parameters of a generator.

    Args:
      part: with a `recipe`. batches: added to the seed of the batches.
    """
    given = context.inputs
    latents = latents_of(given.codec, given.heads)
    batch_at = condition_batches(
        examples_of(given.heads, given.train),
        conditioner_of(given.condition, given.train, given.caml),
        latents,
        seed=given.seed + batches,
        batch=part.recipe.batch,
        query=given.train_query,
        permute=given.permute,
    )
    network = network_of(given.velocity, given.codec)
    return train_generator(
        context, network, loss, batch_at, recipe(part), seed=given.seed, latents=latents, **more
    )
