"""Networks without a generative model, from the same zoos and conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.flow import density
from flown_jax.weights.joint import JointSpace


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
