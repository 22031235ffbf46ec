"""Likelihood of data under a flow, and how straight its trajectories are.

log p1(x1) = log p0(x0) - int_0^1 div v dt along the trajectory that ends in x1 (Chen et al. 2018;
Hutchinson's trace estimator: Grathwohl et al. 2019). Straightness: Liu et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.flow.checks import floats
from flown_jax.flow.sampling import sample, time_grid

Array = jax.Array
Velocity = Callable[[Array, Array, Any], Array]


class LogLikelihood(NamedTuple):
    """log p1 of each sample (B,), the source point x0 it came from, (B, ...), and the nfe."""

    log_prob: Array
    x0: Array
    nfe: Any


class PathStatistics(NamedTuple):
    """Per sample (B,): straightness int |x1 - x0 - v|^2 dt, energy int |v|^2 dt, length / chord.

    Straightness is 0 where one Euler step is exact; the ratio of length to chord is then 1, as it
    is of a sample that does not move.
    """

    straightness: Array
    energy: Array
    length_ratio: Array


def log_likelihood(
    velocity: Velocity,
    x1: Array,
    condition: Any = None,
    *,
    log_p0: Callable[[Array], Array],
    probe: Array | None = None,
    **solver_options: Any,
) -> LogLikelihood:
    """Log density of data under the flow, by one solve from t = 1 to 0; differentiable.

    A velocity call here also costs reverse passes: D for the exact divergence, 1 with a probe.

    Args:
      velocity, condition: as in `sample`; sample b of v depends on sample b of x only.
      x1: data, (B, ...).
      log_p0: log density of the source, (B, ...) -> (B,); for instance `Source.log_prob`.
      probe: None for the exact divergence, or signs of x1's shape, fixed during the solve
        (`rademacher`): Hutchinson's unbiased estimate.
      solver_options: `solver`, `steps`, `rtol`, `atol`, `dt0`, `max_steps`, `backend`.
    Raises:
      ValueError: no data; the probe has another shape than x1; see also `sample`.
    """
    floats(x1, "x1")
    if probe is not None and probe.shape != x1.shape:
        raise ValueError(f"the probe must have x1's shape {x1.shape}, got {probe.shape}.")
    size = x1.shape[0]

    def augmented(state: Array, t: Array, args: Any) -> Array:
        condition, probe = args
        x = state[:, :-1].reshape((-1, *x1.shape[1:]))
        v, divergence = _divergence(lambda x: velocity(x, t, condition), x, probe)
        return jnp.concatenate([v.reshape(len(x), -1), divergence[:, None]], axis=1)

    # The last entry of the state is l with dl/dt = div v, so that log p1 = log p0(x0) + l(0).
    state = jnp.concatenate([x1.reshape(size, -1), jnp.zeros((size, 1), x1.dtype)], axis=1)
    end = sample(augmented, state, (condition, probe), t0=1.0, t1=0.0, **solver_options)
    x0 = end.x1[:, :-1].reshape(x1.shape)
    return LogLikelihood(log_p0(x0) + end.x1[:, -1], x0, end.nfe)


def rademacher(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Random signs: a probe for `log_likelihood`."""
    return jax.random.rademacher(key, shape, dtype)


def path_statistics(
    velocity: Velocity,
    x0: Array,
    condition: Any = None,
    *,
    steps: int,
    solver: str = "rk4",
) -> PathStatistics:
    """Straightness, energy and relative length of the trajectories from x0, trapezoidal in time.

    Args:
      velocity, x0, condition: as in `sample`.
      steps, solver: fixed steps; the velocity is evaluated once more at each grid time.
    """
    grid = time_grid(steps)
    states = sample(
        velocity, x0, condition, solver=solver, steps=steps, save_trajectory=True
    ).trajectory
    assert states is not None
    chord = (states[-1] - states[0]).reshape(x0.shape[0], -1)

    def at(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        x, t = pair
        v = velocity(x, t, condition).reshape(x0.shape[0], -1)
        return ((chord - v) ** 2).sum(-1), (v**2).sum(-1)

    bend, speed2 = jax.lax.map(at, (states, jnp.asarray(grid)))
    weights = jnp.asarray(np.convolve(np.diff(grid), [0.5, 0.5]).astype(np.float32))[:, None]
    length = (weights * jnp.sqrt(speed2)).sum(0)
    chord_length = jnp.linalg.norm(chord, axis=-1)
    ratio = jnp.where(length > 0, length / chord_length, 1.0)
    return PathStatistics((weights * bend).sum(0), (weights * speed2).sum(0), ratio)


def _divergence(
    function: Callable[[Array], Array], x: Array, probe: Array | None
) -> tuple[Array, Array]:
    """v and its divergence (B,), exact or with a probe z as z^T J z."""
    v, vjp = jax.vjp(function, x)
    if probe is not None:
        return v, (vjp(probe.astype(v.dtype))[0] * probe).reshape(len(x), -1).sum(-1)
    size = x[0].size
    basis = jnp.eye(size, dtype=v.dtype).reshape(size, *x.shape[1:])

    def diagonal(e: Array) -> Array:
        # Samples are independent, so one cotangent serves the whole batch.
        return (vjp(jnp.broadcast_to(e, v.shape))[0] * e).reshape(len(x), -1).sum(-1)

    return v, jax.vmap(diagonal)(basis).sum(0)
