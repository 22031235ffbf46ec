"""Likelihood against closed forms, its gradient, and trajectory statistics."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flown_jax.flow import get_source, log_likelihood, path_statistics, rademacher, sample

GAUSSIAN = get_source("gaussian")
M, S = 0.7, 0.5


def _gaussian_velocity(x, t, condition):
    """Marginal velocity from N(0, 1) to N(M, S^2) on the linear path; M comes as a condition."""
    c = (t * S**2 - (1 - t)) / (t**2 * S**2 + (1 - t) ** 2)
    return condition + c * (x - t * condition)


@pytest.mark.parametrize("options", [{"solver": "tsit5"}, {"solver": "rk4", "steps": 20}])
def test_gaussian(options):
    x1 = jnp.array([[0.3, 1.0], [0.9, -0.5], [2.0, 0.7]])
    y = jnp.full((3, 1), M)
    result = jax.jit(
        lambda x1: log_likelihood(_gaussian_velocity, x1, y, log_p0=GAUSSIAN.log_prob, **options)
    )(x1)
    expected = stats.norm(M, S).logpdf(x1).sum(-1)
    np.testing.assert_allclose(result.log_prob, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(result.x0, (x1 - M) / S, rtol=1e-3, atol=1e-3)


def _coupled(a):
    return lambda x, t, _: jnp.tanh(x @ a.T) + t


def test_hutchinson_averages_to_the_exact_trace():
    """Over all signs z the mean of z^T J z is tr J, here over a whole solve (one Euler step)."""
    a = jax.random.normal(jax.random.key(0), (3, 3))
    x1 = jax.random.normal(jax.random.key(1), (4, 3))
    options = {"log_p0": GAUSSIAN.log_prob, "solver": "euler", "steps": 1, "backend": "scan"}
    exact = log_likelihood(_coupled(a), x1, **options).log_prob
    signs = jnp.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    estimates = [
        log_likelihood(_coupled(a), x1, probe=jnp.broadcast_to(z, x1.shape), **options).log_prob
        for z in signs
    ]
    np.testing.assert_allclose(np.mean(estimates, 0), exact, rtol=1e-5)
    assert np.std(estimates, 0).max() > 0.1
    probe = rademacher(jax.random.key(2), (4, 3))
    np.testing.assert_array_equal(jnp.abs(probe), 1)
    with pytest.raises(ValueError, match="probe must have x1's shape"):
        log_likelihood(_coupled(a), x1, probe=probe[:2], **options)


def test_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        a = jax.random.normal(jax.random.key(0), (2, 2))
        x1 = jax.random.normal(jax.random.key(1), (3, 2))

        @jax.jit
        def total(scale):
            return log_likelihood(
                _coupled(scale * a),
                x1,
                log_p0=GAUSSIAN.log_prob,
                solver="heun",
                steps=3,
            ).log_prob.sum()

        slope = (total(1.0 + 1e-5) - total(1.0 - 1e-5)) / 2e-5
        # The difference quotient's own error is h^2 = 1e-10.
        np.testing.assert_allclose(jax.grad(total)(1.0), slope, rtol=1e-7)


def test_forward_solve_returns_to_the_data():
    a = jax.random.normal(jax.random.key(0), (3, 3))
    x1 = jax.random.normal(jax.random.key(1), (4, 3))
    options = {"solver": "rk4", "steps": 25, "backend": "scan"}
    x0 = log_likelihood(_coupled(a), x1, log_p0=GAUSSIAN.log_prob, **options).x0
    np.testing.assert_allclose(sample(_coupled(a), x0, **options).x1, x1, atol=1e-4)


def test_straight_lines():
    y = jnp.array([[3.0, 4.0], [1.0, 0.0]])
    flat = path_statistics(lambda x, t, y: y, jnp.zeros((2, 2)), y, steps=5)
    np.testing.assert_allclose(flat.straightness, 0, atol=1e-9)
    np.testing.assert_allclose(flat.energy, [25, 1], rtol=1e-6)
    np.testing.assert_allclose(flat.length_ratio, 1, rtol=1e-6)


def test_half_a_turn():
    """Speed pi on the unit circle: energy pi^2, length pi over chord 2."""
    turn = path_statistics(
        lambda x, t, _: jnp.pi * jnp.stack([-x[:, 1], x[:, 0]], 1),
        jnp.array([[1.0, 0.0]]),
        steps=40,
    )
    np.testing.assert_allclose(turn.energy, jnp.pi**2, rtol=1e-4)
    np.testing.assert_allclose(turn.length_ratio, jnp.pi / 2, rtol=1e-4)
    # int |v|^2 - |x1 - x0|^2, since v integrates to x1 - x0.
    np.testing.assert_allclose(turn.straightness, jnp.pi**2 - 4, rtol=2e-3)
