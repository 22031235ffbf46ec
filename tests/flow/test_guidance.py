"""Guidance: its two ends, its mixing, and dropped conditions sample by sample."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.flow import drop_condition, guided_velocity, sample

pytestmark = pytest.mark.fast


def _velocity(x, t, condition):
    return condition["y"] * jnp.ones_like(x) + t * x


X = jnp.arange(6.0).reshape(3, 2)
Y = {"y": jnp.array([[1.0], [2.0], [3.0]])}
NULL = {"y": jnp.array([[-1.0]])}


def test_ends_and_mixture():
    conditional = _velocity(X, 0.5, Y)
    null = _velocity(X, 0.5, {"y": jnp.full((3, 1), -1.0)})
    np.testing.assert_array_equal(guided_velocity(_velocity, 1.0, NULL)(X, 0.5, Y), conditional)
    np.testing.assert_array_equal(guided_velocity(_velocity, 0.0, NULL)(X, 0.5, Y), null)
    for w in (2.5, jnp.float32(2.5)):
        mixed = guided_velocity(_velocity, w, NULL)(X, 0.5, Y)
        np.testing.assert_allclose(mixed, null + 2.5 * (conditional - null), rtol=1e-6)


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_guided_sampling(solver):
    """v = y, so x moves by y_null + w (y - y_null)."""
    guided = guided_velocity(lambda x, t, c: c["y"] * jnp.ones_like(x), 2.0, NULL)
    end = sample(guided, jnp.zeros((3, 2)), Y, solver=solver, steps=4).x1
    np.testing.assert_allclose(end, jnp.broadcast_to(2 * Y["y"] + 1, (3, 2)), rtol=1e-5)


def test_conditions_are_dropped_per_sample():
    y = {"y": jnp.ones((4000, 1)), "z": jnp.ones((4000, 2, 2))}
    null = {"y": jnp.zeros((1, 1)), "z": jnp.zeros((1, 2, 2))}
    kept = drop_condition(jax.random.key(0), y, null, 0.25)
    assert float(kept["y"].mean()) == pytest.approx(0.75, abs=0.03)
    np.testing.assert_array_equal(kept["z"][:, 0, 0], kept["y"][:, 0])
    np.testing.assert_array_equal(drop_condition(jax.random.key(0), y, null, 0.0)["y"], y["y"])


def test_errors():
    with pytest.raises(ValueError, match="leading axis 1"):
        guided_velocity(_velocity, 2.0, Y)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\]"):
        drop_condition(jax.random.key(0), Y, NULL, 1.5)
