"""Schedulers: derivatives, inverses, and round trips of every conversion."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import schedulers as s

pytestmark = pytest.mark.fast

SCHEDULERS = [s.CondOT(), s.Polynomial(2), s.Polynomial(3.5), s.Cosine(), s.LinearVP(), s.VP()]
T = jnp.linspace(0.05, 0.95, 7)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_derivatives_and_inverse(scheduler):
    for f, df in ((scheduler.alpha, scheduler.d_alpha), (scheduler.sigma, scheduler.d_sigma)):
        np.testing.assert_allclose(jax.vmap(jax.grad(f))(T), df(T), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        scheduler.snr_inverse(scheduler.alpha(T) / scheduler.sigma(T)), T, rtol=2e-5
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_conversions_round_trip(scheduler):
    x0, x1 = jax.random.normal(jax.random.key(0), (2, 7, 3))
    t = T[:, None]
    x = scheduler.alpha(t) * x1 + scheduler.sigma(t) * x0
    v = scheduler.d_alpha(t) * x1 + scheduler.d_sigma(t) * x0

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)

    close(s.velocity_to_target(scheduler, v, x, t), x1)
    close(s.velocity_to_epsilon(scheduler, v, x, t), x0)
    # Division by alpha or sigma near an end costs digits of float32.
    np.testing.assert_allclose(s.target_to_velocity(scheduler, x1, x, t), v, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(s.epsilon_to_velocity(scheduler, x0, x, t), v, rtol=1e-2, atol=1e-3)
    close(s.target_to_epsilon(scheduler, x1, x, t), x0)
    np.testing.assert_allclose(
        scheduler.alpha(t) * s.epsilon_to_target(scheduler, x0, x, t),
        scheduler.alpha(t) * x1,
        atol=1e-5,
    )


def test_score_of_a_gaussian():
    """Source N(0, tau^2), data N(m, d^2): p_t is Gaussian and its score is known."""
    tau, m, d, t, x = 0.4, 0.7, 0.5, 0.3, jnp.array([[0.2], [-1.0]])
    variance = (1 - t) ** 2 * tau**2 + t**2 * d**2
    v = m + (t * d**2 - (1 - t) * tau**2) / variance * (x - t * m)
    score = s.velocity_to_score(s.CondOT(), v, x, jnp.float32(t), tau)
    np.testing.assert_allclose(score, -(x - t * m) / variance, rtol=1e-5)


def test_polynomial_refuses_a_bad_exponent():
    with pytest.raises(ValueError, match="exponent n must be a finite number above 0"):
        s.Polynomial(0)
