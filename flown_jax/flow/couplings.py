"""Couplings of source and data batches: independent, and minibatch optimal transport.

A coupling is `coupling(key, x0, x1, groups=None) -> i`, and x0[i] pairs with x1: only the source
moves, so that x1, its conditions and masks never do. Optimal transport over a batch with conditions
ties the source to the condition and biases a conditional flow; within `groups` of equal condition
it does not. The remaining functions are host numpy in float64: plans, pairs drawn from them, and
Wasserstein distances (Tong et al. 2024; Cuturi 2013; Chizat et al. 2018 for unbalanced plans).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Coupling = Callable[..., Array]


def independent(key: Array, x0: Array, x1: Array, groups: Array | None = None) -> Array:
    """The identity (B,): x0 and x1 were drawn independently."""
    del key, groups
    _check_batches(x0, x1)
    return jnp.arange(x1.shape[0])


def exact_ot(key: Array, x0: Array, x1: Array, groups: Array | None = None) -> Array:
    """Indices i, (B,), that minimise sum |x0[i] - x1|^2 over permutations within groups.

    Solved on the host by scipy's assignment, also inside jit (one callback a call).

    Args:
      key: not used; the optimum is unique for continuous data.
      x0, x1: source and data, (B, ...).
      groups: (B,) or (B, ...); only samples with equal entries are exchanged. None: all.
    Raises:
      ValueError: the batches differ in shape.
    """
    del key
    return _on_host(_assign, x0, x1, groups)


def entropic_ot(
    key: Array, x0: Array, x1: Array, groups: Array | None = None, *, reg: float
) -> Array:
    """Indices i, (B,), with x0[i_j] drawn from column j of the Sinkhorn plan of strength `reg`.

    For SB-CFM reg = 2 sigma^2. Each x1 appears once; each x0 once on average. At most 1000
    Sinkhorn iterations: a reg far below the costs leaves the plan short of converged.
    """
    u = jax.random.uniform(key, (x1.shape[0],))
    return _on_host(partial(_draw_columns, reg=reg), x0, x1, groups, u)


# `cfm_loss` refuses these with a condition and no groups.
exact_ot.needs_groups = True  # type: ignore[attr-defined]
entropic_ot.needs_groups = True  # type: ignore[attr-defined]


def get_coupling(name: str, *, reg: float | None = None) -> Coupling:
    """The coupling of that name: independent, exact_ot or entropic_ot (which needs `reg`).

    Raises:
      ValueError: the name is unknown, or reg is missing or superfluous.
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
    # Row by row: exact differences without a (B0, B1, D) array.
    cost = np.stack([((row - b) ** 2).sum(-1) for row in a])
    return cost if power == 2 else np.sqrt(cost)


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
      iterations, tolerance: of the Sinkhorn iterations, run on log-potentials; the tolerance is on
        the marginal's error (sinkhorn) or on the potentials' relative change (unbalanced).
    Raises:
      ValueError: an unknown method or a missing strength.
    """
    cost = np.asarray(cost, np.float64)
    if cost.ndim != 2:
        raise ValueError(f"cost must be (B0, B1), got {cost.shape}.")
    if method == "exact":
        return _exact_plan(cost)
    if method not in ("sinkhorn", "unbalanced"):
        raise ValueError(f"method {method!r} is unknown, expected exact, sinkhorn or unbalanced.")
    if reg is None or not reg > 0:
        raise ValueError(f"method {method!r} needs reg > 0, got {reg}.")
    if method == "sinkhorn":
        return _sinkhorn(cost, reg, iterations, tolerance)
    if reg_m is None or not reg_m > 0:
        raise ValueError(f"method 'unbalanced' needs reg_m > 0, got {reg_m}.")
    return _unbalanced(cost, reg, reg_m, iterations, tolerance)


def ot_pair(plan: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j) drawn from the plan with replacement, one for each number in [0, 1).

    By inversion of the cumulative sum of the flattened plan; on average 1/e of the data are absent.

    Args:
      plan: (B0, B1), any positive mass. uniforms: (S,).
    Raises:
      ValueError: the plan holds no mass or is not finite.
    """
    plan = np.asarray(plan, np.float64)
    total = plan.sum()
    if not (np.isfinite(total) and total > 0):
        raise ValueError("the plan has no finite positive mass: raise reg, or use the exact plan.")
    cumulative = np.cumsum(plan.ravel()) / total
    k = np.searchsorted(cumulative, np.asarray(uniforms, np.float64), side="right")
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
    arguments = [jax.lax.stop_gradient(jnp.asarray(a)) for a in (x0, x1, groups, *more)]
    result = jax.ShapeDtypeStruct((size,), jnp.int32)
    return jax.pure_callback(function, result, *arguments, vmap_method="sequential")


