"""The minimiser of the flow matching loss on a finite set: its formula, and that it only copies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from flown_jax.errors import UserError
from flown_jax.flow import sample
from flown_jax.flow.memorising import memorising_velocity

pytestmark = pytest.mark.fast

DRAW = np.random.default_rng(0)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9, np.array([0.1, 0.5, 0.7, 0.95])])
def test_velocity_is_the_posterior_mean_of_the_end_minus_the_state_over_what_is_left(t):
    data, x = DRAW.normal(size=(7, 3, 2)), DRAW.normal(size=(4, 3, 2))
    found = memorising_velocity(jnp.asarray(data, jnp.float32))(jnp.asarray(x, jnp.float32), t)
    times = np.broadcast_to(t, 4)[:, None, None, None]
    square = np.square(x[:, None] - times * data).sum((2, 3))
    p = special.softmax(-square / (2 * (1 - times[:, :, 0, 0]) ** 2), axis=1)
    ends = np.einsum("bn,nij->bij", p, data)
    np.testing.assert_allclose(found, (ends - x) / (1 - times[:, 0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "size", "steps"), [(50, 8, 10), (300, 4000, 5), (1, 3, 1)])
def test_samples_are_data_points(count, size, steps):
    data = jnp.asarray(DRAW.normal(size=(count, size)), jnp.float32)
    x0 = jax.random.normal(jax.random.key(0), (6, size))
    found = sample(memorising_velocity(data), x0, steps=steps, backend="scan").x1
    apart = np.abs(np.asarray(found)[:, None] - np.asarray(data)).max(2).min(1)
    assert apart.max() < 1e-5


def test_near_the_end_it_is_finite_and_points_to_the_nearest():
    data = jnp.asarray([[0.0, 0.0], [3.0, 4.0]])
    x = jnp.asarray([[2.0, 4.0], [3.0, 4.0]])
    for t in (1 - 1e-6, 1.0):
        found = np.asarray(memorising_velocity(data)(x, t))
        assert np.isfinite(found).all()
        assert found[0, 0] > 1e5 and abs(found[0, 1]) < 1e2 and np.abs(found[1]).max() < 1e2


def test_it_needs_data():
    with pytest.raises(UserError, match="memorising flow"):
        memorising_velocity(jnp.zeros((0, 3)))
