"""Couplings of source and data batches: independent, and minibatch optimal transport.

A coupling is `coupling(key, x0, x1, groups=None) -> i`, and x0[i] pairs with x1: only the source
moves, so that x1, its conditions and masks never do. Optimal transport over a batch with conditions
ties the source to the condition and biases a conditional flow; within `groups` of equal condition
it does not. The remaining functions are host numpy in float64: plans, pairs drawn from them, and
Wasserstein distances (Tong et al. 2024; Cuturi 2013; Chizat et al. 2018 for unbalanced plans).

All transport is solved by POT (Flamary et al. 2021): the network simplex of Bonneel et al. 2011,
and Sinkhorn's iterations. It is imported at the first use, and not with it the PyTorch, TensorFlow
or CuPy that the program has not imported itself; a program that hands tensors of these to POT
imports them, or POT, first.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.flow.checks import number, whole

Array = jax.Array
Coupling = Callable[..., Array]

_PIVOTS = 1000  # of the network simplex for each sample; 1,024 pairs take fewer than 50 a sample
_EXPONENT = 100  # of a kernel that is far from underflow
_COOLING = 10  # of the entropic strength, from one unbalanced problem to the next


def independent(key: Array, x0: Array, x1: Array, groups: Array | None = None) -> Array:
    """The identity (B,): x0 and x1 were drawn independently."""
    del key, groups
    _check_batches(x0, x1)
    return jnp.arange(x1.shape[0])


def exact_ot(key: Array, x0: Array, x1: Array, groups: Array | None = None) -> Array:
    """Indices i, (B,), that minimise sum |x0[i] - x1|^2 over permutations within groups.

    Solved on the host by POT's network simplex, also inside jit (one callback a call). Costs come
    from one matrix product in float64, right to 1e-15 of the largest squared deviation from a mean.

    Args:
      key: not used; the optimum is unique for continuous data.
      x0, x1: source and data, (B, ...).
      groups: (B,) or (B, ...); only samples with equal entries are exchanged. None: all.
    Raises:
      ValueError: the batches differ in shape, or (from the callback) hold what is not finite.
    """
    del key
    return _on_host(_assign, x0, x1, groups)


def entropic_ot(
    key: Array, x0: Array, x1: Array, groups: Array | None = None, *, reg: float
) -> Array:
    """Indices i, (B,), with x0[i_j] drawn from column j of the Sinkhorn plan of strength `reg`.

    For SB-CFM reg = 2 sigma^2. Each x1 appears once; each x0 once on average. At most 1000
    Sinkhorn iterations: a reg far below the costs leaves the plan short of converged.

    Raises:
      ValueError: as `exact_ot`, or a reg that is not above 0.
    """
    number(reg, "reg", above=0)
    _check_batches(x0, x1)
    u = jax.random.uniform(key, (x1.shape[0],))
    return _on_host(partial(_draw_columns, reg=reg), x0, x1, groups, u)


# `cfm_loss` refuses these with a condition and no groups.
exact_ot.needs_groups = True  # type: ignore[attr-defined]
entropic_ot.needs_groups = True  # type: ignore[attr-defined]


def get_coupling(name: str, *, reg: float | None = None) -> Coupling:
    """The coupling of that name: independent, exact_ot or entropic_ot (which needs `reg`).

    Raises:
      ValueError: the name is unknown, or reg is missing, superfluous or not above 0.
    """
    couplings: dict[str, Coupling] = {
        "independent": independent,
        "exact_ot": exact_ot,
        "entropic_ot": entropic_ot,
    }
    if name not in couplings:
        raise ValueError(f"coupling {name!r} is unknown, expected one of {', '.join(couplings)}.")
    if (name == "entropic_ot") != (reg is not None):
        raise ValueError(f"reg belongs to entropic_ot and only to it, got {reg} for {name!r}.")
    if reg is not None:
        number(reg, "reg", above=0)
        return partial(entropic_ot, reg=reg)
    return couplings[name]


def needs_groups(coupling: Coupling) -> bool:
    """Whether the coupling ties the source to x1, and so needs groups beside a condition."""
    while isinstance(coupling, partial):
        coupling = coupling.func
    return getattr(coupling, "needs_groups", False)


def ot_cost(x0: np.ndarray, x1: np.ndarray, power: int = 2) -> np.ndarray:
    """|x0_i - x1_j|^power between flattened samples, (B0, B1) float64, power 1 or 2."""
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power}.")
    a = np.asarray(x0, np.float64).reshape(len(x0), -1)
    b = np.asarray(x1, np.float64).reshape(len(x1), -1)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"samples of x0 and x1 differ in size: {a.shape[1]} and {b.shape[1]}.")
    from scipy.spatial.distance import cdist

    # Differences, not |a|^2 + |b|^2 - 2 ab: equal samples are at distance 0.
    return cdist(a, b, "sqeuclidean" if power == 2 else "euclidean")


def ot_plan(
    cost: np.ndarray,
    method: str = "exact",
    *,
    reg: float | None = None,
    reg_m: float | None = None,
    iterations: int = 1000,
    tolerance: float = 1e-9,
) -> np.ndarray:
    """Transport plan between uniform weights, (B0, B1) float64.

    Args:
      cost: (B0, B1).
      method: "exact"; "sinkhorn", which needs the entropic strength `reg`; "unbalanced", which
        also needs the marginal strength `reg_m`, and whose mass is below 1.
      iterations, tolerance: of the Sinkhorn iterations; the tolerance is on the marginal's error
        (sinkhorn) or on the scalings' relative change (unbalanced). An unbalanced plan whose
        `reg` is small against the costs is reached over larger ones, with as many iterations each.
    Raises:
      ValueError: an unknown method, a missing strength, costs that are not finite, or strengths so
        small that hardly any mass moves (unbalanced).
    """
    cost = np.asarray(cost, np.float64)
    if cost.ndim != 2 or not cost.size:
        raise ValueError(f"cost must be (B0, B1), neither of them 0, got {cost.shape}.")
    if not np.isfinite(cost).all():
        raise ValueError("the transport problem needs finite costs.")
    whole(iterations, "iterations")
    if method == "exact":
        return _whole_plan(cost.copy()) / math.lcm(*cost.shape)
    if method not in ("sinkhorn", "unbalanced"):
        raise ValueError(f"method {method!r} is unknown, expected exact, sinkhorn or unbalanced.")
    number(reg, f"reg of the method {method!r}", above=0)
    assert reg is not None
    if method == "sinkhorn":
        from_pot = _pot().bregman.sinkhorn_log
        a, b = _uniform(cost)
        return from_pot(a, b, cost, reg, numItermax=iterations, stopThr=tolerance, warn=False)
    number(reg_m, "reg_m of the method 'unbalanced'", above=0)
    assert reg_m is not None
    return _unbalanced(cost, reg, reg_m, iterations, tolerance)


def ot_pair(plan: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j) drawn from the plan with replacement, one for each number in [0, 1).

    By inversion of the cumulative sum of the flattened plan; on average 1/e of the data are absent.

    Args:
      plan: (B0, B1), any positive mass. uniforms: (S,).
    Raises:
      ValueError: the plan holds no mass, negative mass or is not finite, or a number lies outside
        of [0, 1).
    """
    plan, uniforms = np.asarray(plan, np.float64), np.asarray(uniforms, np.float64)
    total = plan.sum()
    if not (np.isfinite(total) and total > 0 and (plan >= 0).all()):
        raise ValueError("the plan has no finite positive mass: raise reg, or use the exact plan.")
    if not ((uniforms >= 0) & (uniforms < 1)).all():
        raise ValueError("pairs are drawn by numbers in [0, 1).")
    cumulative = np.cumsum(plan.ravel()) / total
    k = np.searchsorted(cumulative, uniforms, side="right")
    k = np.minimum(k, plan.size - 1)
    return k // plan.shape[1], k % plan.shape[1]


