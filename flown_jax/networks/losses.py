"""Losses of the weight autoencoder over zoos and of the generators in its latent space.

Beside the paper's loss of weights (eq. 2) the autoencoder can be trained with the cross-entropy of
networks that are decoded from mixed latents, on training images of the zoo's data set: networks
between the members then classify, too. It is a second objective and not the paper's; it uses the
images and labels that the zoo was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from flown_jax.encoders.losses import vae_loss
from flown_jax.few_shot.generator import as_noise_model, as_velocity
from flown_jax.few_shot.losses import noisy_condition
from flown_jax.flow import diffusion, matching
from flown_jax.models.many import Logits
from flown_jax.networks.space import ZooSpace

Batch = Mapping[str, Any]
LossAndMetrics = tuple[Array, dict[str, Array]]


def mixed(
    key: Array,
    latents: Array,
    count: int,
    members: int,
    noise: float,
    concentration: float = 1.0,
) -> Array:
    """Latents (count, ...) between some of N latents (N, ...) of one data set.

    Each is a mean of `members` latents, with shares of a symmetric Dirichlet distribution, plus
    normal noise.

    Args:
      members: latents in a mix, at most N; they are different ones.
      noise: standard deviation.
      concentration: of the shares: 1 draws them evenly, two members by U(0, 1); more keeps away
        from the members.
    """
    key_members, key_weights, key_noise = jax.random.split(key, 3)
    total = latents.shape[0]

    def draw(key: Array) -> Array:
        return jax.random.choice(key, total, (members,), replace=False)

    chosen = jax.vmap(draw)(jax.random.split(key_members, count))
    shares = jax.random.dirichlet(key_weights, jnp.full(members, concentration), (count,))
    mean = jnp.einsum("cm,cm...->c...", shares, latents[chosen])
    return mean + noise * jax.random.normal(key_noise, mean.shape, mean.dtype)


def networks_cross_entropy(
    logits: Logits, params: Any, images: Array, labels: Array
) -> tuple[Array, Array]:
    """Mean cross-entropy and accuracy of M networks on the same images, two scalars.

    Args:
      logits: as `models.many.logits` makes it. params: with a leading axis M.
      images: (B, H, W, C), preprocessed. labels: (B,).
    """
    scores = logits(params, images[None])
    targets = jnp.broadcast_to(labels, scores.shape[:2])
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
    return losses.mean(), (scores.argmax(-1) == targets).mean()


def codec_loss(
    codec: nn.Module,
    variables: Any,
    key: Array,
    batch: Batch,
    space: ZooSpace,
    logits: Mapping[str, Logits],
    *,
    reconstruction: str,
    weights_weight: float,
    kl_weight: float,
    sigma_in: float,
    sigma_lat: float,
    task_weight: float,
    mixes: int,
    members: int,
    concentration: float = 1.0,
    anchor: float = 0.0,
    diversity_weight: float = 0.0,
    diversity_target: float = 0.7,
    task_scales: Mapping[str, float] | None = None,
) -> LossAndMetrics:
    """Loss of the weight autoencoder (eq. 2, noise of A.3.2) plus the loss of decoded mixes.

    Args:
      batch: for each data set, `weights` (B, D) standardised, and with a task loss `images`
        (b, H, W, C) and `labels` (b,).
      logits: of each data set's networks, as `models.many.logits` makes it.
      reconstruction, kl_weight, sigma_in, sigma_lat: see `encoders.losses.vae_loss`.
      weights_weight: of the reconstruction; 0 leaves the task loss alone.
      task_weight: of the cross-entropy of decoded mixes; 0 is the paper's loss, without mixes, so
        that anchor and diversity do not count either.
      mixes: networks that are decoded a data set. members, concentration: see `mixed`.
      anchor: of the squared distance between a decoded mix and the same mix of the weights.
      diversity_weight: of the squared shortfall of the decoded mixes' distances; without it the
        task loss draws all of them towards one good network.
      diversity_target: the distance that is wanted, in units of the zoo's own.
      task_scales: of each data set's cross-entropy in the loss, as `training.task_scales` makes
        them; all 1 without. The metric `task` is the mean without them.
    """
    names = sorted(batch["weights"])
    x = jnp.concatenate([batch["weights"][name] for name in names])
    key_vae, key_mix = jax.random.split(key)
    loss, aux = vae_loss(
        lambda x: codec.apply(variables, x, method="encode"),
        lambda z: codec.apply(variables, z, method="decode"),
        key_vae,
        x,
        reconstruction=reconstruction,
        kl_weight=0.0,
        sigma_in=sigma_in,
        sigma_lat=sigma_lat,
    )
    loss = weights_weight * loss + kl_weight * aux["kl"]
    metrics = {
        "reconstruction": aux["reconstruction"],
        "kl": aux["kl"],
        "latent_std": jnp.std(aux["latent"]),
    }
    if task_weight:
        means = codec.apply(variables, x, method="encode").mode()
        sizes = [len(batch["weights"][name]) for name in names]
        losses, scaled, hits, anchors, shortfalls, start = [], [], [], [], [], 0
        for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
            own = slice(start, start + size)
            start += size
            key_set = jax.random.fold_in(key_mix, i)
            z = mixed(key_set, means[own], mixes, members, sigma_lat, concentration)
            decoded = codec.apply(variables, z, method="decode")
            if anchor:
                # The same key: the same members and shares.
                target = mixed(key_set, x[own], mixes, members, 0.0, concentration)
                anchors.append(jnp.mean((decoded - target) ** 2))
            if diversity_weight:
                unit = space.spacing[name]
                shortfalls.append(_shortfall(decoded / unit, diversity_target))
            vectors = space.restore(name, decoded)
            params = jax.vmap(space.joint.spec(name).unflatten)(vectors)["params"]
            value, hit = networks_cross_entropy(
                logits[name], params, batch["images"][name], batch["labels"][name]
            )
            losses.append(value)
            scaled.append(value * (task_scales[name] if task_scales else 1.0))
            hits.append(hit)
        metrics["task"] = jnp.stack(losses).mean()
        metrics["mix_accuracy"] = jnp.stack(hits).mean()
        loss = loss + task_weight * jnp.stack(scaled).mean()
        if anchor:
            metrics["anchor"] = jnp.stack(anchors).mean()
            loss = loss + anchor * metrics["anchor"]
        if diversity_weight:
            metrics["shortfall"] = jnp.stack(shortfalls).mean()
            loss = loss + diversity_weight * metrics["shortfall"]
    return loss, metrics


def flow_loss(
    velocity: nn.Module,
    params: Any,
    key: Array,
    batch: Batch,
    *,
    path: Any,
    coupling: Any,
    source: Any,
    condition_noise: float = 0.0,
) -> LossAndMetrics:
    """Conditional flow matching (paper eq. 1) in the standardised latent.

    Args:
      batch: `latent` (B, ...), `condition` of (B, n, E), `group` (B,) the data set's number:
        optimal transport pairs within a data set only.
      condition_noise: standard deviation of the noise on the condition's entries.
    """
    key_noise, key_flow = jax.random.split(key)
    condition = noisy_condition(key_noise, batch["condition"], condition_noise)
    loss, _ = matching.cfm_loss(
        as_velocity(velocity, params),
        key_flow,
        batch["latent"],
        condition,
        path=path,
        coupling=coupling,
        source=source,
        groups=batch["group"],
    )
    return loss, {"cfm": loss}


def diffusion_loss(
    network: nn.Module,
    params: Any,
    key: Array,
    batch: Batch,
    *,
    schedule: diffusion.Schedule,
    condition_noise: float = 0.0,
) -> LossAndMetrics:
    """The DDPM twin of `flow_loss`: noise prediction, the same network, latents and condition."""
    key_noise, key_steps = jax.random.split(key)
    condition = noisy_condition(key_noise, batch["condition"], condition_noise)
    loss, _ = diffusion.ddpm_loss(
        as_noise_model(network, params, schedule),
        key_steps,
        batch["latent"],
        condition,
        schedule,
    )
    return loss, {"eps": loss}


def _shortfall(x: Array, target: float) -> Array:
    """Mean over pairs of rows x (N, D) of max(0, target - distance) squared; 0 of a single row."""
    squares = jnp.sum((x[:, None] - x[None]) ** 2, -1)
    others = ~jnp.eye(len(x), dtype=bool)
    # The gradient of a root at zero is not a number, even where it does not count.
    distance = jnp.sqrt(jnp.where(others, squares, 1.0) + 1e-8)
    short = jnp.where(others, jax.nn.relu(target - distance) ** 2, 0.0)
    return short.sum() / jnp.maximum(others.sum(), 1)
