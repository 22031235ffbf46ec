"""Coordinates of heads: round trips, the layout of vectors, the base head."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.few_shot.space import HeadSpace, fit_head_space, from_vector, to_vector
from flown_jax.models import heads as linear

KEY_HEADS, KEY_PROTOTYPES, KEY_QUERY = jax.random.split(jax.random.key(0), 3)
HEADS = 3.0 * jax.random.normal(KEY_HEADS, (20, 4, 6)) + 1.0
PROTOTYPES = jax.random.normal(KEY_PROTOTYPES, (20, 4, 5))
QUERY = jax.random.normal(KEY_QUERY, (20, 7, 5))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("base_scale", [0.0, 1.3])
def test_round_trip_classifies_alike(centred, base_scale):
    space = fit_head_space(
        HEADS, PROTOTYPES, base_scale=base_scale, centred=centred, standardise=True
    )
    x1 = space.normalise(HEADS, PROTOTYPES)
    back = space.restore(x1, PROTOTYPES)
    np.testing.assert_allclose(np.sqrt((x1**2).mean((0, 1))), 1.0, rtol=1e-4)
    if centred:
        np.testing.assert_allclose(x1.mean(1), 0.0, atol=1e-5)
        # What is lost is one row added to every class.
        lost = HEADS - back
        np.testing.assert_allclose(lost, jnp.broadcast_to(lost[:, :1], lost.shape), atol=1e-5)
    else:
        np.testing.assert_allclose(back, HEADS, atol=1e-5)
    np.testing.assert_allclose(
        jax.nn.softmax(linear.logits(back, QUERY)),
        jax.nn.softmax(linear.logits(HEADS, QUERY)),
        atol=1e-5,
    )


def test_without_standardising_the_columns_keep_their_size():
    space = fit_head_space(HEADS, PROTOTYPES, base_scale=0.0, centred=False, standardise=False)
    np.testing.assert_array_equal(space.normalise(HEADS, PROTOTYPES), HEADS)


def test_a_column_that_is_always_zero_stays_zero():
    heads = HEADS.at[..., -1].set(0.0)
    space = fit_head_space(heads, PROTOTYPES, base_scale=0.5, centred=True, standardise=True)
    x1 = space.normalise(heads, PROTOTYPES)
    assert space.scale[-1] == 1.0 and jnp.all(x1[..., -1] == 0) and jnp.isfinite(x1).all()


def test_the_base_head_is_the_cosine_class_mean_classifier():
    space = HeadSpace(jnp.asarray(2.0), jnp.ones(6), True)
    base = space.base(PROTOTYPES)
    np.testing.assert_allclose(base.mean(1), 0.0, atol=1e-6)
    cosine = linear.logits(linear.cosine_class_mean(PROTOTYPES[:, :, None]), QUERY)
    np.testing.assert_allclose(
        jax.nn.log_softmax(linear.logits(base, QUERY)),
        jax.nn.log_softmax(2.0 * cosine),
        atol=1e-5,
    )
    # The zero target is the base head.
    np.testing.assert_allclose(space.restore(jnp.zeros_like(base), PROTOTYPES), base)


def test_base_of_a_zero_prototype_is_finite():
    base = HeadSpace(jnp.asarray(1.0), jnp.ones(6), True).base(jnp.zeros((1, 4, 5)))
    assert jnp.isfinite(base).all()


def test_vectors_are_laid_out_as_a_torch_state_dict():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(5, 4)
    expected = torch.cat([p.detach().ravel() for p in layer.state_dict().values()]).numpy()
    weight, bias = (p.detach().numpy() for p in layer.state_dict().values())
    head = jnp.concatenate([jnp.asarray(weight), jnp.asarray(bias)[:, None]], axis=-1)
    np.testing.assert_array_equal(to_vector(head), expected)
    np.testing.assert_array_equal(from_vector(to_vector(HEADS), 4), HEADS)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(UserError, match="a vector of length 25 is no head of 4 classes"):
        from_vector(jnp.zeros((2, 25)), 4)
