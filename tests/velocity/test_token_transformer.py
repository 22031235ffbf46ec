"""The velocity over class codes: zero at first, equivariant, conditioned on time and classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.velocity.token_transformer import TokenTransformer
from tests.few_shot.small import perturbed

MODULE = TokenTransformer(out_dim=3, width=8, num_layers=2, num_heads=2, time_dim=8)
KEYS = jax.random.split(jax.random.key(0), 5)
X = jax.random.normal(KEYS[0], (2, 4, 3))
CONDITION = {
    "features": jax.random.normal(KEYS[1], (2, 4, 5)),
    "caml": jax.random.normal(KEYS[2], (2, 4, 6)),
}
T = jnp.asarray([0.2, 0.7])


@pytest.fixture(scope="module")
def fresh():
    return jax.jit(MODULE.init)(KEYS[3], X, T, CONDITION)


@pytest.fixture(scope="module")
def trained(fresh):
    return perturbed(fresh, KEYS[4], 0.3)


apply = jax.jit(MODULE.apply)


def test_the_velocity_is_zero_before_training(fresh):
    v = apply(fresh, X, T, CONDITION)
    assert v.shape == X.shape and not jnp.any(v)


def test_renaming_the_classes_renames_the_velocity(trained):
    order = jnp.asarray([2, 0, 3, 1])
    v = apply(trained, X, T, CONDITION)
    renamed = apply(trained, X[:, order], T, {k: c[:, order] for k, c in CONDITION.items()})
    np.testing.assert_allclose(renamed, v[:, order], atol=1e-5)
    # Only together: classes without their conditions are other classes.
    assert jnp.abs(apply(trained, X[:, order], T, CONDITION) - v[:, order]).max() > 1e-3


def test_every_argument_reaches_the_velocity(trained):
    v = apply(trained, X, T, CONDITION)
    others = [
        apply(trained, X + 0.5, T, CONDITION),
        apply(trained, X, T + 0.1, CONDITION),
        *(apply(trained, X, T, {**CONDITION, k: -c}) for k, c in CONDITION.items()),
    ]
    assert all(jnp.abs(other - v).max() > 1e-3 for other in others)
    # A class sees the others: its own code and condition stay, another's changes.
    elsewhere = apply(trained, X.at[:, 3].add(0.5), T, CONDITION)
    assert jnp.abs(elsewhere - v)[:, :3].max() > 1e-4


def test_tasks_do_not_see_each_other(trained):
    v = apply(trained, X, T, CONDITION)
    alone = apply(trained, X[:1], T[:1], {k: c[:1] for k, c in CONDITION.items()})
    np.testing.assert_allclose(alone, v[:1], atol=1e-5)


def test_a_scalar_time_is_the_time_of_all(trained):
    np.testing.assert_allclose(
        apply(trained, X, jnp.asarray(0.2), CONDITION),
        apply(trained, X, jnp.full(2, 0.2), CONDITION),
        atol=1e-6,
    )


def test_a_condition_of_another_task_or_class_is_refused(fresh):
    with pytest.raises(ValueError, match=r"codes \(2, 4\) and condition \(2, 3\) do not match"):
        MODULE.apply(fresh, X, T, {k: c[:, :3] for k, c in CONDITION.items()})
