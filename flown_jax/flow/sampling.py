"""Sampling: integrate dx/dt = velocity(x, t, condition) from source to data (paper, sec. 3.1).

Fixed-step solvers run on a grid of given times, so that N steps are N steps from wherever they
start. Gradients can be cut at a time t' (paper, sec. 3.1 and A.4.4, `gradient_from`): the state at
t' is a constant, the steps after it are differentiated. Adaptive solvers choose steps for each
sample alone, so that no sample depends on its company.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.flow.checks import number, whole
from flown_jax.flow.solvers import Solver, diffrax_solver, get_solver, runge_kutta_step

Array = jax.Array
Velocity = Callable[[Array, Array, Any], Array]


class Solution(NamedTuple):
    """End of a solve; a pytree, so it passes through jit.

    Attributes:
      x1: final state, (B, ...).
      nfe: velocity calls: an int for fixed steps, (B,) for adaptive ones (rejected steps included).
      trajectory: states in time, (T, B, ...), or None.
      success: whether the solve finished: True for fixed steps, (B,) for adaptive ones, where a
        failed sample is NaN.
      gradient_from: the grid time at which gradients were cut (the first one not before t'); the
        start of the solve where nothing was cut.
    """

    x1: Array
    nfe: Any
    trajectory: Array | None = None
    success: Any = True
    gradient_from: float = 0.0


def sample(
    velocity: Velocity,
    x0: Array,
    condition: Any = None,
    *,
    solver: str = "euler",
    steps: int = 100,
    t0: float = 0.0,
    t1: float = 1.0,
    ts: Sequence[float] | np.ndarray | None = None,
    gradient_from: float = 0.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    dt0: float = 0.01,
    max_steps: int = 4096,
    save_trajectory: bool = False,
    backend: str = "diffrax",
) -> Solution:
    """Solution of the flow from x0 at t0 to t1.

    Differentiable in reverse mode; `backend="scan"` also in forward mode. Everything but
    `velocity`, `x0` and `condition` is static under jit.

    Args:
      velocity: `velocity(x, t, condition) -> v`, t a scalar; a bound linen module is one. Sample b
        of v may depend on sample b of x and condition only.
      x0: state at t0, (B, ...); half precision is integrated in float32.
      condition: any pytree with leading axis B, or None.
      solver: euler, heun, midpoint, ralston, heun3, rk4, rk4_38 (torchdiffeq's "rk4"), all of fixed
        steps; tsit5 or dopri5, adaptive.
      steps: number of equal steps from t0 to t1, for fixed-step solvers.
      t0, t1: first and last time; t0 > t1 integrates backwards.
      ts: times instead of `steps`, t0 and t1: the grid of a fixed-step solver, one step an
        interval; for an adaptive solver its first and last time and what `save_trajectory` saves.
      gradient_from: t', forwards only: steps that start before t' get no gradient. Off the grid it
        moves up to the next grid time.
      rtol, atol, dt0, max_steps: tolerances, first step and step limit of an adaptive solver.
      save_trajectory: also return the states at all grid times, x0 first.
      backend: "diffrax", or "scan" (a plain `lax.scan`, fixed steps only), equal up to rounding.
    Returns:
      A `Solution`.
    Raises:
      ValueError: an unknown name, a number that is none of what it must be, a grid that is not
        monotone, a t' that leaves no step, a backend that lacks the solver, or a velocity of
        another shape than x0.
      RuntimeError: outside jit, an adaptive solve ran out of steps or met a non-finite state.
    """
    method = get_solver(solver)
    if backend not in ("diffrax", "scan"):
        raise ValueError(f"backend {backend!r} is unknown, expected diffrax or scan.")
    if backend == "scan" and method.adaptive:
        raise ValueError(f"backend 'scan' has fixed steps only, {solver!r} is adaptive.")
    x0 = jnp.asarray(x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating) or x0.ndim == 0:
        raise ValueError(f"x0 must be a float array (B, ...), got {x0.dtype} {x0.shape}.")
    x0 = x0.astype(jnp.promote_types(x0.dtype, jnp.float32))
    _check_velocity(velocity, x0, condition)
    if method.adaptive:
        if save_trajectory and ts is None:
            raise ValueError(
                f"save_trajectory with the adaptive {solver!r} needs ts, times to save."
            )
        grid = time_grid(1, t0, t1, ts, x0.dtype)
        number(rtol, "rtol", least=0)
        number(atol, "atol", least=0)
        number(dt0, "dt0", above=0)
        max_steps = whole(max_steps, "max_steps")
        control = _Adaptive(method, rtol, atol, dt0, max_steps, save_trajectory)
        return _sample_adaptive(velocity, x0, condition, grid, gradient_from, control)
    grid = time_grid(steps, t0, t1, ts, x0.dtype)
    cut = cut_index(grid, gradient_from)
    integrate = _integrate_diffrax if backend == "diffrax" else _integrate_scan
    return _sample_fixed(integrate, method, velocity, x0, condition, grid, cut, save_trajectory)


def time_grid(
    steps: int,
    t0: float = 0.0,
    t1: float = 1.0,
    ts: Sequence[float] | np.ndarray | None = None,
    dtype: Any = np.float32,
) -> np.ndarray:
    """Times of the solve on the host, (steps + 1,), or `ts` checked.

    Raises:
      ValueError: no whole number of steps of at least one, or times that are not finite or not
        strictly monotone in this precision.
    """
    if ts is None:
        steps = whole(steps, "steps")
        # In float64 and rounded once; ends exact.
        fraction = np.arange(steps + 1) / steps
        grid = (t0 * (1 - fraction) + t1 * fraction).astype(dtype)
    else:
        grid = np.asarray(ts, dtype)
    difference = np.diff(grid)
    if grid.ndim != 1 or not (
        len(difference)
        and np.all(np.isfinite(grid))
        and (np.all(difference > 0) or np.all(difference < 0))
    ):
        raise ValueError(
            "times must be at least two, finite, strictly increasing or decreasing, got "
            f"{grid.tolist()}."
        )
    return grid


def cut_index(grid: np.ndarray, gradient_from: float) -> int:
    """Number of leading steps without gradient: those that start before t' = `gradient_from`.

    On N equal steps from 0 to 1 this is ceil(t' N - 1e-6).

    Raises:
      ValueError: t' outside [0, 1), on a reversed grid, or after the start of the last step.
    """
    if not 0 <= gradient_from < 1:
        raise ValueError(f"gradient_from must lie in [0, 1), got {gradient_from}.")
    if gradient_from == 0:
        return 0
    if grid[-1] < grid[0]:
        raise ValueError("gradient_from cuts forward solves only, but the times decrease.")
    slack = 1e-6 * float(np.diff(grid).min())
    # Grid times are float32, so compare at their precision, too.
    slack = max(slack, 2 * float(np.finfo(grid.dtype).eps) * gradient_from)
    cut = int(np.sum(grid.astype(np.float64) < gradient_from - slack))
    if cut >= len(grid) - 1:
        raise ValueError(
            f"gradient_from={gradient_from} leaves no step with a gradient: the last one starts "
            f"at {grid[-2]:.6g}."
        )
    return cut


def _sample_fixed(integrate, method, velocity, x0, condition, grid, cut, save) -> Solution:
    """Two legs on one grid: [0, cut] without gradient and [cut, end] with."""
    x, parts = x0, []
    if cut:
        x, states = integrate(method, velocity, x0, condition, grid[: cut + 1], save, False)
        x = jax.lax.stop_gradient(x)
        if save:
            parts.append(jax.lax.stop_gradient(states[:-1]))
    x, states = integrate(method, velocity, x, condition, grid[cut:], save, True)
    trajectory = jnp.concatenate([*parts, states]) if save else None
    nfe = method.nfe(len(grid) - 1)
    return Solution(x, nfe, trajectory, True, float(grid[cut]))


def _integrate_diffrax(method: Solver, velocity, x0, condition, grid, save, differentiate):
    n = len(grid) - 1
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, args: velocity(x, t, args).astype(x.dtype)),
        diffrax_solver(method),
        # t0 and t1 are taken from the grid itself: StepTo compares them for equality.
        t0=grid[0],
        t1=grid[-1],
        dt0=None,
        y0=x0,
        args=condition,
        stepsize_controller=diffrax.StepTo(grid),
        saveat=diffrax.SaveAt(t0=True, steps=True) if save else diffrax.SaveAt(t1=True),
        # One checkpoint a step: each step is recomputed once, as with jax.checkpoint in a scan.
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=n if differentiate else 1),
        max_steps=n,
        throw=False,
    )
    return solution.ys[-1], (solution.ys if save else None)


def _integrate_scan(method: Solver, velocity, x0, condition, grid, save, differentiate):
    def f(x, t):
        return velocity(x, t, condition).astype(x.dtype)

    def step(x, times):
        x = runge_kutta_step(method, f, x, times[0], times[1])
        return x, (x if save else None)

    body = jax.checkpoint(step, prevent_cse=False) if differentiate else step
    x, states = jax.lax.scan(body, x0, np.stack([grid[:-1], grid[1:]], axis=1))
    return x, (jnp.concatenate([x0[None], states]) if save else None)


@dataclasses.dataclass(frozen=True)
class _Adaptive:
    """Settings of an adaptive solve."""

    method: Solver
    rtol: float
    atol: float
    dt0: float
    max_steps: int
    save: bool


def _sample_adaptive(
    velocity, x0, condition, grid: np.ndarray, gradient_from: float, control: _Adaptive
) -> Solution:
    """One or two legs (before and after t'), each sample with its own steps."""
    # Any t' inside is a leg's end: an adaptive solve has no grid to round it to.
    start, end = float(grid[0]), float(grid[-1])
    if not 0 <= gradient_from < 1:
        raise ValueError(f"gradient_from must lie in [0, 1), got {gradient_from}.")
    if gradient_from <= min(start, end) or gradient_from == 0:
        x1, states, steps, success = _adaptive_leg(velocity, x0, condition, grid, control)
        nfe, cut = control.method.nfe(steps), start
    else:
        if end < start:
            raise ValueError("gradient_from cuts forward solves only, but the times decrease.")
        if gradient_from >= end:
            raise ValueError(f"gradient_from={gradient_from} leaves nothing before the end {end}.")
        cut = float(np.asarray(gradient_from, grid.dtype))
        first = np.append(grid[grid < cut], grid.dtype.type(cut))
        second = np.append(grid.dtype.type(cut), grid[grid > cut])
        x, before, steps, success = _adaptive_leg(velocity, x0, condition, first, control)
        x = jax.lax.stop_gradient(x)
        x1, states, more, success_2 = _adaptive_leg(velocity, x, condition, second, control)
        nfe = control.method.nfe(steps) + control.method.nfe(more)
        success = success & success_2
        if control.save:
            kept = states if cut in grid else states[1:]
            states = jnp.concatenate([jax.lax.stop_gradient(before[:-1]), kept])
    if not isinstance(success, jax.core.Tracer) and not bool(jnp.all(success)):
        raise RuntimeError(
            f"{control.method.name} failed on {int((~success).sum())} of {len(success)} samples: "
            f"more than max_steps={control.max_steps} steps, or a state that is not finite."
        )
    return Solution(x1, nfe, states, success, cut)


def _adaptive_leg(velocity, x0, condition, grid, control: _Adaptive):
    controller = diffrax.PIDController(rtol=control.rtol, atol=control.atol)
    sign = 1.0 if grid[-1] > grid[0] else -1.0
    length = abs(float(grid[-1]) - float(grid[0]))

    def vector_field(t, x, condition):
        batch_of_one = jax.tree.map(lambda leaf: leaf[None], condition)
        return velocity(x[None], t, batch_of_one)[0].astype(x.dtype)

    def solve(x, condition):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(vector_field),
            diffrax_solver(control.method),
            t0=grid[0],
            t1=grid[-1],
            # Given, not left to diffrax, whose default may change between versions.
            dt0=sign * min(control.dt0, length),
            y0=x,
            args=condition,
            stepsize_controller=controller,
            saveat=diffrax.SaveAt(ts=grid) if control.save else diffrax.SaveAt(t1=True),
            adjoint=diffrax.RecursiveCheckpointAdjoint(),
            max_steps=control.max_steps,
            throw=False,
        )
        good = (solution.result == diffrax.RESULTS.successful) & jnp.all(
            jnp.isfinite(solution.ys[-1])
        )
        # Under jit nobody may look at `success`: a failed sample must not look like a result.
        states = jnp.where(good, solution.ys, jnp.nan)
        return states[-1], (states if control.save else None), solution.stats["num_steps"], good

    x1, states, steps, good = jax.vmap(solve)(x0, condition)
    return x1, (jnp.moveaxis(states, 1, 0) if control.save else None), steps, good


def _check_velocity(velocity: Velocity, x0: Array, condition: Any) -> None:
    for leaf in jax.tree.leaves(condition):
        if jnp.shape(leaf)[:1] != x0.shape[:1]:
            raise ValueError(
                f"every leaf of condition must have the batch axis {x0.shape[0]} first, "
                f"got {jnp.shape(leaf)}."
            )
    v = jax.eval_shape(velocity, x0, jax.ShapeDtypeStruct((), x0.dtype), condition)
    if getattr(v, "shape", None) != x0.shape:
        raise ValueError(
            f"the velocity must return x's shape {x0.shape}, got {getattr(v, 'shape', type(v))}."
        )
