"""Networks without a generative model, from the same zoos and conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.errors import UserError
from flown_jax.flow import density
from flown_jax.flow.memorising import memorising_velocity
from flown_jax.flow.sampling import sample
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.matching import matched
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


def averages_of(
    seed: int,
    weights: np.ndarray,
    count: int,
    members: int = 16,
    spec: WeightSpec | None = None,
    images: np.ndarray | None = None,
) -> np.ndarray:
    """Means (count, D) of so many different networks of (N, D), drawn anew for each.

    Args:
      spec, images: of CNNs whose units are matched to those of the first network of each mean, on
        images (B, H, W, C), preprocessed; None takes units as they are.
    Raises:
      UserError: there are fewer networks, or as `weights.matching.matched`.
    """
    _at_least(weights, members, f"averages of {members}")
    rng = np.random.default_rng((seed, 3))
    drawn = np.stack([rng.permutation(len(weights))[:members] for _ in range(count)])
    found = weights[drawn.ravel()]
    if spec is not None and images is not None:
        found = matched(spec, weights[drawn[:, 0].repeat(members)], found, images)
    return found.reshape(count, members, -1).mean(1)


def pair_matched(
    seed: int,
    spec: WeightSpec,
    weights: np.ndarray,
    count: int,
    images: np.ndarray | None,
    shares: str | None = None,
) -> np.ndarray:
    """(1 - a) u + a v of two networks (N, D) whose units are matched to each other, (count, D).

    Two are drawn anew for each. Matched to a reference instead, two copies of one network may get
    other orders.

    Args:
      images: (B, H, W, C), preprocessed, on which the units of CNNs are matched; None leaves them
        as they are, such as those of a part of a network, which the rest holds in place.
      shares: None for a = 1/2, `uniform` for a drawn from U(0, 1).
    Raises:
      UserError: fewer than two networks, other shares, as `weights.matching.matched`.
    """
    _at_least(weights, 2, "averages of two")
    if shares not in (None, "uniform"):
        raise UserError(f"shares of two networks are None or 'uniform', not {shares!r}.")
    rng = np.random.default_rng((seed, 4))
    pairs = np.stack([rng.permutation(len(weights))[:2] for _ in range(count)])
    share = np.full(count, 0.5) if shares is None else rng.uniform(size=count)
    first, second = weights[pairs[:, 0]], weights[pairs[:, 1]]
    if images is not None:
        second = matched(spec, first, second, images)
    share = share[:, None].astype(first.dtype)
    return (1 - share) * first + share * second


def tensor_scales(spec: WeightSpec, weights: np.ndarray) -> np.ndarray:
    """Standard deviation of each tensor's values about those of the mean network, (D,).

    One number for all values of a tensor: the root of their mean variance over networks (N - 1).

    Args:
      weights: (N, D).
    Raises:
      UserError: fewer than two networks.
    """
    _at_least(weights, 2, "a deviation")
    variance = weights.var(0, ddof=1, dtype=np.float64)
    for place in spec.slices.values():
        variance[place] = variance[place].mean()
    return np.sqrt(variance).astype(weights.dtype)


def noisy(
    seed: int, weights: np.ndarray, count: int, scale: np.ndarray, strength: float
) -> np.ndarray:
    """Networks of (N, D) with Gaussian noise of deviation strength * scale, (count, D).

    No network is taken twice before all were taken once.

    Args:
      scale: (D,), such as that of `tensor_scales`.
    """
    rng = np.random.default_rng((seed, 5))
    rounds = -(-count // len(weights))
    rows = np.concatenate([rng.permutation(len(weights)) for _ in range(rounds)])[:count]
    noise = rng.standard_normal((count, weights.shape[1]), np.float32)
    return weights[rows] + np.asarray(strength * scale, weights.dtype) * noise


def gaussian(seed: int, weights: np.ndarray, count: int) -> np.ndarray:
    """Draws (count, D) with the mean and the deviation (N - 1) of each weight over (N, D).

    Raises:
      UserError: fewer than two networks.
    """
    _at_least(weights, 2, "a deviation")
    rng = np.random.default_rng((seed, 6))
    mean, std = weights.mean(0, dtype=np.float64), weights.std(0, ddof=1, dtype=np.float64)
    noise = rng.standard_normal((count, weights.shape[1]), np.float32)
    return (mean + std * noise).astype(weights.dtype)


def pca_gaussian(seed: int, weights: np.ndarray, count: int, components: int) -> np.ndarray:
    """Gaussian draws (count, D) along the first principal components of networks (N, D).

    Raises:
      UserError: N networks have fewer than so many, N - 1 at most.
    """
    _at_least(weights, components + 1, f"{components} principal components")
    rng = np.random.default_rng((seed, 7))
    mean = weights.mean(0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(weights - mean, full_matrices=False)
    std = singular[:components] / np.sqrt(len(weights) - 1)
    latents = std * rng.standard_normal((count, len(std)))
    return (mean + latents @ axes[:components]).astype(weights.dtype)


def memorised(key: Array, weights: np.ndarray, count: int, steps: int) -> np.ndarray:
    """Networks (count, D) of the flow that copies: see `flow.memorising`.

    It runs on weights with mean 0 and deviation 1 in each dimension over the networks (N, D), by
    so many equal Euler steps. With few steps and few dimensions it has not decided for a network
    before the last step, and ends on a mean of several.
    """
    mean, std = weights.mean(0, dtype=np.float64), weights.std(0, dtype=np.float64)
    std = np.where(std > 0, std, 1.0)
    data = jnp.asarray((weights - mean) / std, jnp.float32)
    x0 = jax.random.normal(key, (count, weights.shape[1]))
    velocity = memorising_velocity(data)
    found = jax.jit(lambda x0: sample(velocity, x0, steps=steps, backend="scan").x1)(x0)
    return (mean + std * np.asarray(found)).astype(weights.dtype)


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


def _at_least(weights: np.ndarray, count: int, what: str) -> None:
    if len(weights) < count:
        raise UserError(
            f"{what} cannot be had of {len(weights)} networks, only of {count} or more."
        )
