"""The trained parts of every meta-model: its weight autoencoder, and a generator of its latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.meta_model import losses
from flown_jax.meta_model.losses import LossAndMetrics
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import averaged

BatchAt = Callable[[int], dict[str, Any]]
TRAINED = "params"  # the collection of variables that is; the others are fixed before
_FITTED_ON = 64  # weights


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

    The collection "params" is trained. Others are fixed, and are what the codec's `fit` makes of
    training weights before, where it has this method.

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
    space = getattr(target, "target", target)
    variables = jax.jit(codec.init)(jax.random.key(seed), jnp.zeros((1, *space.shape)))
    if hasattr(codec, "fit"):
        variables = codec.fit(variables, first_weights(space, batch_at), space.affine)
    trained, fixed = split(variables)

    def loss_fn(params, key, batch, extra):
        target, fixed = batch["frozen"]
        value, metrics = loss(codec, {**params, **fixed}, key, batch, target, **options)
        return value, (metrics, extra)

    state = train(
        context,
        recipe,
        trained,
        loss_fn,
        batch_at,
        seed=seed,
        frozen=(target, fixed),
        name=name,
        whole=whole or pairs,
    )
    return {**averaged(state), **fixed}


def split(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A codec's variables that are trained, and those that are fixed."""
    fixed = {name: part for name, part in variables.items() if name != TRAINED}
    return {name: part for name, part in variables.items() if name == TRAINED}, fixed


def first_weights(target: Any, batch_at: BatchAt) -> Array:
    """Up to 64 standardised weights (N, ...) of a codec's first batches, of all their parts alike.

    They depend on the batches alone: a run that goes on finds the same. Weights that come again
    count once: of a small zoo the first batches have many twice, and what is fitted on these does
    not fit the others.
    """
    rows: dict[bytes, np.ndarray] = {}
    for step in range(_FITTED_ON):
        batch = batch_at(step)
        for _, part in sorted(batch.get("parts", {"": batch}).items()):
            found = np.asarray(target.normalise(part["weights"], part["context"]))
            rows |= {row.tobytes(): row for row in found}
        if len(rows) >= _FITTED_ON:
            break
    every, count = list(rows.values()), min(_FITTED_ON, len(rows))
    return jnp.asarray(np.stack([every[i] for i in np.arange(count) * len(rows) // count]))


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
