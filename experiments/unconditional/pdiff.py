"""AE-DDPM as published with p-diff (Wang et al., February 2024): its autoencoder and denoiser.

Weights go in as they are and latents are not standardised, as published; samples are clipped to
[-1, 1] at every step, which is where its autoencoder's tanh ends.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.codec import described
from experiments.designs import latent_shape, latent_values, network_of, schedule
from experiments.stages import Stages, recipe
from experiments.zoo_generators import Design, Generated, drawn, generated
from experiments.zoo_targets import ZOO, Target
from flown_jax.encoders.losses import pdiff_loss
from flown_jax.meta_model import losses
from flown_jax.meta_model.build import codec_of
from flown_jax.meta_model.latents import Standardiser
from flown_jax.meta_model.sampling import sample_diffusion
from flown_jax.meta_model.training import train_codec, train_generator
from flown_jax.networks.batches import ZooExamples, latent_batches, zoo_batches
from flown_jax.networks.space import NetworkSpace
from flown_jax.training.stages import StageContext

PDIFF = "pdiff"


def make(stages: Stages, config: ConfigDict, target: Target) -> Design:
    """Its autoencoder, trained."""
    part = config.pdiff
    inputs = {
        "codec": part.codec,
        "seed": config.seed,
        "joint": target.joint,
        "weights": target.train,
        "base": target.base,
    }
    codec = stages(f"{target.name}-codec-{PDIFF}", inputs, _train_codec)
    return Design(PDIFF, target, part, codec, config.seed)


def ddpm(stages: Stages, config: ConfigDict, design: Design) -> Generated:
    """Networks drawn by its denoiser."""
    part = design.config
    learned = {"codec": design.codec, "velocity": part.velocity, "ddpm": part.ddpm}
    trained = stages(design.stage_name("ddpm"), {**learned, "seed": design.seed}, _train_ddpm)
    inputs = {
        "codec": design.codec,
        "generator": trained,
        "velocity": part.velocity,
        "ddpm": ConfigDict({name: v for name, v in part.ddpm.items() if name != "recipe"}),
        "samples": config.sampling.samples,
        "seed": design.seed,
    }
    return generated(stages(design.stage_name("samples"), inputs, _draw), design.codec, trained)


def _train_codec(context: StageContext) -> dict[str, Any]:
    given, part = context.inputs, context.inputs.codec
    weights = {ZOO.name: given.weights}
    bases = None if given.base is None else {ZOO.name: given.base}
    target, form, how = NetworkSpace.fit(given.joint, weights, bases), described(part), recipe(part)
    # Nothing is standardised: the first layer normalises every vector by itself.
    target = dataclasses.replace(
        target, mean=jnp.zeros_like(target.mean), scale=jnp.ones_like(target.scale)
    )
    module = codec_of(form, target)
    batches = zoo_batches(
        {ZOO.name: ZooExamples(given.weights)}, seed=given.seed, networks=how.batch, images=0
    )
    variables = train_codec(
        context,
        module,
        target,
        lambda step: batches(step)["parts"][ZOO.name],
        how,
        seed=given.seed,
        loss=pdiff_loss,
        sigma_in=part.sigma_in,
        sigma_lat=part.sigma_lat,
    )
    values = latent_values(target, form, module, variables, weights)
    mean, std = values["statistics"].values()
    return {**values, "statistics": {"mean": jnp.zeros_like(mean), "std": jnp.ones_like(std)}}


def _train_ddpm(context: StageContext) -> dict[str, Any]:
    given, part, values = context.inputs, context.inputs.ddpm, context.inputs.codec.values
    network = network_of(given.velocity, given.codec)
    batch_at = latent_batches(
        values["means"],
        Standardiser(**values["statistics"]),
        None,
        seed=given.seed,
        batch=part.recipe.batch,
        target="members",
        members=1,
        concentration=1.0,
        noise=0.0,
    )
    loss = partial(losses.diffusion_loss, network, schedule=schedule(part))
    found = train_generator(context, network, loss, batch_at, recipe(part), seed=given.seed)
    return {"params": found}


def _draw(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    options: dict[str, Any] = {
        "schedule": schedule(given.ddpm),
        "latent_shape": latent_shape(given.codec),
        "steps": given.ddpm.steps or None,
        "clip_x0": True,
        "clip_sample": True,
    }

    def draw(key: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        network = network_of(given.velocity, given.codec)
        return sample_diffusion(key, network, params, None, count=given.samples, **options)

    return drawn(context, draw)
