"""Losses of head autoencoders and head generators.

Beside the losses of the paper (eq. 1 and 2), each can add the cross-entropy of the decoded heads
on query images of the training tasks (`task_weight`): an autoencoder of weights keeps what is
large, not what classifies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.encoders.losses import vae_loss
from flown_jax.few_shot.codec import HeadCodec
from flown_jax.few_shot.generator import LatentSpace, as_noise_model, as_velocity, regress
from flown_jax.few_shot.space import HeadSpace
from flown_jax.flow import diffusion, matching, sampling
from flown_jax.models import heads as linear

Batch = Mapping[str, Any]
LossAndMetrics = tuple[Array, dict[str, Array]]


def query_log_probs(heads: Array, query: Array) -> Array:
    """Log-probabilities (..., n, q, n) of queries (..., n, q, F) under heads (..., n, F + 1)."""
    flat = query.reshape(*query.shape[:-3], -1, query.shape[-1])
    log_probs = jax.nn.log_softmax(linear.logits(heads, flat))
    return log_probs.reshape(*log_probs.shape[:-2], *query.shape[-3:-1], -1)


def of_true_class(log_probs: Array) -> Array:
    """The entry (..., n, q) of the true class out of log-probabilities (..., n, q, n)."""
    return jnp.einsum("...cqc->...cq", log_probs)


def query_cross_entropy(heads: Array, query: Array) -> Array:
    """Mean cross-entropy of the query images under their task's head, a scalar."""
    return -jnp.mean(of_true_class(query_log_probs(heads, query)))


def codec_loss(
    codec: HeadCodec,
    variables: Any,
    key: Array,
    batch: Batch,
    space: HeadSpace,
    *,
    reconstruction: str,
    kl_weight: float,
    sigma_in: float,
    sigma_lat: float,
    task_weight: float,
) -> LossAndMetrics:
    """Loss of the weight autoencoder (paper eq. 2 with the noise of A.3.2) plus the task loss.

    Args:
      batch: `heads` (B, n, F + 1), `prototypes` (B, n, F), `shot` (B,), `query` (B, n, q, F).
      reconstruction, kl_weight, sigma_in, sigma_lat: see `encoders.losses.vae_loss`.
      task_weight: of the query cross-entropy of the decoded heads.
    """
    base = space.base(batch["prototypes"], batch["shot"])
    loss, aux = vae_loss(
        lambda x1: codec.apply(variables, x1, method="encode"),
        lambda z: codec.apply(variables, z, method="decode"),
        key,
        space.normalise(batch["heads"], base),
        reconstruction=reconstruction,
        kl_weight=kl_weight,
        sigma_in=sigma_in,
        sigma_lat=sigma_lat,
    )
    metrics = {
        "reconstruction": aux["reconstruction"],
        "kl": aux["kl"],
        # Nothing bounds the latent when beta is small: it outgrows a fixed noise.
        "latent_std": jnp.std(aux["latent"]),
    }
    if task_weight:
        heads = space.sharpened(space.restore(aux["w_hat"], base), batch["shot"])
        metrics["task"] = query_cross_entropy(heads, batch["query"])
        loss = loss + task_weight * metrics["task"]
    return loss, metrics


def flow_loss(
    velocity: nn.Module,
    params: Any,
    key: Array,
    batch: Batch,
    latents: LatentSpace,
    *,
    path: Any,
    coupling: Any,
    source: Any,
    condition_noise: float,
    task_weight: float,
) -> LossAndMetrics:
    """Conditional flow matching (paper eq. 1) in the standardised latent, plus the task loss.

    The task loss is the query cross-entropy of the decoded one-step endpoint x_t + (1 - t) v.

    Args:
      batch: `latent` (B, ...), `condition` of (B, n, E), `prototypes`, `shot`, `query`.
      coupling: optimal transport pairs over the whole batch although every task has a condition
        of its own, which biases the flow (`flow.matching`); independent is the sound choice.
      condition_noise: standard deviation of the noise on the condition of one image a class
        (entries have unit variance), over sqrt(shot) of more; prototypes and queries stay clean.
    """
    key_noise, key_flow = jax.random.split(key)
    condition = noisy_condition(key_noise, batch["condition"], condition_noise, batch["shot"])
    loss, aux = matching.cfm_loss(
        as_velocity(velocity, params),
        key_flow,
        batch["latent"],
        condition,
        path=path,
        coupling=coupling,
        source=source,
        groups=jnp.zeros(len(batch["latent"]), jnp.int32),
    )
    metrics = {"cfm": loss}
    if task_weight:
        heads = _decoded(latents, aux["x1_hat"], batch)
        metrics["task"] = query_cross_entropy(heads, batch["query"])
        loss = loss + task_weight * metrics["task"]
    return loss, metrics


