"""Adjoint matching: a flow tuned to a reward, without a gradient through its solver.

Domingo-Enrich et al., "Adjoint Matching: Fine-tuning Flow and Diffusion Generative Models with
Memoryless Stochastic Optimal Control", 2025. For the straight path x_t = (1 - t) x_0 + t x_1 from a
Gaussian x_0 of deviation tau, the tuned flow's samples follow p(x_1) exp(r(x_1)) / Z, where p is
what the flow before it samples: the paper that this library follows names it as future work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.flow.checks import floats, number, whole
from flown_jax.flow.sampling import Velocity

Reward = Callable[[Array], Array]


class Targets(NamedTuple):
    """What the velocity of a tuned flow is regressed on; a pytree of constants.

    Attributes:
      x: states (K, B, ...) of K steps. t: (K,), their times.
      v: velocities (K, B, ...) that are wanted there.
      weight: (K,), of the squared differences of velocities.
      reward: mean reward of the ends.
    """

    x: Array
    t: Array
    v: Array
    weight: Array
    reward: Array


def memoryless_sample(
    velocity: Velocity,
    key: Array,
    x0: Array,
    condition: Any = None,
    *,
    steps: int,
    temperature: float = 1.0,
) -> tuple[Array, Array]:
    """States (K, B, ...) before each step, and ends (B, ...), of the flow's memoryless SDE.

    dx = (2 v(x, t) - x / t) dt + sigma_t dB with sigma_t^2 = 2 tau^2 (1 - t) / t: at its end
    nothing of its start is left, and its ends are distributed as those of the flow. K steps of
    h = 1 / K after Euler and Maruyama, with 1 / t and sigma^2 at t + h in the denominator, where
    they are finite at t = 0.

    Args:
      x0: (B, ...), draws of the source. condition: as in `sample`.
      temperature: tau, the deviation of the source.
    Raises:
      UserError: x0 that are no floats, no whole number of steps, a temperature not above 0.
    """
    floats(x0, "x0")
    number(temperature, "temperature", above=0)
    grid = _grid(whole(steps, "steps"), temperature, x0.dtype)

    def step(x: Array, of: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        t, kappa, sigma, key = of
        noise = jax.random.normal(key, x.shape, x.dtype)
        drift = 2 * velocity(x, t, condition) - kappa * x
        return x + drift / steps + sigma * jnp.sqrt(1 / steps).astype(x.dtype) * noise, x

    x1, states = jax.lax.scan(step, x0, (*grid, jax.random.split(key, steps)))
    return states, x1


def lean_adjoint(
    base: Velocity,
    reward: Reward,
    states: Array,
    condition: Any = None,
) -> tuple[Array, Array]:
    """Adjoints a (K, B, ...) at the states of K steps, and the mean reward of their ends.

    da/dt = -(d/dx (2 v_base - x / t))^T a backwards from a_1 = -grad r(x_1), where x_1 is the last
    state's own step without noise. One vector-Jacobian product of the base velocity a step.

    Args:
      base: the velocity before tuning.
      reward: r(x_1 (B, ...)) -> (B,), r of a sample depending on that sample alone.
      states: (K, B, ...) as `memoryless_sample` gives them. condition: as in `sample`.
    """
    steps = len(states)
    times, kappa, _ = _grid(steps, 1.0, states.dtype)  # only sigma knows the temperature
    ends = states[-1] + base(states[-1], times[-1], condition) / steps
    rewards, gradient = jax.value_and_grad(lambda x: jnp.sum(reward(x)))(ends)

    def back(a: Array, of: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        x, t, kappa = of
        _, pull = jax.vjp(lambda x: 2 * base(x, t, condition) - kappa * x, x)
        a = a + pull(a)[0] / steps
        return a, a

    _, found = jax.lax.scan(back, -gradient, (states, times, kappa), reverse=True)
    return found, rewards / len(ends)


def adjoint_targets(
    velocity: Velocity,
    base: Velocity,
    reward: Reward,
    key: Array,
    x0: Array,
    condition: Any = None,
    *,
    steps: int = 40,
    temperature: float = 1.0,
) -> Targets:
    """Velocities v_base - sigma_t^2 a_t / 2 at the states that the tuned flow now visits.

    Args:
      velocity, base: the flow as it is, and as it was before tuning.
      reward, x0, condition, steps, temperature: as in `lean_adjoint` and `memoryless_sample`.
    Raises:
      UserError: as `memoryless_sample`.
    """
    x0 = jnp.asarray(x0)
    states, _ = memoryless_sample(
        velocity, key, x0, condition, steps=steps, temperature=temperature
    )
    states = jax.lax.stop_gradient(states)
    adjoint, mean = lean_adjoint(base, reward, states, condition)
    times, _, sigma = _grid(steps, temperature, x0.dtype)
    before = jax.lax.map(lambda of: base(of[0], of[1], condition), (states, times))
    wanted = before - _over(sigma**2 / 2, adjoint) * adjoint
    return jax.lax.stop_gradient(Targets(states, times, wanted, 4 / sigma**2, mean))


def adjoint_matching_loss(
    velocity: Velocity,
    targets: Targets,
    condition: Any = None,
    *,
    chosen: Array | None = None,
    largest: float | None = None,
) -> Array:
    """|2 / sigma_t (v - v_base) + sigma_t a_t|^2, summed over entries, mean over samples and steps.

    Args:
      velocity: the flow that is tuned, with parameters that get the gradient.
      chosen: numbers (n,) of the steps that count, such as those of `drawn_steps`; None for all.
      largest: what a sample's value at a step is cut off at; None for none.
    """
    kept = list(targets[:4])
    if chosen is not None:
        kept = [leaf[chosen] for leaf in kept]

    def at(x: Array, t: Array, v: Array, weight: Array) -> Array:
        square = jnp.square(velocity(x, t, condition) - v).reshape(len(x), -1).sum(1)
        return weight * square

    values = jax.vmap(at)(*kept)
    return jnp.mean(values if largest is None else jnp.minimum(values, largest))


def drawn_steps(key: Array, steps: int, last: int = 10, others: int = 10) -> Array:
    """Numbers of the last steps and of some drawn from those before, in order.

    Raises:
      UserError: more than there are.
    """
    last, others = whole(last, "last", 0), whole(others, "others", 0)
    whole(steps, "steps", max(last + others, 1))
    first = jax.random.permutation(key, steps - last)[:others]
    return jnp.sort(jnp.concatenate([first, jnp.arange(steps - last, steps)]))


def _grid(steps: int, temperature: float, dtype: Any) -> tuple[Array, Array, Array]:
    """Times t, 1 / (t + h) and sigma, (K,) each."""
    t = jnp.arange(steps) / steps
    ahead = t + 1 / steps
    sigma = temperature * jnp.sqrt(2 * (1 - t + 1 / steps) / ahead)
    return t.astype(dtype), (1 / ahead).astype(dtype), sigma.astype(dtype)


def _over(values: Array, like: Array) -> Array:
    return values.reshape(-1, *(1,) * (like.ndim - 1))
