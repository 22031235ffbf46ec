"""Networks without a generative model, from the same zoos and conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.flow import density
from flown_jax.networks.tuning import Training, train_with_rates
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec


def handed_out(
    seed: int, joint: JointSpace, name: str, sets: Sequence[str], weights: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Training networks (S, D of the set), each drawn from the set that retrieval names.

    Args:
      name: of the set that they are for; networks of another set are read as this one's.
      sets: S names, such as those of `conditions.nearest_set`.
      weights: (N, D of the set) of each set.
    """
    rng = np.random.default_rng((seed, 1))
    found = []
    for chosen in sets:
        one = weights[chosen][rng.integers(0, len(weights[chosen]))][None]
        found.append(joint.extract(name, jnp.asarray(joint.embed(chosen, one)))[0])
    return np.asarray(found)


def averages(seed: int, weights: np.ndarray, count: int) -> np.ndarray:
    """Means (count, D) of two of the networks (N, D), other two for each."""
    rng = np.random.default_rng((seed, 2))
    pairs = [rng.permutation(len(weights))[:2] for _ in range(count)]
    return np.stack([weights[pair].mean(0) for pair in pairs])


def from_density(
    key: Array, latents: Mapping[str, Array], sets: Sequence[str], bandwidth: float | str
) -> Array:
    """Latents (S, ...) by kernel density, each of the set that retrieval names.

    Args:
      latents: (N, ...) of each set. sets: S names.
      bandwidth: as in `flow.density.sample`.
    """
    draws = [
        density.sample(jax.random.fold_in(key, i), latents[chosen], bandwidth)
        for i, chosen in enumerate(sets)
    ]
    return jnp.stack(draws)


def train_starts(
    context: StageContext,
    spec: WeightSpec,
    starts: Mapping[str, np.ndarray],
    data: Training,
    *,
    name: str,
    seed: int,
    steps: int,
    batch: int,
    rates: Sequence[float],
    tuned_on: int,
) -> dict[str, np.ndarray]:
    """The same starts after some steps of training with Adam, by name.

    The learning rate of each kind of start is chosen on validation images.

    Args:
      starts: kind -> (S, D). data: the set's images.
      name: of the set; runs of a stage differ in it.
      seed: of the order of the images.
      rates: learning rates. tuned_on: starts of a kind that choose among them.
    """
    order = np.random.default_rng((seed, 3)).permutation(len(data.labels))
    # One epoch of as many images as the steps take.
    rows = np.resize(order, steps * batch)
    counts = [len(weights) for weights in starts.values()]
    tried = {kind: weights[:tuned_on] for kind, weights in starts.items()}
    _, found = train_with_rates(
        context,
        spec,
        starts,
        tried,
        rates,
        dataclasses.replace(data, images=data.images[rows], labels=data.labels[rows]),
        seeds=(range(len(rates) * sum(map(len, tried.values()))), range(sum(counts))),
        epochs=(1,),
        tuned_at=1,
        names=(f"{name}-rates", name),
        optimizer=Recipe(steps=steps, batch=batch, learning_rate=1.0, optimizer="adam"),
        batch=batch,
    )
    return dict(zip(starts, np.split(found["weights"][0], np.cumsum(counts)[:-1]), strict=True))
