"""The training of a flow from networks of another data set, in two forms (paper, Figure 2).

The paper lets the flow's loss train the encoder that it starts and ends in: the loss then falls,
since latents can be moved towards each other, but the decoder knows nothing of them. The mended
form that A.4.2 suggests trains the autoencoder to reconstruct the prior, too, and leaves it as it
is from then on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flown_jax.encoders.losses import vae_loss
from flown_jax.meta_model import losses
from flown_jax.meta_model.latents import LatentSpace
from flown_jax.meta_model.losses import Batch, LossAndMetrics
from flown_jax.networks.prior import PriorSource
from flown_jax.networks.space import OfSet
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import averaged


def prior_flow_loss(
    velocity: nn.Module,
    codec: nn.Module,
    params: Mapping[str, Any],
    key: Array,
    batch: Batch,
    *,
    noise: float,
    **flow: Any,
) -> LossAndMetrics:
    """Conditional flow matching from latents of the prior to those of the zoos' networks.

    Args:
      params: `velocity`, its parameters, and in the paper's form `encoder`, the codec's variables
        for both ends that are then trained.
      batch: as in `losses.flow_loss`, but `latent` holds standardised joint vectors (B, D);
        `frozen` has `source`, a `PriorSource`, and `encoder`, the codec's other variables, which
        are all in the mended form.
      noise: as in `implant`.
      flow: `path`, `coupling` and `condition_noise`, as in `losses.flow_loss`.
    """
    key_prior, key_flow = jax.random.split(key)
    source = batch["frozen"]["source"]
    encoder = {**batch["frozen"].get("encoder", {}), **params.get("encoder", {})}
    x0 = source.latents(key_prior, codec, encoder, noise, len(batch["latent"]))
    x1 = source.encode(codec, encoder, batch["latent"])
    loss, metrics = losses.flow_loss(
        velocity,
        params["velocity"],
        key_flow,
        {**batch, "latent": x1},
        None,
        source=lambda key, shape: x0,
        **flow,
    )
    return loss, {**metrics, "start_std": jnp.std(x0), "end_std": jnp.std(x1)}


def mended_codec_loss(
    codec: nn.Module,
    variables: Any,
    key: Array,
    batch: Batch,
    source: PriorSource,
    *,
    noise: float,
    count: int,
    weight: float,
    **loss: Any,
) -> LossAndMetrics:
    """`losses.codec_loss` plus the reconstruction of the prior.

    Args:
      source: the prior, and the target space of the zoos; its statistics are not used.
      noise: as in `implant`. count: vectors of the prior a step.
      weight: of their reconstruction, which is measured in units of their mean square: their noise
        is many times the spread of the zoos' weights, and cannot be reconstructed.
      loss: as in `losses.codec_loss`.
    """
    key_zoos, key_prior, key_vae = jax.random.split(key, 3)
    value, metrics = losses.codec_loss(codec, variables, key_zoos, batch, source.target, **loss)
    extra, aux = vae_loss(
        lambda x: codec.apply(variables, x, method="encode"),
        lambda z: codec.apply(variables, z, method="decode"),
        key_vae,
        source.vectors(key_prior, noise, count),
        kl_weight=0.0,
        **{name: loss[name] for name in ("reconstruction", "sigma_in", "sigma_lat")},
    )
    extra = extra / source.mean_square(noise)
    value = value + weight * extra + loss["kl_weight"] * aux["kl"]
    return value, {**metrics, "prior_reconstruction": extra}


def train_recorded(
    context: StageContext,
    name: str,
    params: Any,
    loss: Callable[[Any, Array, Any], LossAndMetrics],
    batch_at: Callable[[int], Any],
    frozen: Any = None,
    *,
    recipe: Recipe,
    seed: int,
    whole: bool = False,
) -> tuple[Any, np.ndarray]:
    """Trained parameters (the average, where one is kept) and the loss of every step, (steps,).

    The losses are part of the run's state: one that was stopped and goes on still has them all.

    Args:
      name: of the run in its stage.
      loss: (params, key, batch) -> (loss, metrics), batch["frozen"] being `frozen`.
      whole: as in `training.recipe.train`.
    """

    def loss_fn(params, key, batch, extra):
        value, metrics = loss(params, key, batch)
        seen = extra["losses"].at[extra["step"]].set(jax.lax.stop_gradient(value))
        return value, (metrics, {"losses": seen, "step": extra["step"] + 1})

    extra = {"losses": jnp.zeros(recipe.steps), "step": jnp.zeros((), jnp.int32)}
    state = train(
        context,
        recipe,
        params,
        loss_fn,
        batch_at,
        seed=seed,
        extra=extra,
        frozen=frozen,
        name=name,
        whole=whole,
    )
    assert state.extra is not None
    return averaged(state), np.asarray(state.extra["losses"])


def curves(found: Mapping[str, np.ndarray], points: int = 500) -> dict[str, np.ndarray]:
    """Curves of losses by step, with `steps`: means of equally many steps, at most `points`."""
    count = len(next(iter(found.values())))
    every = -(-count // points)
    count //= every
    means = {k: v[: count * every].reshape(count, every).mean(1) for k, v in found.items()}
    return {"steps": every * np.arange(1, count + 1), **means}


def prior_facts(
    key: Array,
    source: PriorSource,
    weights: Mapping[str, np.ndarray],
    encoder: Any,
    latents: LatentSpace,
    mended: LatentSpace,
    noise: float,
    count: int = 200,
) -> dict[str, float]:
    """Numbers that explain what became of a prior.

    Standard deviations of the targets' and the prior's latents where the flow trains the encoder
    (`targets_std`, 1 before, and `prior_std`), of the prior's in the mended form
    (`prior_std_mended`), and the share of the targets' spread that the two decoders do not
    reconstruct (`residual`, `residual_mended`).

    Args:
      key: of `count` vectors of the prior, with `noise` as in `implant`.
      weights: targets, (N, D of the set) of each data set.
      encoder: as the flow has trained it.
      latents: of the autoencoder before. mended: of the one that knows the prior.
    """
    arrays = {name: jnp.asarray(w) for name, w in weights.items()}
    of = {name: source.target.normalise(w, OfSet(name)) for name, w in arrays.items()}
    every = jnp.concatenate(list(of.values()))
    of_mended = dataclasses.replace(source, statistics=mended.statistics)
    start = of_mended.latents(key, mended.codec, mended.variables, noise, count)
    found = {
        "targets_std": source.encode(latents.codec, encoder, every).std(),
        "prior_std": source.latents(key, latents.codec, encoder, noise, count).std(),
        "prior_std_mended": start.std(),
    }
    for name, known in (("residual", latents), ("residual_mended", mended)):
        codes = [known.encode(w, OfSet(n)) for n, w in arrays.items()]
        back = known.targets(jnp.concatenate(codes))
        found[name] = jnp.mean((back - every) ** 2) / jnp.mean(every**2)
    return {name: float(value) for name, value in found.items()}
