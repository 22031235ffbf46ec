"""What the autoencoder of several zoos and the generators of its latents learn from, by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.evaluation.networks import log_probabilities
from flown_jax.meta_model.latents import Standardiser
from flown_jax.networks.space import OfSet
from flown_jax.weights.joint import JointSpace

BatchAt = Callable[[int], dict[str, Any]]
TARGETS = ("members", "mixes")


@dataclass(frozen=True, eq=False)
class ZooExamples:
    """What is learned from one data set.

    Attributes:
      weights: (N, D of the set), its training networks.
      images: (n, H, W, C) float32, preprocessed training images; labels: (n,). None where no
        task loss is wanted.
    """

    weights: np.ndarray
    images: np.ndarray | None = None
    labels: np.ndarray | None = None


def zoo_batches(
    examples: Mapping[str, ZooExamples], *, seed: int, networks: int, images: int
) -> BatchAt:
    """Batches of the autoencoder: some networks of every data set, and images for the task loss.

    Args:
      networks: of a data set; at most as many as it has.
      images: of a data set, the same for all of its networks; those without images have none.
    """

    def batch_at(i: int) -> dict[str, Any]:
        parts = {}
        for number, (name, part) in enumerate(examples.items()):
            rng = np.random.default_rng((seed, i, number))
            count = min(networks, len(part.weights))
            chosen = rng.permutation(len(part.weights))[:count]
            batch: dict[str, Any] = {"weights": part.weights[chosen], "context": OfSet(name)}
            if part.images is not None and part.labels is not None:
                shown = rng.integers(0, len(part.labels), images)
                batch |= {"images": part.images[shown], "labels": part.labels[shown]}
            parts[name] = batch
        return {"parts": parts}

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
      examples: with images.
      balance: 0 leaves all at 1, the plain mean; 1 makes each cross-entropy a multiple of the
        originals'.
      networks, images: of a data set, on which theirs is measured; the images are drawn by chance.
      floor: in nats, for originals that know their training images by heart.
    """
    found = {}
    for name, part in examples.items():
        assert part.images is not None and part.labels is not None
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(part.labels))[:images]
        log_probs = log_probabilities(
            joint.spec(name), part.weights[:networks], part.images[chosen]
        )
        own = np.take_along_axis(log_probs, part.labels[chosen][None, :, None], -1)
        found[name] = float(max(-own.mean(), floor) ** -balance)
    return found


def latent_batches(
    latents: Mapping[str, np.ndarray],
    statistics: Standardiser,
    conditions: Mapping[str, Mapping[str, np.ndarray]] | None,
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
      conditions: of each set, named arrays (S, n, E) of S support draws; None for generators
        without any.
      batch: latents a step, spread over the sets by chance.
      target: `members` flows to the networks' latents, `mixes` to means of several of a set, as
        `meta_model.mixing.mixed`.
      members, concentration, noise: of a mix.
    Raises:
      UserError: an unknown target.
    """
    if target not in TARGETS:
        raise UserError(f"flow.target is {target!r}; it must be one of {', '.join(TARGETS)}.")
    names = list(latents)

    def batch_at(i: int) -> dict[str, Any]:
        rng = np.random.default_rng((seed, i))
        group = rng.integers(0, len(names), batch)
        rows, known = [], []
        for g in group:
            z = latents[names[g]]
            if conditions is not None:
                own = conditions[names[g]]
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
            "condition": {k: np.stack([c[k] for c in known]) for k in known[0]} if known else None,
            # Optimal transport pairs within a data set only.
            "group": group.astype(np.int32),
        }

    return batch_at