def ensemble_loss(
    velocity: nn.Module,
    params: Any,
    key: Array,
    batch: Batch,
    latents: LatentSpace,
    *,
    source: Any,
    condition_noise: float,
    members: int,
    steps: int,
) -> LossAndMetrics:
    """Cross-entropy of the averaged probabilities of several drawn heads, through the solver.

    What is averaged at evaluation is trained here: -log mean_s p(query | head_s), Euler steps.
    """
    key_noise, key_source = jax.random.split(key)
    condition = noisy_condition(key_noise, batch["condition"], condition_noise, batch["shot"])

    def member(key: Array) -> Array:
        x0 = source(key, batch["latent"].shape)
        solution = sampling.sample(as_velocity(velocity, params), x0, condition, steps=steps)
        heads = _decoded(latents, solution.x1, batch)
        return of_true_class(query_log_probs(heads, batch["query"]))

    log_probs = jax.vmap(member)(jax.random.split(key_source, members))
    mixture = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(members)
    loss = -jnp.mean(mixture)
    return loss, {"ensemble": loss}


def diffusion_loss(
    network: nn.Module,
    params: Any,
    key: Array,
    batch: Batch,
    latents: LatentSpace,
    *,
    schedule: diffusion.Schedule,
    condition_noise: float,
    task_weight: float,
) -> LossAndMetrics:
    """The DDPM twin of `flow_loss`: noise prediction, the same network and condition.

    The task loss is taken at the predicted clean latent and weighted by alpha-bar_t, since that
    prediction means little where almost all is noise.
    """
    key_noise, key_steps = jax.random.split(key)
    condition = noisy_condition(key_noise, batch["condition"], condition_noise, batch["shot"])
    loss, aux = diffusion.ddpm_loss(
        as_noise_model(network, params, schedule),
        key_steps,
        batch["latent"],
        condition,
        schedule,
    )
    metrics = {"eps": loss}
    if task_weight:
        x0_hat = diffusion.predict_x0(schedule, aux["eps_hat"], aux["x_t"], aux["t"])
        heads = _decoded(latents, x0_hat, batch)
        log_probs = of_true_class(query_log_probs(heads, batch["query"])).mean((-1, -2))
        weight = jnp.asarray(schedule.alphas_cumprod, log_probs.dtype)[aux["t"]]
        metrics["task"] = -jnp.mean(weight * log_probs)
        loss = loss + task_weight * metrics["task"]
    return loss, metrics


def regression_loss(
    network: nn.Module,
    params: Any,
    key: Array,
    batch: Batch,
    latents: LatentSpace,
    *,
    condition_noise: float,
    task_weight: float,
) -> LossAndMetrics:
    """Condition to head in one step: what a generator must beat.

    Args:
      task_weight: 0 regresses the latent of the training head (mean squared error), anything
        else trains on the queries alone, through the same frozen decoder as the flow.
    """
    condition = noisy_condition(key, batch["condition"], condition_noise, batch["shot"])
    if task_weight:
        shape = batch["latent"].shape[1:]
        heads = regress(network, params, latents, condition, _base(latents, batch), shape)
        heads = latents.space.sharpened(heads, batch["shot"])
        loss = query_cross_entropy(heads, batch["query"])
        return loss, {"task": loss}
    out = network.apply(params, jnp.zeros_like(batch["latent"]), jnp.zeros(()), condition)
    loss = jnp.mean((out - batch["latent"]) ** 2)
    return loss, {"mse": loss}


def noisy_condition(
    key: Array, condition: Mapping[str, Array], scale: float, shot: Array | float = 1
) -> dict[str, Array]:
    """The condition with independent normal noise of deviation scale / sqrt(shot) on its entries.

    Images are what varies: the noise of a class mean falls with their number, and the entry
    `shots`, which counts them, gets none.

    Args:
      condition: named arrays (B, n, E).
      shot: images a class, scalar or (B,).
    """
    names = sorted(condition)
    keys = jax.random.split(key, len(names))
    size = scale / jnp.sqrt(jnp.asarray(shot, jnp.float32))[..., None, None]
    return {
        name: condition[name]
        if name == "shots"
        else condition[name] + size * jax.random.normal(k, condition[name].shape)
        for name, k in zip(names, keys, strict=True)
    }


def _decoded(latents: LatentSpace, z: Array, batch: Batch) -> Array:
    """The heads of latents z, as task losses take them."""
    return latents.space.sharpened(latents.decode(z, _base(latents, batch)), batch["shot"])


def _base(latents: LatentSpace, batch: Batch) -> Array:
    return latents.space.base(batch["prototypes"], batch["shot"])