def wasserstein(x0: np.ndarray, x1: np.ndarray, power: int = 2, reg: float | None = None) -> float:
    """W1 or W2 (the root of the mean squared cost) between two sets of samples.

    Args:
      x0, x1: (B0, ...), (B1, ...). reg: entropic strength of the plan; None: exact.
    """
    cost = ot_cost(x0, x1, power)
    plan = ot_plan(cost) if reg is None else ot_plan(cost, "sinkhorn", reg=reg)
    value = float((plan * cost).sum())
    return value if power == 1 else float(np.sqrt(value))


def _on_host(function: Callable[..., np.ndarray], x0, x1, groups, *more) -> Array:
    _check_batches(x0, x1)
    size = x1.shape[0]
    if groups is None:
        groups = jnp.zeros((size,), jnp.int32)
    elif groups.shape[:1] != (size,):
        raise ValueError(f"groups must have a leading axis of {size}, got {groups.shape}.")
    # Inside a compiled function only the callback knows the values, and JAX wraps what it raises.
    if not any(isinstance(x, jax.core.Tracer) for x in (x0, x1)):
        _check_finite(x0, x1)
    _pot()  # not first inside the callback: importing is no work for the runtime's threads
    arguments = [jax.lax.stop_gradient(jnp.asarray(a)) for a in (x0, x1, groups, *more)]
    result = jax.ShapeDtypeStruct((size,), jnp.int32)
    return jax.pure_callback(function, result, *arguments, vmap_method="sequential")


def _assign(x0, x1, groups) -> np.ndarray:
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (x0, x1))
    _check_finite(a, b)
    indices = np.empty(len(b), np.int32)
    for rows in _group_rows(groups):
        indices[rows] = rows[_partners(a[rows], b[rows])]
    return indices


