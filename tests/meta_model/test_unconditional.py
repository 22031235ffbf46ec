"""Generators without a condition: trained, sampled, and told how many."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax import flow
from flown_jax.flow import diffusion
from flown_jax.meta_model import losses
from flown_jax.meta_model.sampling import regress, sample_diffusion, sample_flow
from flown_jax.meta_model.training import train_generator
from flown_jax.training import Records
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from flown_jax.velocity.mlp import MLPVelocity

NETWORK = MLPVelocity((8,), time_dim=4)
SCHEDULE = diffusion.iddpm_linear_schedule(25)
GAUSSIAN = flow.get_source("gaussian")
CENTRE = np.asarray([0.5, -0.25, 2.0], np.float32)
LOSSES = {
    "flow": partial(
        losses.flow_loss, path=flow.LinearPath(), coupling=flow.independent, source=GAUSSIAN
    ),
    "diffusion": partial(losses.diffusion_loss, schedule=SCHEDULE),
    "regression": losses.regression_loss,
}


def batch_at(step):
    return {"latent": np.tile(CENTRE, (8, 1)), "condition": None}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_generator_is_trained_without_a_condition(kind, tmp_path):
    context = StageContext("toy", tmp_path / "progress", Records(tmp_path))
    recipe = Recipe(60, 8, 3e-2, save_every=60)
    loss = partial(LOSSES[kind], NETWORK)
    params = train_generator(context, NETWORK, loss, batch_at, recipe, seed=0)
    key = jax.random.key(1)
    if kind == "regression":
        found = regress(NETWORK, params, None, (3,), count=5)
        np.testing.assert_allclose(found, np.tile(CENTRE, (5, 1)), atol=0.1)
    elif kind == "flow":
        options = {"source": GAUSSIAN, "latent_shape": (3,), "solver": "euler", "steps": 4}
        found, nfe = sample_flow(key, NETWORK, params, None, **options, count=5)
        assert float(nfe) == 4
    else:
        options = {"schedule": SCHEDULE, "latent_shape": (3,), "steps": None}
        found, nfe = sample_diffusion(key, NETWORK, params, None, **options, count=5)
        assert int(nfe) == 25
        clipped, _ = sample_diffusion(
            key, NETWORK, params, None, **options, count=5, clip_x0=True, clip_sample=True
        )
        assert np.abs(clipped).max() <= 1 < np.abs(found).max()
    assert found.shape == (5, 3) and np.isfinite(found).all()


def test_nothing_says_how_many():
    with pytest.raises(ValueError, match="`count` says how many"):
        regress(NETWORK, {}, None, (3,))


def test_a_start_says_how_many():
    params = NETWORK.init(jax.random.key(0), jnp.zeros((1, 3)), 0.0)
    options = {"source": GAUSSIAN, "latent_shape": (3,), "solver": "euler", "steps": 1}
    x0 = jnp.ones((2, 3))
    found, _ = sample_flow(jax.random.key(0), NETWORK, params, None, **options, x0=x0)
    np.testing.assert_array_equal(found, x0)
