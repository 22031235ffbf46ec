"""The flows from a prior of another data set, each a stage's function."""

from __future__ import annotations

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.designs import (
    examples_of,
    latent_values,
    latents_of,
    loss_options,
    matching,
    network_of,
)
from experiments.retrieval import designs
from experiments.retrieval.samples import draw
from experiments.retrieval.zoos import Weights
from experiments.stages import recipe
from flown_jax.flow.sources import get_source
from flown_jax.meta_model.keys import named_key
from flown_jax.meta_model.latents import LatentSpace, Standardiser
from flown_jax.meta_model.losses import flow_loss
from flown_jax.meta_model.training import initial, split, train_codec
from flown_jax.networks import prior_training
from flown_jax.networks.batches import BatchAt, zoo_batches
from flown_jax.networks.prior import PriorSource, encoder_part
from flown_jax.networks.space import OfSet
from flown_jax.training.stages import StageContext
from flown_jax.weights.implanted import Prior
from flown_jax.weights.spec import WeightSpec


def _source(given: SimpleNamespace, latents: LatentSpace) -> PriorSource:
    networks, target = given.networks.values, latents.target
    spec = WeightSpec.from_json(networks["spec"])
    made = Prior.of(target.joint, spec, networks["weights"])
    return PriorSource(made, target, latents.statistics)


def train_flow(context: StageContext) -> dict[str, Any]:
    """As the paper did it, and the same flow from Gaussian noise for its loss."""
    given = context.inputs
    latents, velocity = latents_of(given.codec), network_of(given.velocity, given.codec)
    latents_at = _latents_at(given)
    start = initial(velocity, latents_at, given.seed)
    encoder = encoder_part(latents.codec, latents.variables, *latents.target.shape)
    trained, fixed = split(encoder)
    params = {"velocity": start, "encoder": trained}
    frozen = {"source": _source(given, latents), "encoder": fixed}
    found, loss_prior = _recorded(
        context, "prior-flow", params, _prior_loss(given, latents), _x1_at(given, latents), frozen
    )

    def from_noise(params: Any, key: jax.Array, batch: Any) -> Any:
        source, options = get_source("gaussian"), matching(given.flow)
        return flow_loss(velocity, params, key, batch, None, source=source, **options)

    _, loss_gaussian = _recorded(context, "prior-gaussian", start, from_noise, latents_at)
    return {
        "params": found["velocity"],
        "encoder": {**found["encoder"], **fixed},
        "loss_prior": loss_prior,
        "loss_gaussian": loss_gaussian,
    }


def train_mended(context: StageContext) -> dict[str, Any]:
    """The autoencoder that knows the prior, too, and the flow in its latents."""
    given, part = context.inputs, context.inputs.codec_config
    latents, velocity = latents_of(given.codec), network_of(given.velocity, given.codec)
    codec, target, source = latents.codec, latents.target, _source(given, latents)
    examples = examples_of(given.weights, given.images)
    variables = train_codec(
        context,
        codec,
        source,
        zoo_batches(examples, seed=given.seed, networks=part.networks, images=part.images),
        dataclasses.replace(recipe(part), batch=part.networks * len(examples)),
        seed=given.seed,
        name="prior-mended-codec",
        loss=prior_training.mended_codec_loss,
        noise=given.prior.noise,
        count=part.networks,
        weight=given.weight,
        **loss_options(part, target.joint, examples),
    )
    form = given.codec.values["module"]
    values = latent_values(target, form, codec, variables, given.weights)
    statistics = Standardiser(**values["statistics"])
    frozen = {
        "source": dataclasses.replace(source, statistics=statistics),
        "encoder": encoder_part(codec, variables, *target.shape),
    }
    start = {"velocity": initial(velocity, _latents_at(given), given.seed)}
    at, name = _x1_at(given, latents), "prior-mended-flow"
    found, loss = _recorded(context, name, start, _prior_loss(given, latents), at, frozen)
    return {**values, "params": found["velocity"], "loss_mended": loss}


def _recorded(
    context: StageContext, name: str, params: Any, loss: Any, batch_at: BatchAt, frozen: Any = None
) -> tuple[Any, np.ndarray]:
    given = context.inputs
    # Networks of the prior are drawn by their number in the batch, which parts would count anew.
    known = {"recipe": recipe(given.prior), "seed": given.seed, "whole": True}
    return prior_training.train_recorded(context, name, params, loss, batch_at, frozen, **known)


def _prior_loss(given: SimpleNamespace, latents: LatentSpace) -> Any:
    velocity, options = network_of(given.velocity, given.codec), matching(given.flow)
    loss = prior_training.prior_flow_loss
    return partial(loss, velocity, latents.codec, noise=given.prior.noise, **options)


def _latents_at(given: SimpleNamespace) -> BatchAt:
    values = given.codec.values
    statistics = Standardiser(**values["statistics"])
    return designs.batches_of(given, values["means"], statistics, given.prior)


def _x1_at(given: SimpleNamespace, latents: LatentSpace) -> BatchAt:
    """Batches as those of latents, of the standardised weights that the latents came from."""
    target = latents.target
    x1 = {n: np.asarray(target.normalise(w, OfSet(n))) for n, w in given.weights.items()}
    return designs.batches_of(given, x1, Standardiser(jnp.zeros(()), jnp.ones(())), given.prior)


def draw_both(context: StageContext) -> dict[str, Any]:
    """{"weights": method -> set -> networks, "facts"}: each from its own support draw."""
    given, mended = context.inputs, context.inputs.mended
    latents = latents_of(given.codec)
    mended_latents = latents_of(mended)
    source, codec = _source(given, latents), latents.codec
    encoder = jax.tree.map(jnp.asarray, given.flow.values["encoder"])
    forms = {
        # The decoder and its latents' statistics are the design's: only the encoder has learned.
        "flown_prior": (latents, encoder, given.flow),
        "flown_prior_mended": (mended_latents, mended_latents.variables, mended),
    }
    weights: dict[str, Weights] = {}
    names = sorted(given.weights)
    for method, (known, of_start, generator) in forms.items():
        own = dataclasses.replace(source, statistics=known.statistics)
        at = SimpleNamespace(**{**vars(given), "generator": generator})
        weights[method] = {}
        for name in names:
            key = named_key(given.seed, method, name)
            x0 = own.latents(key, codec, of_start, given.noise, given.samples)
            z = draw(at, name, given.samples, method, x0)
            weights[method][name] = np.asarray(known.decode(z, OfSet(name)))
    key = named_key(given.seed, "facts")
    facts = prior_training.prior_facts(
        key, source, given.weights, encoder, latents, mended_latents, given.noise
    )
    return {"weights": weights, "facts": facts}
