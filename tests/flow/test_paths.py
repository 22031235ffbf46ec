"""Paths: the target velocity is the time derivative of x_t, ends are right, bad input is named."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import (
    VP,
    AffinePath,
    CondOT,
    Cosine,
    LinearPath,
    LinearVP,
    Polynomial,
    SchrodingerBridgePath,
    TargetPath,
    VariancePreservingPath,
)

pytestmark = pytest.mark.fast

PATHS = [
    LinearPath(),
    LinearPath(0.3),
    TargetPath(),
    TargetPath(0.1),
    SchrodingerBridgePath(0.7),
    VariancePreservingPath(),
    VariancePreservingPath(0.2),
    *map(AffinePath, (CondOT(), Polynomial(3), Cosine(), LinearVP(), VP())),
]


def _batch(shape=(6, 2, 3)):
    keys = jax.random.split(jax.random.key(0), 3)
    x0, x1, eps = (jax.random.normal(k, shape) for k in keys)
    return x0, x1, eps, jnp.linspace(0.1, 0.9, shape[0])


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_velocity_is_the_time_derivative(path):
    x0, x1, eps, t = _batch()
    x_t, u = path.from_noise(x0, x1, t, eps)
    _, derivative = jax.jvp(lambda t: path.from_noise(x0, x1, t, eps)[0], (t,), (jnp.ones_like(t),))
    assert x_t.shape == u.shape == x1.shape
    np.testing.assert_allclose(u, derivative, rtol=1e-4, atol=1e-5)  # float32, division by t(1-t)
    np.testing.assert_allclose(path.velocity(x_t, x0, x1, t), u, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_batch_times_equal_scalar_times(path):
    x0, x1, eps, _ = _batch()
    scalar = path.from_noise(x0, x1, jnp.float32(0.3), eps)
    batch = path.from_noise(x0, x1, jnp.full((6,), 0.3), eps)
    for a, b in zip(scalar, batch, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert path.std(jnp.full((6,), 0.3)).shape == (6,)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_ends(path):
    x0, x1, eps, _ = _batch()
    start, _ = path.from_noise(x0, x1, jnp.float32(0), eps)
    end, _ = path.from_noise(x0, x1, jnp.float32(1), eps)
    noise = 0 if isinstance(path, SchrodingerBridgePath) else path.sigma
    source = eps if isinstance(path, TargetPath) else x0 + noise * eps
    # The VP scheduler reaches alpha(0) = 0.0066, not 0.
    slack = 0.03 if isinstance(path, AffinePath) and path.scheduler == VP() else 1e-6
    np.testing.assert_allclose(start, source, atol=slack)
    np.testing.assert_allclose(end, x1 + noise * eps, atol=1e-6)


def test_sample_draws_standard_noise():
    path, t = SchrodingerBridgePath(0.5), jnp.full((20_000,), 0.25)
    zeros = jnp.zeros((20_000, 1))
    x_t, _ = path.sample(jax.random.key(1), zeros, zeros, t)
    assert abs(float(x_t.std()) - 0.5 * np.sqrt(0.25 * 0.75)) < 0.005


def test_target_velocity_is_accurate_near_the_end():
    x0, x1, eps, _ = _batch()
    _, u = TargetPath().from_noise(x0, x1, jnp.float32(1 - 2**-24), eps)
    np.testing.assert_array_equal(u, x1 - eps)


def test_score_weight():
    t = jnp.array([0.2, 0.5])
    np.testing.assert_allclose(
        SchrodingerBridgePath(2.0).score_weight(t), jnp.sqrt(t * (1 - t)), rtol=1e-6
    )


def test_errors_name_the_shapes():
    x0, x1, eps, t = _batch()
    with pytest.raises(ValueError, match=r"x0 \(5, 2, 3\), x1 \(6, 2, 3\)"):
        LinearPath().from_noise(x0[:5], x1, t, eps)
    with pytest.raises(ValueError, match=r"t must be a scalar or \(6,\)"):
        LinearPath().from_noise(x0, x1, t[:, None], eps)
    with pytest.raises(ValueError, match="sigma of SchrodingerBridgePath must be"):
        SchrodingerBridgePath(0.0)
