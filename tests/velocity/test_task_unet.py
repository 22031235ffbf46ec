"""The conditioned UNet: zero at first, every injection carries the condition, errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from flown_jax.errors import UserError
from flown_jax.velocity.task_unet import INJECTIONS, TaskUNet
from flown_jax.velocity.unet import UNet
from tests.few_shot.small import perturbed

KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (2, 4, 4, 2))
CONDITION = {"features": jax.random.normal(KEYS[1], (2, 3, 5))}
T = jnp.asarray([0.2, 0.7])


def make(injection: str, wide: bool = True) -> TaskUNet:
    unet = UNet(model_channels=8, out_channels=2, channel_mult=(1,), num_res_blocks=1, num_groups=4)
    return TaskUNet(unet, 6, injection=injection, condition_channels=2, wide=wide)


@pytest.mark.parametrize(
    ("injection", "wide"), [*((i, True) for i in INJECTIONS), ("channels", False)]
)
def test_zero_before_training_then_the_condition_counts(injection, wide):
    module = make(injection, wide)
    fresh = jax.jit(module.init)(KEYS[2], X, T, CONDITION)
    trained = perturbed(fresh, KEYS[3], 0.1)

    @jax.jit
    def three(variables):
        # One call: compiling is what takes the time.
        features = CONDITION["features"]
        x, t = jnp.concatenate([X] * 3), jnp.concatenate([T, T, T + 0.2])
        known = {"features": jnp.concatenate([features, features[:, ::-1], features])}
        return jnp.split(module.apply(variables, x, t, known), 3)

    assert not any(jnp.any(v) for v in three(fresh))
    v, of_other, later = three(trained)
    assert v.shape == X.shape and jnp.isfinite(v).all()
    assert jnp.abs(v - of_other).max() > 1e-4 and jnp.abs(v - later).max() > 1e-4
    inside = fresh["params"]
    assert ("condition_maps" in inside) == (injection != "time")


def test_an_unknown_injection_is_refused():
    with pytest.raises(UserError, match="injection is 'film'; it must be one of time, channels"):
        make("film").init(KEYS[2], X, T, CONDITION)
