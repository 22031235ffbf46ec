"""The trained parts: the autoencoder of several zoos, and a generator of its latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.few_shot.codec import Standardiser
from flown_jax.models import many
from flown_jax.networks import losses
from flown_jax.networks.evaluation import log_probabilities
from flown_jax.networks.space import ZooSpace
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import averaged
from flown_jax.weights.joint import JointSpace

BatchAt = Callable[[int], dict[str, Any]]
_TARGETS = ("members", "mixes")


@dataclass(frozen=True, eq=False)
class ZooExamples:
    """What is learned from one data set.

    Attributes:
      weights: (N, D of the set), its training networks.
      images: (n, H, W, C) float32, preprocessed training images; labels: (n,).
    """

    weights: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def codec_batches(
    space: ZooSpace,
    examples: Mapping[str, ZooExamples],
    *,
    seed: int,
    networks: int,
    images: int,
) -> BatchAt:
    """Batches of the autoencoder: some networks of every data set, and images for the task loss.

    Args:
      networks: of a data set; at most as many as it has.
      images: of a data set, the same for all of its networks; 0 for none.
    """
    standard = {k: np.asarray(space.normalise(k, e.weights)) for k, e in examples.items()}

    def batch_at(i: int) -> dict[str, Any]:
        batch: dict[str, Any] = {"weights": {}, "images": {}, "labels": {}}
        for number, (name, part) in enumerate(examples.items()):
            rng = np.random.default_rng((seed, i, number))
            count = min(networks, len(part.weights))
            batch["weights"][name] = standard[name][rng.permutation(len(part.weights))[:count]]
            if images:
                chosen = rng.integers(0, len(part.labels), images)
                batch["images"][name] = part.images[chosen]
                batch["labels"][name] = part.labels[chosen]
        return batch

    return batch_at


def task_scales(
    joint: JointSpace,
    examples: Mapping[str, ZooExamples],
    balance: float,
    *,
    networks: int = 20,
    images: int = 2000,
    floor: float = 0.01,
) -> dict[str, float]:
    """Factors of the data sets' cross-entropies in the task loss: the originals' own, to -balance.

    Where the originals are nearly right on their training images (0.1 nats on MNIST, 1.6 on
    CIFAR-10) a plain mean hardly sees that decoded networks are not.

    Args:
      balance: 0 leaves all at 1, the plain mean; 1 makes each cross-entropy a multiple of the
        originals'.
      networks, images: of a data set, on which theirs is measured; the images are drawn by chance.
      floor: in nats, for originals that know their training images by heart.
    """
    found = {}
    for name, part in examples.items():
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(part.labels))[:images]
        log_probs = log_probabilities(
            joint.spec(name), part.weights[:networks], part.images[chosen]
        )
        own = np.take_along_axis(log_probs, part.labels[chosen][None, :, None], -1)
        found[name] = float(max(-own.mean(), floor) ** -balance)
    return found


def train_codec(
    context: StageContext,
    codec: nn.Module,
    space: ZooSpace,
    batch_at: BatchAt,
    recipe: Recipe,
    *,
    seed: int,
    **loss: Any,
) -> Any:
    """Variables of the weight autoencoder.

    Args:
      codec: with `encode` and `decode`, as `encoders.AutoencoderKL`.
      batch_at: as `codec_batches` makes it.
      loss: as in `losses.codec_loss`.
    """
    specs = {name: space.joint.spec(name) for name in space.joint.names}
    logits = {name: many.logits(spec.module()) for name, spec in specs.items()}
    variables = jax.jit(codec.init)(jax.random.key(seed), jnp.zeros((1, space.joint.size)))

    def loss_fn(params, key, batch, extra):
        value, metrics = losses.codec_loss(
            codec, params, key, batch, batch["frozen"], logits, **loss
        )
        return value, (metrics, extra)

    state = train(context, recipe, variables, loss_fn, batch_at, seed=seed, frozen=space)
    return averaged(state)


def fit_latent_statistics(
    codec: nn.Module, variables: Any, space: ZooSpace, examples: Mapping[str, ZooExamples]
) -> tuple[dict[str, np.ndarray], Standardiser]:
    """Posterior means (N, ...) of every data set's training networks, and their statistics."""
    encode = jax.jit(lambda v, x: codec.apply(v, x, method="encode").mode())
    means = {
        name: np.asarray(encode(variables, space.normalise(name, part.weights)))
        for name, part in examples.items()
    }
    every = jnp.asarray(np.concatenate(list(means.values())))
    return means, Standardiser.fit(every, (0,))


def generator_batches(
    latents: Mapping[str, np.ndarray],
    statistics: Standardiser,
    conditions: Mapping[str, Mapping[str, np.ndarray]],
    *,
    seed: int,
    batch: int,
    target: str,
    members: int,
    concentration: float,
    noise: float,
) -> BatchAt:
    """Batches of the generators: latents of every data set and conditions of the same set.

    Args:
      latents: posterior means (N, ...) of each data set.
      conditions: of each set, named arrays (S, n, E) of S support draws.
      batch: latents a step, spread over the sets by chance.
      target: `members` flows to the networks' latents, `mixes` to means of several of a set, as
        `losses.mixed`.
      members, concentration, noise: of a mix.
    Raises:
      UserError: an unknown target.
    """
    if target not in _TARGETS:
        raise UserError(f"flow.target is {target!r}; it must be one of {', '.join(_TARGETS)}.")
    names = list(latents)

    def batch_at(i: int) -> dict[str, Any]:
        rng = np.random.default_rng((seed, i))
        group = rng.integers(0, len(names), batch)
        rows, known = [], []
        for g in group:
            z, own = latents[names[g]], conditions[names[g]]
            draw = rng.integers(0, len(next(iter(own.values()))))
            known.append({key: value[draw] for key, value in own.items()})
            if target == "members":
                rows.append(z[rng.integers(0, len(z))])
                continue
            chosen = rng.permutation(len(z))[:members]
            shares = rng.dirichlet(np.full(len(chosen), concentration))
            mean = np.tensordot(shares, z[chosen], 1)
            rows.append(mean + noise * rng.standard_normal(mean.shape))
        return {
            "latent": np.asarray(statistics.apply(jnp.asarray(np.stack(rows))), np.float32),
            "condition": {k: np.stack([c[k] for c in known]) for k in known[0]},
            "group": group.astype(np.int32),
        }

    return batch_at


def train_generator(
    context: StageContext,
    network: nn.Module,
    loss: Callable[[Any, jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]],
    batch_at: BatchAt,
    recipe: Recipe,
    *,
    seed: int,
    name: str | None = None,
) -> Any:
    """Parameters of a flow or diffusion network (the average, where one is kept).

    Args:
      loss: (params, key, batch) -> (loss, metrics), of `losses`.
      batch_at: as `generator_batches` makes it.
      name: of the run where a stage has several.
    """
    first = batch_at(0)
    condition = jax.tree.map(lambda a: jnp.asarray(a[:1]), first["condition"])
    x = jnp.zeros_like(jnp.asarray(first["latent"][:1]))
    params = jax.jit(network.init)(jax.random.key(seed), x, jnp.zeros(()), condition)

    def loss_fn(params, key, batch, extra):
        value, metrics = loss(params, key, batch)
        return value, (metrics, extra)

    state = train(context, recipe, params, loss_fn, batch_at, seed=seed, name=name)
    return averaged(state)
