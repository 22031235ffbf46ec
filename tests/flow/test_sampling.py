"""Solvers: order, exact step counts, agreement of backends, adaptive independence, refusals."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import SOLVERS, sample
from flown_jax.flow.sampling import cut_index, time_grid

FIXED = [name for name, solver in SOLVERS.items() if not solver.adaptive]
ADAPTIVE = [name for name, solver in SOLVERS.items() if solver.adaptive]


def _logistic(x, t, condition):
    """dx/dt = (1 + t) x (1 - x): nonlinear, time-dependent, solved by the logistic function."""
    del condition
    return (1 + t) * x * (1 - x)


def _logistic_solution(x0, t0, t1):
    growth = np.exp(t1 - t0 + (t1**2 - t0**2) / 2)
    return x0 * growth / (1 - x0 + x0 * growth)


X0 = jnp.array([[0.1, 0.3], [0.5, 0.8], [0.9, 1.4]])


def _count_calls(solve):
    """Number of velocity calls at run time, and the solution."""
    calls = []

    def velocity(x, t, condition):
        jax.debug.callback(lambda: calls.append(1))
        return _logistic(x, t, condition)

    solution = solve(velocity)
    jax.block_until_ready(solution.x1)
    jax.effects_barrier()
    return len(calls), solution


@pytest.mark.parametrize("solver", FIXED)
def test_order_of_convergence(solver):
    """Halving the step divides the error by 2^order."""
    with jax.enable_x64(True):
        x0 = jnp.asarray(np.asarray(X0), jnp.float64)
        exact = _logistic_solution(np.asarray(x0), 0.0, 1.0)
        errors = [
            np.abs(sample(_logistic, x0, solver=solver, steps=n, backend="scan").x1 - exact).max()
            for n in (40, 80)
        ]
    # The next order's term is about 1/40 of the leading one.
    assert np.log2(errors[0] / errors[1]) == pytest.approx(SOLVERS[solver].order, abs=0.15)


@pytest.mark.parametrize("solver", FIXED)
def test_backends_agree_and_count_their_calls(solver):
    def solve(backend):
        return lambda velocity: sample(
            velocity,
            X0,
            solver=solver,
            steps=7,
            save_trajectory=True,
            backend=backend,
        )

    calls, ours = _count_calls(solve("diffrax"))
    calls_scan, twin = _count_calls(solve("scan"))
    np.testing.assert_allclose(ours.x1, twin.x1, rtol=1e-6)
    np.testing.assert_allclose(ours.trajectory, twin.trajectory, rtol=1e-6)
    assert ours.trajectory.shape == (8, *X0.shape)
    np.testing.assert_array_equal(ours.trajectory[0], X0)
    np.testing.assert_array_equal(ours.trajectory[-1], ours.x1)
    assert calls == calls_scan == ours.nfe == twin.nfe == 7 * SOLVERS[solver].stages


@pytest.mark.parametrize(
    ("steps", "t0", "gradient_from"),
    [(1, 0.0, 0.0), (3, 0.3, 0.0), (7, 0.0, 0.4), (49, 0.1, 0.6), (100, 0.9, 0.0), (100, 0.0, 0.9)],
)
def test_n_steps_are_n_steps(steps, t0, gradient_from):
    calls, solution = _count_calls(
        lambda velocity: sample(velocity, X0, steps=steps, t0=t0, gradient_from=gradient_from)
    )
    assert calls == solution.nfe == steps
    # The first grid time not before t', in float32.
    assert -1e-6 < solution.gradient_from - max(gradient_from, t0) < (1 - t0) / steps
    x = np.asarray(X0)
    for t, t_next in zip(*(lambda g: (g[:-1], g[1:]))(time_grid(steps, t0)), strict=True):
        x = x + (t_next - t) * (1 + t) * x * (1 - x)
    np.testing.assert_allclose(solution.x1, x, rtol=1e-5)


def test_grids():
    for n in range(1, 400):
        for t0 in (0.0, 0.4, 0.9):
            grid = time_grid(n, t0)
            assert grid.dtype == np.float32 and len(grid) == n + 1
            assert grid[0] == np.float32(t0) and grid[-1] == 1
    assert time_grid(4, 1.0, 0.0).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_cut_is_the_first_grid_time_not_before():
    for n in (1, 2, 5, 10, 25, 50, 100, 300):
        grid = time_grid(n)
        for t in (0.0, 0.1, 0.2, 0.3, 0.4, 0.55, 0.6, 0.7, 0.9):
            expected = int(np.ceil(t * n - 1e-6))
            if expected < n:
                assert cut_index(grid, t) == expected, (n, t)
    assert cut_index(time_grid(5, 0.5), 0.4) == 0


def test_custom_times_and_trajectory():
    ts = [0.0, 0.1, 0.15, 0.6, 1.0]
    solution = sample(_logistic, X0, solver="rk4", ts=ts, save_trajectory=True)
    expected = np.stack([_logistic_solution(np.asarray(X0), 0.0, t) for t in ts])
    np.testing.assert_allclose(solution.trajectory, expected, rtol=1e-3)
    assert solution.nfe == 16


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "rk4", "steps": 40, "backend": "scan"},
        {"solver": "tsit5", "rtol": 1e-6, "atol": 1e-6},
    ],
)
def test_backwards_returns(options):
    end = sample(_logistic, X0, **options).x1
    back = sample(_logistic, end, t0=1.0, t1=0.0, **options).x1
    np.testing.assert_allclose(back, X0, rtol=1e-5)


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_adaptive_accuracy_and_count(solver):
    calls, solution = _count_calls(
        lambda velocity: sample(velocity, X0[:1], solver=solver, rtol=1e-6, atol=1e-6)
    )
    np.testing.assert_allclose(
        solution.x1, _logistic_solution(np.asarray(X0[:1]), 0.0, 1.0), rtol=1e-5
    )
    assert solution.nfe.shape == (1,) and calls == int(solution.nfe[0])


def _stiff(x, t, rate):
    return rate[:, None] * (jnp.cos(5 * t) - x)


def test_an_adaptive_sample_does_not_depend_on_its_company():
    x0 = jnp.ones((3, 2))
    solve = jax.jit(lambda x, r: sample(_stiff, x, r, solver="tsit5"))
    stiff = solve(x0, jnp.array([1.0, 200.0, 3.0]))
    easy = solve(x0, jnp.array([1.0, 2.0, 3.0]))
    for k in (0, 2):
        np.testing.assert_array_equal(stiff.x1[k], easy.x1[k])
        assert int(stiff.nfe[k]) == int(easy.nfe[k])
    assert int(stiff.nfe[1]) > 3 * int(stiff.nfe[0])
    alone = solve(x0[:1], jnp.array([1.0]))
    # Another batch size is another program, which rounds otherwise.
    np.testing.assert_allclose(stiff.x1[0], alone.x1[0], atol=1e-6)


def test_adaptive_trajectory():
    ts = [0.0, 0.25, 0.7, 1.0]
    solution = sample(
        _logistic, X0, solver="dopri5", ts=ts, save_trajectory=True, gradient_from=0.5
    )
    expected = np.stack([_logistic_solution(np.asarray(X0), 0.0, t) for t in ts])
    np.testing.assert_allclose(solution.trajectory, expected, rtol=1e-3)
    assert solution.gradient_from == 0.5


def test_a_failed_adaptive_solve_is_never_silent():
    rate, x0 = jnp.array([1.0, 5000.0]), jnp.ones((2, 1))
    with pytest.raises(RuntimeError, match="1 of 2 samples: more than max_steps=50"):
        sample(_stiff, x0, rate, solver="tsit5", max_steps=50)
    inside = jax.jit(lambda x: sample(_stiff, x, rate, solver="tsit5", max_steps=50))(x0)
    np.testing.assert_array_equal(inside.success, [True, False])
    np.testing.assert_array_equal(jnp.isnan(inside.x1[:, 0]), [False, True])


class _Network(nn.Module):
    @nn.compact
    def __call__(self, x, t, condition):
        features = jnp.concatenate([x, condition["y"]], -1)
        return nn.Dense(x.shape[-1])(nn.tanh(nn.Dense(8)(features))) * (1 + t)


def test_a_bound_module_is_a_velocity():
    model, y = _Network(), {"y": jnp.arange(3.0)[:, None]}
    variables = model.init(jax.random.key(0), X0, 0.0, y)

    def total(velocity, **options):
        return sample(velocity, X0, y, **options).x1.sum()

    heun = {"solver": "heun", "steps": 4}
    bound = jax.jit(jax.value_and_grad(lambda v: total(model.bind(v), **heun)))(variables)
    applied = jax.jit(
        jax.value_and_grad(lambda v: total(partial(model.apply, v), backend="scan", **heun))
    )(variables)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), bound, applied)
    adaptive = total(model.bind(variables), solver="tsit5")
    np.testing.assert_allclose(adaptive, bound[0], rtol=1e-2)


def test_half_precision_is_integrated_in_float32():
    end = sample(_logistic, X0.astype(jnp.bfloat16), steps=100).x1
    assert end.dtype == jnp.float32


def test_errors():
    def refuses(message, **options):
        with pytest.raises(ValueError, match=message):
            sample(options.pop("velocity", _logistic), options.pop("x0", X0), **options)

    refuses("expected one of euler, heun", solver="rk5")
    refuses("expected diffrax or scan", backend="torch")
    refuses("'tsit5' is adaptive", solver="tsit5", backend="scan")
    refuses("at least 1, got 0", steps=0)
    refuses("strictly increasing or decreasing", ts=[0.0, 0.5, 0.5])
    refuses(r"must lie in \[0, 1\)", gradient_from=1.0)
    refuses(r"must lie in \[0, 1\)", gradient_from=1.0, solver="tsit5")
    refuses("leaves no step", gradient_from=0.95, steps=10)
    refuses("times decrease", gradient_from=0.5, t0=1.0, t1=0.0)
    refuses("needs ts", solver="tsit5", save_trajectory=True)
    refuses("float array", x0=jnp.arange(3))
    refuses(r"batch axis 3 first, got \(2,\)", condition=jnp.zeros(2))
    refuses(r"\(3, 2\), got \(3, 1\)", velocity=lambda x, t, c: x[:, :1])
