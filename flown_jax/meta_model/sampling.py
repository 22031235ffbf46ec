"""Latents from conditions: by a flow, by its diffusion twin, by regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.flow import diffusion, sampling

_AT_ONCE = 5  # samples of a compiled loop's step: a tenth faster on CPU than one by one
Condition = Mapping[str, Array]
Source = Callable[[Array, tuple[int, ...]], Array]


def sample_flow(
    key: Array,
    network: Any,
    params: Any,
    condition: Condition | None,
    *,
    source: Source,
    latent_shape: tuple[int, ...],
    solver: str,
    steps: int,
    temperature: float | Array = 1.0,
    x0: Array | None = None,
    count: int | None = None,
) -> tuple[Array, Array]:
    """One latent (B, ...) for each of B conditions, and the mean number of evaluations.

    Args:
      key: of the source.
      network, params: the velocity.
      condition: named arrays (B, n, E), or None.
      source: x0 = source(key, shape). latent_shape: of one latent.
      solver, steps: as in `flow.sampling.sample`.
      temperature: factor on the source.
      x0: (B, ...), in the place of draws of the source.
      count: B, where there is no condition.
    Raises:
      ValueError: nothing says how many.
    """
    if x0 is None:
        x0 = temperature * source(key, (_many(condition, count), *latent_shape))
    velocity = as_velocity(network, params)
    solution = sampling.sample(velocity, x0, condition, solver=solver, steps=steps)
    return solution.x1, jnp.mean(jnp.asarray(solution.nfe))


def sample_diffusion(
    key: Array,
    network: Any,
    params: Any,
    condition: Condition | None,
    *,
    schedule: diffusion.Schedule,
    latent_shape: tuple[int, ...],
    steps: int | None,
    temperature: float | Array = 1.0,
    count: int | None = None,
    clip_x0: bool = False,
    clip_sample: bool = False,
) -> tuple[Array, Array]:
    """The DDPM twin of `sample_flow`: ancestral steps from normal noise.

    Args:
      steps: None takes all of the schedule.
      temperature: factor on the start and on the noise of every step.
      count: B, where there is no condition.
      clip_x0, clip_sample: to [-1, 1], the predicted data and every step's result (p-diff: both).
    Raises:
      ValueError: nothing says how many.
    """
    key_start, key_steps = jax.random.split(key)
    shape = (_many(condition, count), *latent_shape)
    start = temperature * jax.random.normal(key_start, shape)
    noise = as_noise_model(network, params, schedule)
    solution = diffusion.sample_ddpm(
        noise,
        key_steps,
        start,
        condition,
        schedule,
        steps=steps,
        temperature=temperature,
        clip_x0=clip_x0,
        clip_sample=clip_sample,
    )
    return solution.x1, jnp.asarray(solution.nfe)


def regress(
    network: Any,
    params: Any,
    condition: Condition | None,
    latent_shape: tuple[int, ...],
    count: int | None = None,
) -> Array:
    """One latent (B, ...) a condition by regression: the network at x = 0, t = 0.

    Without a condition there are `count`, all alike.
    """
    zeros = jnp.zeros((_many(condition, count), *latent_shape))
    return network.apply(params, zeros, jnp.zeros(()), condition)


def several(
    draw: Callable[[Array], tuple[Any, Array]], key: Array, samples: int
) -> tuple[Any, Array]:
    """S results of `draw(key) -> (result, nfe)`, and the mean number of evaluations.

    Sample s does not depend on how many are drawn.
    """
    found, nfe = jax.lax.map(draw, sample_keys(key, samples), batch_size=_AT_ONCE)
    return found, nfe.mean()


def each_row(source: Source) -> Source:
    """The source with a key for each row: a row does not depend on how many are drawn."""

    def drawn(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.vmap(lambda k: source(k, (1, *shape[1:]))[0])(sample_keys(key, shape[0]))

    return drawn


def row_by_row(draw: Callable[[Array, Condition], Any], key: Array, condition: Condition) -> Any:
    """`draw(key, condition)` of every row of a condition by itself, with a key of its own."""

    def one(key: Array, row: Condition) -> Any:
        found = draw(key, jax.tree.map(lambda leaf: leaf[None], row))
        return jax.tree.map(lambda leaf: leaf[0] if jnp.ndim(leaf) else leaf, found)

    return jax.vmap(one)(sample_keys(key, rows(condition)), condition)


def sample_keys(key: Array, samples: int) -> Array:
    """A key (samples,) for each sample, the same however many there are."""
    return jax.vmap(lambda s: jax.random.fold_in(key, s))(jnp.arange(samples))


def as_velocity(network: Any, params: Any) -> Callable[[Array, Array, Any], Array]:
    """velocity(x, t, condition) of a module and its variables."""
    return lambda x, t, condition: network.apply(params, x, t, condition)


def as_noise_model(
    network: Any, params: Any, schedule: diffusion.Schedule
) -> Callable[[Array, Array, Any], Array]:
    """eps(x, t, condition) for integer t: the network sees t / T, as the flow's sees [0, 1]."""
    return lambda x, t, condition: network.apply(params, x, t / len(schedule), condition)


def rows(condition: Condition) -> int:
    """B of named arrays (B, n, E)."""
    return jax.tree.leaves(condition)[0].shape[0]


def _many(condition: Condition | None, count: int | None) -> int:
    if count is not None:
        return count
    if condition is None:
        raise ValueError("without a condition, `count` says how many latents are drawn.")
    return rows(condition)
