"""Gradients through the solve: finite differences, closed form, and the cut at t'."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import sample

BACKENDS = ["diffrax", "scan"]


def _loss(params, x0, condition=None, **options):
    def velocity(x, t, condition):
        v = x @ params["A"].T + t * params["b"]
        return v if condition is None else v + condition

    return sample(velocity, x0, condition, **options).x1


def _problem(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"A": 0.5 * jax.random.normal(keys[0], (3, 3)), "b": jax.random.normal(keys[1], (3,))}
    x0, c = jax.random.normal(keys[2], (4, 3)), jax.random.normal(keys[3], (4, 3))
    return jax.tree.map(lambda a: a.astype(dtype), (params, x0, c))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("start", [0.0, 0.4])
def test_closed_form_of_euler(backend, start):
    """dL/dA = h sum_{n >= m} lambda_n x_n^T, lambda_n = (G^T)^{N-1-n} c, G = I + h A."""
    params, x0, c = _problem()
    steps, h = 7, 1 / 7
    m = int(np.ceil(start * steps - 1e-6))
    a, b = (np.asarray(params[k], np.float64) for k in "Ab")
    g, x, states = np.eye(3) + h * a, np.asarray(x0, np.float64), []
    for n in range(steps):
        states.append(x)
        x = x @ g.T + h * n * h * b
    d_a, d_b, adjoint = np.zeros((3, 3)), np.zeros(3), np.asarray(c, np.float64)
    for n in reversed(range(m, steps)):
        d_a += h * adjoint.T @ states[n]
        d_b += h * n * h * adjoint.sum(0)
        adjoint = adjoint @ g

    def loss(params, x0):
        x1 = _loss(params, x0, steps=steps, gradient_from=start, backend=backend)
        return jnp.sum(c * x1), x1

    (_, x1), (gradient, d_x0) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x0)
    np.testing.assert_allclose(x1, x, rtol=1e-5, atol=1e-6)  # the cut leaves the value alone
    np.testing.assert_allclose(gradient["A"], d_a, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient["b"], d_b, rtol=1e-5, atol=1e-5)
    if m:
        np.testing.assert_array_equal(d_x0, 0)
    else:
        np.testing.assert_allclose(d_x0, adjoint, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("solver", "backend"), [("heun", "diffrax"), ("rk4_38", "scan")])
def test_finite_differences(solver, backend):
    with jax.enable_x64(True):
        params, x0, c = _problem(jnp.float64)

        @jax.jit
        def loss(a):
            x1 = sample(
                lambda x, t, _: jnp.tanh(x @ a.T + t),
                x0,
                solver=solver,
                steps=4,
                backend=backend,
            ).x1
            return jnp.sum(c * x1)

        direction = jax.random.normal(jax.random.key(5), (3, 3), jnp.float64)
        h = 1e-5
        slope = (loss(params["A"] + h * direction) - loss(params["A"] - h * direction)) / (2 * h)
        gradient = jnp.sum(jax.grad(loss)(params["A"]) * direction)
    np.testing.assert_allclose(gradient, slope, rtol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_condition_gets_the_second_leg_only(backend):
    """v = y moves x by y, of which the fraction 1 - m/N is differentiated."""
    y = jnp.array([[2.0], [3.0]])
    gradient = jax.grad(
        lambda y: sample(
            lambda x, t, y: y, jnp.zeros((2, 1)), y, steps=10, gradient_from=0.3, backend=backend
        ).x1.sum()
    )(y)
    np.testing.assert_allclose(gradient, 0.7, rtol=1e-5)


def test_adaptive_cut():
    """v = a x: dx1/da would be x1; with the cut it is (1 - t') x1, and nothing reaches x0."""
    x0, start = jnp.array([[1.0], [2.0]]), 0.37

    @jax.jit
    def total(a, x0):
        options = {"solver": "tsit5", "rtol": 1e-6, "atol": 1e-6, "max_steps": 64}
        return sample(lambda x, t, _: a * x, x0, gradient_from=start, **options).x1.sum()

    x1, (d_a, d_x0) = jax.value_and_grad(total, (0, 1))(0.5, x0)
    np.testing.assert_allclose(x1, 3 * np.exp(0.5), rtol=1e-5)
    np.testing.assert_allclose(d_a, (1 - start) * x1, rtol=1e-4)
    np.testing.assert_array_equal(d_x0, 0)


def test_trajectory_before_the_cut_is_constant():
    gradient = jax.grad(
        lambda a: (
            sample(
                lambda x, t, _: a * jnp.ones_like(x),
                jnp.zeros((1, 1)),
                steps=4,
                gradient_from=0.5,
                save_trajectory=True,
                backend="scan",
            )
            .trajectory[:3]
            .sum()
        )
    )(1.0)
    assert float(gradient) == 0


def test_forward_mode_with_scan():
    params, x0, _ = _problem()

    def end(x):
        return _loss(params, x, steps=3, backend="scan").sum()

    _, forward = jax.jvp(end, (x0,), (jnp.ones_like(x0),))
    np.testing.assert_allclose(forward, jax.grad(end)(x0).sum(), rtol=1e-5)