def _assign(x0, x1, groups) -> np.ndarray:
    from scipy.optimize import linear_sum_assignment

    indices = np.empty(len(x1), np.int32)
    for rows in _group_rows(groups):
        cost = ot_cost(np.asarray(x1)[rows], np.asarray(x0)[rows])
        # Rows of the cost are x1 in order, so the columns are the partners in x0.
        indices[rows] = rows[linear_sum_assignment(cost)[1]]
    return indices


def _draw_columns(x0, x1, groups, u, *, reg: float) -> np.ndarray:
    indices = np.empty(len(x1), np.int32)
    for rows in _group_rows(groups):
        plan = ot_plan(ot_cost(np.asarray(x0)[rows], np.asarray(x1)[rows]), "sinkhorn", reg=reg)
        cumulative = np.cumsum(plan, axis=0) / plan.sum(axis=0)
        draws = (cumulative <= np.asarray(u)[rows]).sum(axis=0)
        indices[rows] = rows[np.minimum(draws, len(rows) - 1)]
    return indices


def _group_rows(groups) -> list[np.ndarray]:
    groups = np.asarray(groups)
    _, label = np.unique(groups.reshape(len(groups), -1), axis=0, return_inverse=True)
    label = label.reshape(-1)
    return [np.flatnonzero(label == k) for k in range(label.max() + 1)]


def _exact_plan(cost: np.ndarray) -> np.ndarray:
    from scipy import optimize, sparse

    rows, columns = cost.shape
    if rows == columns:
        plan = np.zeros_like(cost)
        plan[optimize.linear_sum_assignment(cost)] = 1 / rows
        return plan
    # Unequal sizes: the transport problem as a linear programme over the flattened plan.
    row_sums = sparse.kron(sparse.eye(rows), np.ones((1, columns)))
    column_sums = sparse.kron(np.ones((1, rows)), sparse.eye(columns))
    marginals = np.r_[np.full(rows, 1 / rows), np.full(columns, 1 / columns)]
    solved = optimize.linprog(
        cost.ravel(),
        A_eq=sparse.vstack([row_sums, column_sums]).tocsr(),
        b_eq=marginals,
        method="highs",
    )
    if solved.x is None:
        raise ValueError(f"the transport problem could not be solved: {solved.message}")
    return solved.x.reshape(cost.shape)


def _sinkhorn(cost: np.ndarray, reg: float, iterations: int, tolerance: float) -> np.ndarray:
    from scipy.special import logsumexp

    kernel = -cost / reg
    log_a, log_b = (np.full(n, -np.log(n)) for n in cost.shape)
    f, g = np.zeros(cost.shape[0]), np.zeros(cost.shape[1])
    for iteration in range(iterations):
        g = log_b - logsumexp(kernel + f[:, None], axis=0)
        f = log_a - logsumexp(kernel + g[None, :], axis=1)
        # Rows are exact after the update of f, so only the columns' sums can be wrong.
        if iteration % 10 == 0:
            columns = np.exp(logsumexp(kernel + f[:, None] + g[None, :], axis=0))
            if np.linalg.norm(columns - np.exp(log_b)) < tolerance:
                break
    return np.exp(kernel + f[:, None] + g[None, :])


def _unbalanced(
    cost: np.ndarray, reg: float, reg_m: float, iterations: int, tolerance: float
) -> np.ndarray:
    from scipy.special import logsumexp

    log_a, log_b = (np.full(n, -np.log(n)) for n in cost.shape)
    # The entropy is relative to a b^T, which therefore multiplies the kernel.
    kernel = -cost / reg + log_a[:, None] + log_b[None, :]
    power = reg_m / (reg_m + reg)
    f, g = np.zeros(cost.shape[0]), np.zeros(cost.shape[1])
    for _ in range(iterations):
        previous = f, g
        f = power * (log_a - logsumexp(kernel + g[None, :], axis=1))
        g = power * (log_b - logsumexp(kernel + f[:, None], axis=0))
        if max(np.abs(f - previous[0]).max(), np.abs(g - previous[1]).max()) < tolerance:
            break
    return np.exp(kernel + f[:, None] + g[None, :])


def _check_batches(x0: Array, x1: Array) -> None:
    if x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must have one shape (B, ...), got {x0.shape} and {x1.shape}.")
