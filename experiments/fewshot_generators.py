"""The generators of the few-shot experiment: the flow, its rivals, and the finished meta-model."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.fewshot_stages import CAML_SIZES, FewShot, recipe
from flown_jax.few_shot import losses, training
from flown_jax.few_shot.networks import make_velocity
from flown_jax.few_shot.parts import Parts, build, tuples
from flown_jax.few_shot.selection import choose_temperature
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.flow import diffusion, paths
from flown_jax.flow.couplings import get_coupling
from flown_jax.flow.sources import get_source
from flown_jax.models.heads import FeatureTransform
from flown_jax.training.stages import StageContext, StageResult

_SAMPLING = ("solver", "steps", "temperatures", "samples")


def train_generators(
    job: FewShot,
    heads: StageResult,
    codec: StageResult,
    caml: StageResult,
    tables: dict[str, TaskTable],
) -> dict[str, StageResult]:
    """The flow and its rivals, on the same batches with the same network and condition."""
    config, seed = job.config, job.config.seed
    latents = job.latents(heads, codec, tables)
    conditioner = job.conditioner(caml, tables)
    shape = tuple(codec.values["latent_shape"])
    network = make_velocity(config.velocity.kind, shape, **tuples(config.velocity.sizes.to_dict()))
    source = get_source(config.flow.source)
    noise = config.condition.noise

    def batches(part: Any, seed: int) -> Any:
        return training.generator_batches(
            tables["train"],
            heads.values["heads"],
            conditioner,
            latents,
            seed=seed,
            batch=part.recipe.batch,
            query=config.tasks.train_query,
            permute=config.flow.permute,
        )

    def flow(context: StageContext) -> dict[str, Any]:
        part = config.flow

        def matching(params, key, batch, latents):
            return losses.flow_loss(
                network,
                params,
                key,
                batch,
                latents,
                path=paths.LinearPath(part.sigma),
                coupling=get_coupling(part.coupling),
                source=source,
                condition_noise=noise,
                task_weight=part.task_weight,
            )

        def through_the_solver(params, key, batch, latents):
            key_flow, key_ensemble = jax.random.split(key)
            value, metrics = matching(params, key_flow, batch, latents)
            ensemble, more = losses.ensemble_loss(
                network,
                params,
                key_ensemble,
                batch,
                latents,
                source=source,
                condition_noise=noise,
                members=part.ensemble.members,
                steps=part.ensemble.solver_steps,
            )
            value = part.ensemble.flow_weight * value + part.ensemble.weight * ensemble
            return value, {**metrics, **more}

        common = {"seed": seed, "input_shape": shape}
        params = training.train_generator(
            context, network, matching, batches(part, seed), latents, recipe(part), **common
        )
        if part.ensemble.recipe.steps:
            params = training.train_generator(
                context,
                network,
                through_the_solver,
                batches(part.ensemble, seed + 1),
                latents,
                recipe(part.ensemble),
                params=params,
                name="flow-ensemble",
                **common,
            )
        return {"params": params}

    def diffusion_loss(params, key, batch, latents):
        return losses.diffusion_loss(
            network,
            params,
            key,
            batch,
            latents,
            schedule=diffusion.iddpm_linear_schedule(config.ddpm.timesteps),
            condition_noise=noise,
            task_weight=config.ddpm.task_weight,
        )

    def regression_loss(params, key, batch, latents):
        return losses.regression_loss(
            network,
            params,
            key,
            batch,
            latents,
            condition_noise=noise,
            task_weight=config.regression.task_weight,
        )

    def rival(loss: Any, part: ConfigDict, context: StageContext) -> dict[str, Any]:
        params = training.train_generator(
            context,
            network,
            loss,
            batches(part, seed),
            latents,
            recipe(part),
            seed=seed,
            input_shape=shape,
        )
        return {"params": params}

    shared = {
        "velocity": config.velocity,
        "condition": config.condition,
        "permute": config.flow.permute,
        "tasks": config.tasks,
        "seed": seed,
        "codec_stage": codec,
        "caml_stage": caml,
    }
    functions = {
        "flow": flow,
        "ddpm": partial(rival, diffusion_loss, config.ddpm),
        "regression": partial(rival, regression_loss, config.regression),
    }
    return {
        name: job.stage(name, {**shared, name: config[name]}, function)
        for name, function in functions.items()
    }


def assemble(
    job: FewShot,
    data: StageResult,
    backbone: StageResult,
    transform: FeatureTransform,
    heads: StageResult,
    codec: StageResult,
    caml: StageResult,
    flow: StageResult,
    tables: dict[str, TaskTable],
) -> tuple[StageResult, Parts]:
    """Everything that generates, with the temperature that validation tasks choose."""
    config = job.config
    uses_caml = "caml" in config.condition.entries
    height, width = data.values["images"].shape[2:4]
    description = {
        "format": 1,
        "way": config.tasks.way,
        "shot": config.tasks.shot,
        "image_shape": [height, width, 1],
        "backbone": {"channels": list(config.backbone.channels)},
        "codec": {"form": config.codec.form, "sizes": config.codec.sizes.to_dict()},
        "caml": {n: config.caml[n] for n in CAML_SIZES} if uses_caml else None,
        "condition": list(config.condition.entries),
        "velocity": config.velocity.to_dict(),
        "latent_shape": list(codec.values["latent_shape"]),
        "source": config.flow.source,
        "centred": config.targets.centred,
    }
    arrays = {
        "backbone": backbone.values["variables"],
        "transform": {"mean": transform.mean, "scale": transform.scale},
        "space": heads.values["space"],
        "codec": codec.values["variables"],
        "latents": codec.values["latents"],
        "velocity": flow.values["params"],
    }
    if uses_caml:
        statistics = job.conditioner(caml, tables).statistics
        arrays["caml"] = caml.values["variables"]
        arrays["slots"] = {"mean": statistics.mean, "std": statistics.std}

    def function(context: StageContext) -> dict[str, Any]:
        sampling = {"solver": config.sampling.solver, "steps": config.sampling.steps}
        parts = build({**description, "sampling": {**sampling, "temperature": 1.0}}, arrays)
        chosen = choose_temperature(
            parts,
            tables["validation"],
            jax.random.key(config.seed),
            grid=tuple(config.sampling.temperatures),
            samples=config.sampling.samples,
        )
        context.records.log("model", 0, {"temperature": chosen["temperature"]})
        whole = {**description, "sampling": {**sampling, "temperature": chosen["temperature"]}}
        return {"description": whole, "arrays": arrays, "chosen": chosen}

    inputs = {
        "sampling": {k: config.sampling[k] for k in ("solver", "steps", "temperatures", "samples")},
        "description": description,
        "seed": config.seed,
        "flow": flow,
        "heads": heads,
    }
    result = job.stage("model", inputs, function)
    return result, build(result.values["description"], result.values["arrays"])
