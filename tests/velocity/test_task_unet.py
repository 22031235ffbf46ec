"""The conditioned UNet: zero at first, every injection carries the condition, errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.velocity.task_unet import INJECTIONS, TaskUNet
from flown_jax.velocity.unet import UNet
from tests.few_shot.small import random_variables

KEYS = jax.random.split(jax.random.key(0), 3)
X = jax.random.normal(KEYS[0], (2, 4, 4, 2))
CONDITION = {"features": jax.random.normal(KEYS[1], (2, 3, 5))}
T = jnp.asarray([0.2, 0.7])


def make(injection: str, wide: bool = True) -> TaskUNet:
    unet = UNet(model_channels=8, out_channels=2, channel_mult=(1,), num_res_blocks=1, num_groups=4)
    return TaskUNet(unet, 6, injection=injection, condition_channels=2, wide=wide)


@pytest.mark.parametrize(
    ("injection", "wide"), [*((i, True) for i in INJECTIONS), ("channels", False)]
)
def test_every_injection_carries_the_condition(injection, wide):
    module = make(injection, wide)
    variables = random_variables(np.random.default_rng(0), module.init, KEYS[2], X, T, CONDITION)
    # One call: compiling is what takes the time.
    features = CONDITION["features"]
    x, t = jnp.concatenate([X] * 3), jnp.concatenate([T, T, T + 0.2])
    known = {"features": jnp.concatenate([features, features[:, ::-1], features])}
    v, of_other, later = jnp.split(jax.jit(module.apply)(variables, x, t, known), 3)
    assert v.shape == X.shape and jnp.isfinite(v).all()
    assert jnp.abs(v - of_other).max() > 1e-4 and jnp.abs(v - later).max() > 1e-4
    assert ("condition_maps" in variables["params"]) == (injection != "time")


def test_the_velocity_is_zero_before_training():
    v, _ = jax.jit(make("both").init_with_output)(KEYS[2], X, T, CONDITION)
    assert v.shape == X.shape and not jnp.any(v)


def test_without_a_condition_it_is_the_unet():
    module = make("both")
    variables = jax.jit(module.init)(KEYS[2], X, T, None)
    assert set(variables["params"]) == {"unet"}
    v = module.apply(variables, X, T, None)
    own = {"params": variables["params"]["unet"]}
    np.testing.assert_array_equal(v, module.unet.apply(own, X, T))


def test_an_unknown_injection_is_refused():
    with pytest.raises(UserError, match="injection is 'film'; it must be one of time, channels"):
        make("film").init(KEYS[2], X, T, CONDITION)
