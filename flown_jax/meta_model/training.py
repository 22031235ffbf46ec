"""The trained parts of every meta-model: its weight autoencoder, and a generator of its latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.meta_model import losses
from flown_jax.meta_model.losses import LossAndMetrics
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import averaged

BatchAt = Callable[[int], dict[str, Any]]


def train_codec(
    context: StageContext,
    codec: Any,
    target: Any,
    batch_at: BatchAt,
    recipe: Recipe,
    *,
    seed: int,
    name: str | None = None,
    loss: Callable[..., LossAndMetrics] = losses.codec_loss,
    whole: bool = False,
    **options: Any,
) -> Any:
    """Variables of the weight autoencoder (the average, where one is kept).

    Args:
      codec: with `encode` and `decode`, see `encoders.codecs`.
      target: the target space; whatever the loss takes in its place has it as `target`.
      batch_at: batch of a step, as the loss takes it.
      name: of the run where a stage has several.
      loss, options: `losses.codec_loss` or one of the same form, and what it takes.
      whole: the batch stays on one device. A batch of several parts always does, and one whose
        members are mixed: such a loss looks at pairs of its batch and is no mean over it.
    """
    pairs = options.get("mixing") is not None or "parts" in batch_at(0)
    shape = getattr(target, "target", target).shape
    variables = jax.jit(codec.init)(jax.random.key(seed), jnp.zeros((1, *shape)))

    def loss_fn(params, key, batch, extra):
        value, metrics = loss(codec, params, key, batch, batch["frozen"], **options)
        return value, (metrics, extra)

    state = train(
        context,
        recipe,
        variables,
        loss_fn,
        batch_at,
        seed=seed,
        frozen=target,
        name=name,
        whole=whole or pairs,
    )
    return averaged(state)


def train_generator(
    context: StageContext,
    network: Any,
    loss: Callable[[Any, Array, Any, Any], LossAndMetrics],
    batch_at: BatchAt,
    recipe: Recipe,
    *,
    seed: int,
    latents: Any = None,
    params: Any = None,
    name: str | None = None,
    whole: bool = False,
) -> Any:
    """Parameters of a flow, diffusion or regression network (the average, where one is kept).

    Args:
      loss: (params, key, batch, latents) -> (loss, metrics), of `losses`.
      batch_at: batch of a step, with `latent` and `condition`.
      latents: the `LatentSpace`, where the loss needs it.
      params: where to start; None initialises.
      name: of the run where a stage has several.
      whole: as in `training.recipe.train`; needed with optimal transport, which pairs a batch.
    """
    if params is None:
        params = initial(network, batch_at, seed)

    def loss_fn(params, key, batch, extra):
        value, metrics = loss(params, key, batch, batch.get("frozen"))
        return value, (metrics, extra)

    state = train(
        context,
        recipe,
        params,
        loss_fn,
        batch_at,
        seed=seed,
        frozen=latents,
        name=name,
        whole=whole,
    )
    return averaged(state)


def initial(network: Any, batch_at: BatchAt, seed: int) -> Any:
    """Parameters of a velocity before its training."""
    first = batch_at(0)
    condition = jax.tree.map(lambda a: jnp.asarray(a[:1]), first["condition"])
    x = jnp.zeros((1, *jnp.shape(first["latent"])[1:]))
    return jax.jit(network.init)(jax.random.key(seed), x, jnp.zeros(()), condition)
