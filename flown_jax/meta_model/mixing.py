"""Latents between those of the training weights: what a decoder must know that is flowed into.

A decoder that has seen the members of a zoo alone knows nothing of what lies between them. With
mixes the task loss is taken there, and two more terms say where decoded mixes should lie: near the
same mixes of the weights (`anchor`), and apart from each other (`diversity_weight`). Distance can
be bought with length; what is longer than networks of the zoo is drawn back by `ball_weight`.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

DIVERSITY_FORMS = ("one_sided", "two_sided")


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How a codec's task loss is taken between the members of a batch.

    Attributes:
      mixes: weights that are decoded for each part of a batch.
      members, concentration: see `mixed`.
      anchor: of the squared distance between a decoded mix and the same mix of the weights.
      diversity_weight: of the squared miss of the decoded mixes' distances; without it the task
        loss draws all of them towards one good network.
      diversity_target: the distance that is wanted, in the target's units.
      diversity_form: one_sided misses what is below the target alone, two_sided both sides.
      ball_weight: of the squared length by which decoded mixes leave the ball around the mean
        network whose radius training networks have.
      normal: codes are drawn from N(0, I) in the place of mixes: no network of the zoo is known.
    """

    mixes: int
    members: int
    concentration: float = 1.0
    anchor: float = 0.0
    diversity_weight: float = 0.0
    diversity_target: float = 0.7
    diversity_form: str = "one_sided"
    ball_weight: float = 0.0
    normal: bool = False

    def of(self, key: Array, values: Array, noise: float) -> Array:
        """Mixes (mixes, ...) of values (N, ...); the same members and shares for the same key."""
        if self.normal:
            return jax.random.normal(key, (self.mixes, *values.shape[1:]), values.dtype)
        return mixed(key, values, self.mixes, self.members, noise, self.concentration)


def mixed(
    key: Array,
    latents: Array,
    count: int,
    members: int,
    noise: float,
    concentration: float = 1.0,
) -> Array:
    """Latents (count, ...) between some of N latents (N, ...).

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


def shortfall(x: Array, target: float, form: str = "one_sided") -> Array:
    """Mean over pairs of rows x (N, D) of max(0, target - distance) squared; 0 of a single row.

    Args:
      form: `two_sided` squares the difference on both sides of the target: what is too far apart
        counts as well.
    Raises:
      ValueError: an unknown form.
    """
    if form not in DIVERSITY_FORMS:
        raise ValueError(f"diversity_form is {form!r}; it must be {' or '.join(DIVERSITY_FORMS)}.")
    squares = jnp.sum((x[:, None] - x[None]) ** 2, -1)
    others = ~jnp.eye(len(x), dtype=bool)
    # The gradient of a root at zero is not a number, even where it does not count.
    distance = jnp.sqrt(jnp.where(others, squares, 1.0) + 1e-8)
    miss = target - distance
    short = jnp.where(others, (miss if form == "two_sided" else jax.nn.relu(miss)) ** 2, 0.0)
    return short.sum() / jnp.maximum(others.sum(), 1)


def outside(x: Array, radius: float = 1 / math.sqrt(2)) -> Array:
    """Mean over rows x (N, D) of max(0, length - radius) squared.

    Args:
      x: differences to the mean network, in mean distances of two training networks.
      radius: independent networks at distance 1 of each other lie at 1 / sqrt(2) of their mean.
    """
    length = jnp.sqrt(jnp.sum(x**2, -1) + 1e-8)
    return jnp.mean(jax.nn.relu(length - radius) ** 2)