def _partners(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row of a for each row of b, both (B, D), of the least summed squared distance."""
    # A shift of both moves no distance: about a centre, a matrix product has the digits that
    # differences would have. What depends on one row of b only moves no optimum.
    centre = a.mean(0)
    a, b = a - centre, b - centre
    cost = b @ (-2 * a).T
    cost += (a * a).sum(1)
    plan = _whole_plan(cost)
    partners = plan.argmax(1)
    if np.bincount(partners, minlength=len(a)).max() > 1:
        # No vertex, against the solver's promise: still a permutation, and an optimal one.
        from scipy.optimize import linear_sum_assignment

        partners = linear_sum_assignment(cost)[1]
    return partners


def _draw_columns(x0, x1, groups, u, *, reg: float) -> np.ndarray:
    _check_finite(x0, x1)
    indices = np.empty(len(x1), np.int32)
    for rows in _group_rows(groups):
        plan = ot_plan(ot_cost(np.asarray(x0)[rows], np.asarray(x1)[rows]), "sinkhorn", reg=reg)
        cumulative = np.cumsum(plan, axis=0) / plan.sum(axis=0)
        draws = (cumulative <= np.asarray(u)[rows]).sum(axis=0)
        indices[rows] = rows[np.minimum(draws, len(rows) - 1)]
    return indices


def _group_rows(groups) -> list[np.ndarray]:
    groups = np.asarray(groups)
    rows = groups.reshape(len(groups), -1)
    # Sorting numbers is cheaper than sorting rows.
    axis = 0 if rows.shape[1] > 1 else None
    _, label = np.unique(rows, axis=axis, return_inverse=True)
    label = label.reshape(-1)
    return [np.flatnonzero(label == k) for k in range(label.max() + 1)]


def _whole_plan(cost: np.ndarray) -> np.ndarray:
    """Vertex of the transport polytope, (B0, B1), scaled so that it is made of whole numbers.

    The costs are overwritten by the reduced ones, which have the same optima.

    Its sum is the least common multiple of B0 and B1; for B0 = B1 it is a permutation matrix, also
    where optima tie, because sums and differences of whole numbers are not rounded.
    """
    if not np.isfinite(cost).all():
        raise ValueError("the transport problem needs finite costs.")
    rows, columns = cost.shape
    total = math.lcm(rows, columns)
    a, b = np.full(rows, total / rows), np.full(columns, total / columns)
    # Fewer pivots, and no further array of this size, whose pages take longer than its arithmetic.
    cost -= cost.min(1, keepdims=True)
    cost -= cost.min(0)
    limit = _PIVOTS * (rows + columns)
    plan, log = _pot().emd(a, b, cost, numItermax=limit, log=True, check_marginals=False)
    if log["warning"] is not None:
        raise ValueError(f"the transport problem was not solved in {limit} pivots.")
    return plan


def _unbalanced(
    cost: np.ndarray, reg: float, reg_m: float, iterations: int, tolerance: float
) -> np.ndarray:
    solve = _pot().unbalanced.sinkhorn_unbalanced
    a, b = _uniform(cost)
    reference = a[:, None] * b  # the entropy is relative to it
    f, g = np.zeros_like(a), np.zeros_like(b)
    largest = np.abs(cost[np.isfinite(cost)]).max(initial=0)
    strength = max(reg, largest / _EXPONENT)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # POT says so and returns what it had.
        warnings.filterwarnings("error", "Numerical errors")
        while True:
            # The problem about potentials (f, g) is one of the same form: costs without them, and
            # marginals times exp(-potential / reg_m). Its scalings stay within floating point.
            try:
                _, log = solve(
                    a * np.exp(-f / reg_m),
                    b * np.exp(-g / reg_m),
                    cost - f[:, None] - g,
                    strength,
                    reg_m,
                    c=reference,
                    numItermax=iterations,
                    stopThr=tolerance,
                    log=True,
                )
            except UserWarning:
                raise ValueError(
                    f"reg {reg} and reg_m {reg_m} are too small for costs up to {largest:g}: "
                    "the unbalanced plan holds next to no mass."
                ) from None
            f, g = f + strength * log["logu"], g + strength * log["logv"]
            if strength == reg:
                return reference * np.exp((f[:, None] + g - cost) / reg)
            strength = max(reg, strength / _COOLING)


def _uniform(cost: np.ndarray) -> list[np.ndarray]:
    return [np.full(n, 1 / n) for n in cost.shape]


def _pot() -> Any:
    """POT's package, without the array libraries that it imports wherever they are installed."""
    if "ot" not in sys.modules:
        libraries = {"torch": "PYTORCH", "tensorflow": "TENSORFLOW", "cupy": "CUPY"}
        disable = [
            f"POT_BACKEND_DISABLE_{name}"
            for module, name in libraries.items()
            if module not in sys.modules
        ]
        before = {name: os.environ.get(name) for name in disable}
        os.environ.update(dict.fromkeys(disable, "1"))
        try:
            import ot
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    import ot

    return ot


def _check_finite(x0: Any, x1: Any) -> None:
    if not (np.isfinite(x0).all() and np.isfinite(x1).all()):
        raise ValueError("x0 and x1 must be finite to be paired by optimal transport.")


def _check_batches(x0: Array, x1: Array) -> None:
    if x0.shape != x1.shape or not x0.ndim:
        raise ValueError(f"x0 and x1 must have one shape (B, ...), got {x0.shape} and {x1.shape}.")
