"""The flat velocity: any latent shape, zero at first, with and without a condition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.layers.embeddings import sinusoidal_embedding
from flown_jax.velocity import MLPVelocity
from tests.layers.helpers import initial_variables, quick_jit, random_variables

pytestmark = pytest.mark.fast

MODULE = MLPVelocity(hidden_dims=(16, 8), time_dim=6, embedding_dim=5)
T = jnp.asarray([0.2, 0.7])
KEYS = jax.random.split(jax.random.key(0), 3)
CONDITION = {
    "features": jax.random.normal(KEYS[0], (2, 4, 5)),
    "caml": jax.random.normal(KEYS[1], (2, 4, 3)),
}
X = jax.random.normal(KEYS[2], (2, 4, 3))

apply = quick_jit(MODULE.apply)


@pytest.fixture(scope="module")
def conditioned():
    return random_variables(MODULE, X, T, CONDITION)


@pytest.fixture(scope="module")
def free():
    return random_variables(MODULE, X, T)


@pytest.mark.parametrize("shape", [(2, 7), (2, 4, 3), (2, 2, 2, 3)])
def test_the_velocity_has_the_latents_shape_and_is_zero_before_training(shape):
    x = jnp.ones(shape)
    v = apply(initial_variables(MODULE, x, T), x, T)
    assert v.shape == shape and v.dtype == jnp.float32 and not v.any()
    assert apply(random_variables(MODULE, x, T), x, T).any()


def test_a_scalar_time_is_the_time_of_all(conditioned):
    np.testing.assert_allclose(
        apply(conditioned, X, jnp.asarray(0.2), CONDITION),
        apply(conditioned, X, jnp.full(2, 0.2), CONDITION),
        atol=1e-6,
    )


def test_every_argument_reaches_the_velocity(conditioned):
    v = apply(conditioned, X, T, CONDITION)
    others = [
        apply(conditioned, X + 0.5, T, CONDITION),
        apply(conditioned, X, T + 0.1, CONDITION),
        *(apply(conditioned, X, T, {**CONDITION, k: -c}) for k, c in CONDITION.items()),
    ]
    assert all(jnp.abs(other - v).max() > 1e-4 for other in others)


def test_the_closed_form_without_a_condition(free):
    params = free["params"]
    assert set(params) == {"hidden_0", "hidden_1", "out"}
    h = jnp.concatenate([X.reshape(2, -1), sinusoidal_embedding(T, 6)], -1)
    for name in ("hidden_0", "hidden_1"):
        h = jax.nn.silu(h @ params[name]["kernel"] + params[name]["bias"])
    expected = (h @ params["out"]["kernel"] + params["out"]["bias"]).reshape(X.shape)
    np.testing.assert_allclose(apply(free, X, T), expected, atol=1e-5)


def test_the_time_is_scaled_first(free):
    scaled = MLPVelocity(hidden_dims=(16, 8), time_dim=6, embedding_dim=5, time_scale=10.0)
    np.testing.assert_allclose(
        quick_jit(scaled.apply)(free, X, T), apply(free, X, 10 * T), atol=1e-5
    )


def test_tasks_do_not_see_each_other(conditioned):
    """Mapped over tasks, one at a time, it is what it is for all."""

    def one(x, t, condition):
        first = {name: c[None] for name, c in condition.items()}
        return MODULE.apply(conditioned, x[None], t, first)[0]

    mapped = quick_jit(jax.vmap(one))(X, T, CONDITION)
    np.testing.assert_allclose(mapped, apply(conditioned, X, T, CONDITION), atol=1e-5)


def test_parameters_are_float32_whatever_the_computation(conditioned):
    half = MLPVelocity(hidden_dims=(16, 8), time_dim=6, embedding_dim=5, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), X, T, CONDITION)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    low = quick_jit(half.apply)(conditioned, X, T, CONDITION).astype(jnp.float32)
    full = apply(conditioned, X, T, CONDITION)
    assert jnp.abs(low - full).max() < 0.05 * jnp.abs(full).max()  # 8 bits of mantissa


def test_inputs_that_do_not_fit_are_refused(conditioned, free):
    with pytest.raises(UserError, match="made with a condition and are used without one"):
        MODULE.apply(conditioned, X, T)
    with pytest.raises(UserError, match="made without a condition and are used with one"):
        MODULE.apply(free, X, T, CONDITION)
    with pytest.raises(UserError, match=r"t must be a scalar or of shape \(2,\), got \(3,\)"):
        MODULE.apply(free, X, jnp.zeros(3))
    with pytest.raises(UserError, match="x is of 2 tasks and the condition of 1"):
        MODULE.apply(conditioned, X, T, {name: c[:1] for name, c in CONDITION.items()})
