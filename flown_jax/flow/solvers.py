"""Runge-Kutta solvers by name: one table for the diffrax and the scan backend.

Fixed-step solvers are explicit Runge-Kutta methods; where diffrax lacks one (the classical RK4, the
3/8 rule that torchdiffeq calls "rk4", Heun's third-order method) its tableau is given to diffrax
here. Coefficients: Hairer, Norsett and Wanner, "Solving ordinary differential equations I", II.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import numpy as np

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Solver:
    """A method's name, order, velocity calls a step, and coefficients (None: adaptive).

    `extra_calls` counts calls outside the steps: the first stage of a first-same-as-last method.
    """

    name: str
    order: int
    stages: int
    a: tuple[tuple[float, ...], ...] | None = None
    b: tuple[float, ...] | None = None
    extra_calls: int = 0

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its steps from tolerances."""
        return self.b is None

    def nfe(self, steps: Any) -> Any:
        """Velocity calls of that many steps, rejected ones included."""
        return steps * self.stages + self.extra_calls


SOLVERS = {
    s.name: s
    for s in (
        Solver("euler", 1, 1, (), (1.0,)),
        Solver("heun", 2, 2, ((1.0,),), (0.5, 0.5)),
        Solver("midpoint", 2, 2, ((0.5,),), (0.0, 1.0)),
        Solver("ralston", 2, 2, ((2 / 3,),), (0.25, 0.75)),
        Solver("heun3", 3, 3, ((1 / 3,), (0.0, 2 / 3)), (0.25, 0.0, 0.75)),
        Solver("rk4", 4, 4, ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
        Solver(
            "rk4_38",
            4,
            4,
            ((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
            (1 / 8, 3 / 8, 3 / 8, 1 / 8),
        ),
        Solver("tsit5", 5, 6, extra_calls=1),
        Solver("dopri5", 5, 6, extra_calls=1),
    )
}
_DIFFRAX = {
    "euler": diffrax.Euler,
    "heun": diffrax.Heun,
    "midpoint": diffrax.Midpoint,
    "ralston": diffrax.Ralston,
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
}


def get_solver(name: str) -> Solver:
    """The solver of that name.

    Raises:
      ValueError: the name is unknown.
    """
    if name not in SOLVERS:
        raise ValueError(f"solver {name!r} is unknown, expected one of {', '.join(SOLVERS)}.")
    return SOLVERS[name]


def diffrax_solver(solver: Solver) -> diffrax.AbstractSolver:
    """The diffrax object of a solver."""
    if solver.name in _DIFFRAX:
        return _DIFFRAX[solver.name]()
    return _ERK[solver.name]()


def runge_kutta_step(
    solver: Solver, f: Callable[[Array, Array], Array], x: Array, t: Array, t_next: Array
) -> Array:
    """State at `t_next` after one step of a fixed-step solver on dx/dt = f(x, t)."""
    assert solver.a is not None and solver.b is not None
    h = t_next - t
    slopes = [f(x, t)]
    for row in solver.a:
        stage = x + h * _combine(row, slopes)
        slopes.append(f(stage, t + sum(row) * h))
    return x + h * _combine(solver.b, slopes)


def _combine(weights: tuple[float, ...], slopes: list[Array]) -> Array:
    return sum(w * k for w, k in zip(weights, slopes, strict=True) if w != 0.0)  # type: ignore[return-value]


def _explicit_runge_kutta(solver: Solver) -> type[diffrax.AbstractERK]:
    """A diffrax solver class of that tableau, without an error estimate."""
    assert solver.a is not None and solver.b is not None
    coefficients = diffrax.ButcherTableau(
        c=np.array([sum(row) for row in solver.a]),
        b_sol=np.array(solver.b),
        b_error=np.zeros(len(solver.b)),
        a_lower=tuple(np.array(row) for row in solver.a),
    )

    class ExplicitRungeKutta(diffrax.AbstractERK):
        tableau = coefficients
        interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

        def order(self, terms):
            del terms
            return solver.order

    ExplicitRungeKutta.__name__ = ExplicitRungeKutta.__qualname__ = f"ERK_{solver.name}"
    return ExplicitRungeKutta


# Classes, not instances: made once so that jit finds the same solver type in every call.
_ERK = {
    name: _explicit_runge_kutta(SOLVERS[name])
    for name in SOLVERS
    if not SOLVERS[name].adaptive and name not in _DIFFRAX
}
