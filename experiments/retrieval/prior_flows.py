"""The flows from a prior of another data set, each a stage's function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.retrieval.designs import (
    batches_of,
    codec_batches,
    examples_of,
    latents_of,
    loss_options,
    matching,
    network_of,
)
from experiments.retrieval.samples import draw, draw_key
from experiments.retrieval.zoos import Weights
from experiments.stages import recipe
from flown_jax.flow.sources import get_source
from flown_jax.meta_model import losses
from flown_jax.meta_model.latents import (
    LatentSpace,
    Standardiser,
    fit_latent_statistics,
    posterior_means,
)
from flown_jax.meta_model.training import initial, train_codec
from flown_jax.networks.batches import BatchAt
from flown_jax.networks.prior import Prior, PriorSource, encoder_part
from flown_jax.networks.prior_training import (
    mended_codec_loss,
    prior_facts,
    prior_flow_loss,
    train_recorded,
)
from flown_jax.networks.space import OfSet
from flown_jax.training.stages import StageContext
from flown_jax.weights.spec import WeightSpec


def _source(given: SimpleNamespace, latents: LatentSpace) -> PriorSource:
    networks = given.networks.values
    spec = WeightSpec.from_json(networks["spec"])
    target = latents.target
    made = Prior.of(target.joint, spec, networks["weights"])
    return PriorSource(made, target, latents.statistics)


def train_flow(context: StageContext) -> dict[str, Any]:
    """As the paper did it, and the same flow from Gaussian noise for its loss."""
    given, values = context.inputs, context.inputs.codec.values
    latents, velocity = latents_of(given.codec), network_of(given.velocity, given.codec)
    latents_at = batches_of(
        given, values["means"], Standardiser(**values["statistics"]), given.prior
    )
    start = initial(velocity, latents_at, given.seed)
    encoder = encoder_part(latents.codec, latents.variables, *latents.target.shape)
    source = _source(given, latents)
    found, loss_prior = _recorded(
        context,
        "prior-flow",
        {"velocity": start, "encoder": encoder},
        _prior_loss(given, latents.codec, trained=True),
        _targets_at(given, latents),
        {"source": source},
    )

    def from_noise(params: Any, key: jax.Array, batch: Any) -> losses.LossAndMetrics:
        return losses.flow_loss(
            velocity,
            params,
            key,
            batch,
            None,
            source=get_source("gaussian"),
            **matching(given.flow),
        )

    _, loss_gaussian = _recorded(context, "prior-gaussian", start, from_noise, latents_at)
    return {
        "params": found["velocity"],
        "encoder": found["encoder"],
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
        codec_batches(part, examples, given.seed),
        recipe(part),
        seed=given.seed,
        name="prior-mended-codec",
        loss=mended_codec_loss,
        noise=given.prior.noise,
        count=part.networks,
        weight=given.weight,
        **loss_options(part, target.joint, examples),
    )
    means = [
        posterior_means(codec, variables, target, own, OfSet(name))
        for name, own in given.weights.items()
    ]
    statistics = fit_latent_statistics(codec, means)
    frozen = {
        "source": dataclasses.replace(source, statistics=statistics),
        "encoder": encoder_part(codec, variables, *target.shape),
    }
    latents_at = batches_of(given, given.codec.values["means"], statistics, given.prior)
    start = {"velocity": initial(velocity, latents_at, given.seed)}
    loss = _prior_loss(given, codec, trained=False)
    at = _targets_at(given, latents)
    found, recorded = _recorded(context, "prior-mended-flow", start, loss, at, frozen)
    return {
        "variables": variables,
        "statistics": {"mean": statistics.mean, "std": statistics.std},
        "params": found["velocity"],
        "loss_mended": recorded,
    }


def _recorded(
    context: StageContext, name: str, params: Any, loss: Any, batch_at: BatchAt, frozen: Any = None
) -> tuple[Any, np.ndarray]:
    given = context.inputs
    return train_recorded(
        context, name, params, loss, batch_at, frozen, recipe=recipe(given.prior), seed=given.seed
    )


def _prior_loss(given: SimpleNamespace, codec: Any, *, trained: bool) -> Callable[..., Any]:
    """(params, key, batch) -> loss; the encoder is in the parameters or in what is frozen."""
    velocity = network_of(given.velocity, given.codec)

    def loss(params: Any, key: jax.Array, batch: Any) -> losses.LossAndMetrics:
        frozen = batch["frozen"]
        return prior_flow_loss(
            velocity,
            codec,
            params["velocity"],
            (params if trained else frozen)["encoder"],
            key,
            {name: batch[name] for name in ("latent", "condition", "group")},
            frozen["source"],
            noise=given.prior.noise,
            trained=trained,
            **matching(given.flow),
        )

    return loss


def _targets_at(given: SimpleNamespace, latents: LatentSpace) -> BatchAt:
    """Batches as those of latents, of the standardised weights that the latents came from."""
    target = latents.target
    x1 = {n: np.asarray(target.normalise(w, OfSet(n))) for n, w in given.weights.items()}
    return batches_of(given, x1, Standardiser(jnp.zeros(()), jnp.ones(())), given.prior)


def draw_both(context: StageContext) -> dict[str, Any]:
    """{"weights": method -> set -> networks, "facts"}: each from its own support draw."""
    given, flow, mended = context.inputs, context.inputs.flow.values, context.inputs.mended
    latents = latents_of(given.codec)
    mended_latents = latents_of(given.codec, mended.values)
    source, codec = _source(given, latents), latents.codec
    encoder = jax.tree.map(jnp.asarray, flow["encoder"])
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
        for number, name in enumerate(names):
            key = draw_key(given.seed, number)
            x0 = own.latents(key, codec, of_start, given.noise, given.samples)
            z = draw(at, name, given.samples, x0)
            weights[method][name] = np.asarray(known.decode(z, OfSet(name)))
    key = draw_key(given.seed, len(names))
    facts = prior_facts(key, source, given.weights, encoder, latents, mended_latents, given.noise)
    return {"weights": weights, "facts": facts}
