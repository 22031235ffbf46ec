"""p-diff's denoiser: its rows of time, its flat latent, sentences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.flow.diffusion import linear_schedule
from flown_jax.meta_model.sampling import as_noise_model
from flown_jax.velocity.pdiff_denoiser import PDiffDenoiser
from tests.layers.helpers import initial_variables, quick_jit

STEPS = 40
NET = PDiffDenoiser(channels=(4, 6), timesteps=STEPS)
X = jax.random.normal(jax.random.key(0), (3, 5, 2))
T = jnp.asarray([3, 17, 39])


@pytest.fixture(scope="module")
def params():
    return initial_variables(NET, X, T)


@pytest.mark.parametrize(("size", "parameters"), [(12, 2_362_273), (52, 2_402_273)])
def test_published_size(size, parameters):
    x = jnp.zeros((1, size // 4, 4))
    shapes = jax.eval_shape(PDiffDenoiser().init, jax.random.key(0), x, jnp.zeros(1, int))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_every_sample_has_its_time_or_that_of_the_first(params):
    own = NET.apply(params, X, T)
    alone = [NET.apply(params, X[i : i + 1], T[i]) for i in range(3)]
    np.testing.assert_allclose(own, np.concatenate(alone), atol=1e-5)
    first = NET.clone(first_time=True).apply(params, X, T)
    np.testing.assert_allclose(first, NET.apply(params, X, T[0]), atol=1e-5)
    assert jnp.abs(first - own)[1:].max() > 1e-3


def test_channels_are_laid_one_after_the_other(params):
    flat = X.transpose(0, 2, 1).reshape(3, 10)[..., None]
    found = NET.apply(params, flat, T)[..., 0].reshape(3, 2, 5).transpose(0, 2, 1)
    np.testing.assert_allclose(found, NET.apply(params, X, T), atol=1e-5)


def test_shares_of_a_schedule_meet_every_index(params):
    noise = as_noise_model(NET, params, linear_schedule(STEPS, 1e-4, 2e-2))
    every = jnp.arange(STEPS)
    x = jnp.broadcast_to(X[:1], (STEPS, *X.shape[1:]))

    @quick_jit
    def both(t):
        return noise(x, t, None), NET.apply(params, x, t)

    np.testing.assert_array_equal(*both(every))


def test_what_does_not_fit_is_one_sentence(params):
    with pytest.raises(UserError, match="takes no condition; choose another velocity.kind"):
        NET.apply(params, X, T, {"features": X})
    with pytest.raises(UserError, match=r"t must be a scalar or of shape \(3,\), got \(2,\)"):
        NET.apply(params, X, T[:2])
