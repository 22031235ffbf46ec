"""Losses of weight autoencoders and of the generators in their latent spaces.

Beside the losses of the paper (eq. 1 and 2), each can add the target's task loss of the decoded
weights (`task_weight`): an autoencoder of weights keeps what is large, not what classifies. It is
a second objective and not the paper's; it uses the images and labels of the training tasks.

A batch of a codec has `weights`, `context` and what the task loss takes; one of several parts, such
as data sets whose networks differ in shape, has them in `parts`, a batch by name. A batch of a
generator has `latent` (B, ...), `condition`, named arrays (B, n, E) or None, and, where a task loss
is wanted, `context`, and what the target's task loss takes; optionally `shot` (B,), images behind
each class's condition, and `group` (B,), rows of equal condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.encoders.losses import vae_loss
from flown_jax.flow import diffusion, matching, sampling
from flown_jax.meta_model.condition import noisy_condition
from flown_jax.meta_model.latents import LatentSpace
from flown_jax.meta_model.mixing import Mixing, outside, shortfall
from flown_jax.meta_model.sampling import as_noise_model, as_velocity, regress

Batch = Mapping[str, Any]
LossAndMetrics = tuple[Array, dict[str, Array]]


def codec_loss(
    codec: Any,
    variables: Any,
    key: Array,
    batch: Batch,
    target: Any,
    *,
    reconstruction: str,
    kl_weight: float,
    sigma_in: float,
    sigma_lat: float,
    task_weight: float,
    weights_weight: float = 1.0,
    mixing: Mixing | None = None,
    task_scales: Mapping[str, float] | None = None,
    middles: Mapping[str, Array] | None = None,
) -> LossAndMetrics:
    """Loss of the weight autoencoder (paper eq. 2 with the noise of A.3.2) plus the task loss.

    Args:
      reconstruction, kl_weight, sigma_in, sigma_lat: see `encoders.losses.vae_loss`.
      task_weight: of the task loss of the decoded weights, a mean over the batch's parts; 0 is the
        paper's loss, without mixes.
      weights_weight: of the reconstruction; 0 leaves the task loss alone.
      mixing: take the task loss at mixes of the batch's latents; None takes it at the latents that
        are reconstructed.
      task_scales: of each part's task loss; all 1 without. The metric `task` is without them.
      middles: the mean of each part's training weights (D of the part), which `mixing.ball_weight`
        needs.
    """
    parts = {name: batch["parts"][name] for name in sorted(batch.get("parts", ()))} or {"": batch}
    x1 = {name: target.normalise(part["weights"], part["context"]) for name, part in parts.items()}
    # The same networks see all parts at once.
    every = jnp.concatenate(list(x1.values())) if len(x1) > 1 else next(iter(x1.values()))
    key_mix = key
    if mixing is not None:
        key, key_mix = jax.random.split(key)
    loss, aux = vae_loss(
        lambda x: codec.apply(variables, x, method="encode"),
        lambda z: codec.apply(variables, z, method="decode"),
        key,
        every,
        reconstruction=reconstruction,
        kl_weight=0.0,
        sigma_in=sigma_in,
        sigma_lat=sigma_lat,
    )
    loss = weights_weight * loss + kl_weight * aux["kl"]
    metrics = {
        "reconstruction": aux["reconstruction"],
        "kl": aux["kl"],
        # Nothing bounds the latent when beta is small: it outgrows a fixed noise.
        "latent_std": jnp.std(aux["latent"]),
    }
    if not task_weight:
        return loss, metrics
    means = codec.apply(variables, every, method="encode").mode() if mixing is not None else every
    tasks, scaled, start = [], [], 0
    terms: dict[str, list[Array]] = {"anchor": [], "shortfall": [], "outside": []}
    for number, (name, part) in enumerate(parts.items()):
        own = slice(start, start + len(x1[name]))
        start = own.stop
        if mixing is None:
            decoded = aux["w_hat"][own]
        else:
            key_part = jax.random.fold_in(key_mix, number)
            z = mixing.of(key_part, means[own], sigma_lat)
            decoded = codec.apply(variables, z, method="decode")
            if mixing.anchor:
                anchor = mixing.of(key_part, x1[name], 0.0)
                terms["anchor"].append(jnp.mean((decoded - anchor) ** 2))
            unit = target.unit(part["context"])
            if mixing.diversity_weight:
                short = shortfall(decoded / unit, mixing.diversity_target, mixing.diversity_form)
                terms["shortfall"].append(short)
            if mixing.ball_weight:
                middle = target.normalise(_middle(middles, name)[None], part["context"])
                terms["outside"].append(outside((decoded - middle) / unit))
        weights = target.restore(decoded, part["context"])
        tasks.append(jnp.mean(target.task_loss(weights, part)))
        scaled.append(tasks[-1] * (task_scales[name] if task_scales else 1.0))
    metrics["task"] = jnp.stack(tasks).mean()
    loss = loss + task_weight * jnp.stack(scaled).mean()
    for name, weight in _weights(mixing).items():
        if weight:
            metrics[name] = jnp.stack(terms[name]).mean()
            loss = loss + weight * metrics[name]
    return loss, metrics


def _weights(mixing: Mixing | None) -> dict[str, float]:
    """Of the terms beside the task loss."""
    if mixing is None:
        return {}
    return {
        "anchor": mixing.anchor,
        "shortfall": mixing.diversity_weight,
        "outside": mixing.ball_weight,
    }


def _middle(middles: Mapping[str, Array] | None, name: str) -> Array:
    if middles is None:
        raise ValueError("ball_weight needs the mean of every part's training weights (middles).")
    return jnp.asarray(middles[name])


def flow_loss(
    network: Any,
    params: Any,
    key: Array,
    batch: Batch,
    latents: LatentSpace | None,
    *,
    path: Any,
    coupling: Any,
    source: Any,
    condition_noise: float = 0.0,
    task_weight: float = 0.0,
) -> LossAndMetrics:
    """Conditional flow matching (paper eq. 1) in the standardised latent, plus the task loss.

    The task loss is that of the decoded one-step endpoint x_t + (1 - t) v.

    Args:
      latents: needed by the task loss alone.
      coupling: optimal transport pairs within the batch's groups and is refused without any: over
        different conditions it ties the source to the condition (`flow.matching`).
      condition_noise: standard deviation of the noise on the condition of one image a class
        (entries have unit variance), over sqrt(shot) of more; what the task loss sees stays clean.
    """
    key_noise, key_flow = jax.random.split(key)
    loss, aux = matching.cfm_loss(
        as_velocity(network, params),
        key_flow,
        batch["latent"],
        _noisy(key_noise, batch, condition_noise),
        path=path,
        coupling=coupling,
        source=source,
        groups=batch.get("group"),
    )
    metrics = {"cfm": loss}
    if task_weight:
        metrics["task"] = jnp.mean(_task_loss(latents, aux["x1_hat"], batch))
        loss = loss + task_weight * metrics["task"]
    return loss, metrics


def ensemble_loss(
    network: Any,
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
    """Cross-entropy of the averaged probabilities of several drawn weights, through the solver.

    What is averaged at evaluation is trained here: -log mean_s p(example | weights_s), Euler
    steps. The target's task loss must be an array of cross-entropies, one an example.
    """
    key_noise, key_source = jax.random.split(key)
    condition = _noisy(key_noise, batch, condition_noise)

    def member(key: Array) -> Array:
        x0 = source(key, batch["latent"].shape)
        solution = sampling.sample(as_velocity(network, params), x0, condition, steps=steps)
        return -_task_loss(latents, solution.x1, batch)

    log_probs = jax.vmap(member)(jax.random.split(key_source, members))
    mixture = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(members)
    loss = -jnp.mean(mixture)
    return loss, {"ensemble": loss}


def diffusion_loss(
    network: Any,
    params: Any,
    key: Array,
    batch: Batch,
    latents: LatentSpace | None,
    *,
    schedule: diffusion.Schedule,
    condition_noise: float = 0.0,
    task_weight: float = 0.0,
) -> LossAndMetrics:
    """The DDPM twin of `flow_loss`: noise prediction, the same network and condition.

    The task loss is taken at the predicted clean latent and weighted by alpha-bar_t, since that
    prediction means little where almost all is noise.
    """
    key_noise, key_steps = jax.random.split(key)
    loss, aux = diffusion.ddpm_loss(
        as_noise_model(network, params, schedule),
        key_steps,
        batch["latent"],
        _noisy(key_noise, batch, condition_noise),
        schedule,
    )
    metrics = {"eps": loss}
    if task_weight:
        x0_hat = diffusion.predict_x0(schedule, aux["eps_hat"], aux["x_t"], aux["t"])
        task = _task_loss(latents, x0_hat, batch)
        task = task.mean(tuple(range(1, task.ndim)))
        weight = jnp.asarray(schedule.alphas_cumprod, task.dtype)[aux["t"]]
        metrics["task"] = jnp.mean(weight * task)
        loss = loss + task_weight * metrics["task"]
    return loss, metrics


def regression_loss(
    network: Any,
    params: Any,
    key: Array,
    batch: Batch,
    latents: LatentSpace | None,
    *,
    condition_noise: float = 0.0,
    task_weight: float = 0.0,
) -> LossAndMetrics:
    """Condition to weights in one step: what a generator must beat.

    Args:
      task_weight: 0 regresses the latent of the training weights (mean squared error), anything
        else trains on the task loss alone, through the same frozen decoder as the flow.
    """
    condition = _noisy(key, batch, condition_noise)
    z = regress(network, params, condition, batch["latent"].shape[1:], len(batch["latent"]))
    if task_weight:
        loss = jnp.mean(_task_loss(latents, z, batch))
        return loss, {"task": loss}
    loss = jnp.mean((z - batch["latent"]) ** 2)
    return loss, {"mse": loss}


def _noisy(key: Array, batch: Batch, scale: float) -> dict[str, Array] | None:
    if batch["condition"] is None:
        return None
    return noisy_condition(key, batch["condition"], scale, batch.get("shot", 1))


def _task_loss(latents: LatentSpace | None, z: Array, batch: Batch) -> Array:
    """The target's task loss of the weights that latents z (B, ...) are decoded to."""
    if latents is None:
        raise ValueError("a task loss needs the latent space, whose decoder it goes through.")
    return latents.target.task_loss(latents.decode(z, batch["context"]), batch)
