"""Velocity networks by name: each kind takes the latents it is made for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from flown_jax.errors import UserError
from flown_jax.velocity.make import KINDS, make_velocity
from tests.few_shot.small import VELOCITIES

pytestmark = pytest.mark.fast

SIZES = {**dict(VELOCITIES.values()), "mlp": {"hidden_dims": (8,), "embedding_dim": 4}}
SIZES |= {"pdiff": {"channels": (3, 4), "timesteps": 10}}
LATENTS = {"token_transformer": [(3, 4)], "unet": [(4, 4, 2)], "mlp": [(5,), (3, 4), (4, 4, 2)]}
LATENTS |= {"pdiff": [(6,), (3, 4)]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_makes_a_velocity_of_the_latents_shape(kind):
    for shape in LATENTS[kind]:
        module = make_velocity(kind, shape, **SIZES[kind])
        x, condition = jnp.zeros((2, *shape)), {"features": jnp.zeros((2, 3, 4))}
        condition = None if kind == "pdiff" else condition
        out, _ = jax.eval_shape(
            module.init_with_output, jax.random.key(0), x, jnp.zeros(()), condition
        )
        assert out.shape == x.shape


@pytest.mark.parametrize(
    ("kind", "shape", "sentence"),
    [
        ("token_transformer", (4, 4, 2), "takes latents of 2 axes, and the codec makes"),
        ("unet", (3, 4), "takes latents of 3 axes"),
        ("mlp", (2, 2, 2, 2), r"takes latents of 1 or 2 or 3 axes, .* \(2, 2, 2, 2\)"),
        ("gru", (3, 4), "'gru'; it must be one of token_transformer, unet, mlp"),
    ],
)
def test_latents_of_another_form_are_refused(kind, shape, sentence):
    with pytest.raises(UserError, match=sentence):
        make_velocity(kind, shape)
