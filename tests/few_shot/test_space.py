"""Coordinates of heads: round trips, the layout of vectors, the base head."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.few_shot.space import HeadSpace, fit_head_space, from_vector, to_vector
from flown_jax.models import heads as linear
from tests.layers.helpers import quick_jit

KEY_HEADS, KEY_PROTOTYPES, KEY_QUERY = jax.random.split(jax.random.key(0), 3)
HEADS = 3.0 * jax.random.normal(KEY_HEADS, (20, 4, 6)) + 1.0
PROTOTYPES = jax.random.normal(KEY_PROTOTYPES, (20, 4, 5))
QUERY = jax.random.normal(KEY_QUERY, (20, 7, 5))


def _fitted(heads=HEADS, base_scale=0.0, centred=True, standardise=True):
    """The space of one shot's heads."""
    return fit_head_space(
        [heads],
        [PROTOTYPES],
        shots=(1,),
        base_scales=(base_scale,),
        centred=centred,
        standardise=standardise,
    )


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("base_scale", [0.0, 1.3])
def test_round_trip_classifies_alike(centred, base_scale):
    space = _fitted(base_scale=base_scale, centred=centred)
    base = space.base(PROTOTYPES, 1)
    x1 = space.normalise(HEADS, base)
    back = space.restore(x1, base)
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
    space = _fitted(centred=False, standardise=False)
    np.testing.assert_array_equal(space.normalise(HEADS, space.base(PROTOTYPES, 1)), HEADS)


def test_a_column_that_is_always_zero_stays_zero():
    heads = HEADS.at[..., -1].set(0.0)
    space = _fitted(heads, base_scale=0.5)
    x1 = space.normalise(heads, space.base(PROTOTYPES, 1))
    assert space.scale[-1] == 1.0 and jnp.all(x1[..., -1] == 0) and jnp.isfinite(x1).all()


def test_every_shot_counts_alike_in_the_size_of_the_columns():
    few = HEADS[:5]
    space = fit_head_space(
        [few, 3 * HEADS],
        [PROTOTYPES[:5], PROTOTYPES],
        shots=(1, 5),
        base_scales=(0.7, 0.2),
        centred=True,
        standardise=True,
    )
    assert space.shots == (1, 5)
    squares = [
        (space.normalise(heads, space.base(prototypes, shot)) ** 2).mean((0, 1))
        for heads, prototypes, shot in ((few, PROTOTYPES[:5], 1), (3 * HEADS, PROTOTYPES, 5))
    ]
    np.testing.assert_allclose(np.mean(squares, axis=0), 1.0, rtol=1e-4)


def test_the_base_head_is_the_cosine_class_mean_classifier():
    base = HeadSpace(jnp.asarray([2.0]), jnp.ones(6), (1,), True).base(PROTOTYPES, 1)
    np.testing.assert_allclose(base.mean(1), 0.0, atol=1e-6)
    cosine = linear.logits(linear.cosine_class_mean(PROTOTYPES[:, :, None]), QUERY)
    np.testing.assert_allclose(
        jax.nn.log_softmax(linear.logits(base, QUERY)),
        jax.nn.log_softmax(2.0 * cosine),
        atol=1e-5,
    )


def test_the_zero_target_is_the_base_head():
    space = _fitted(base_scale=0.8)
    base = space.base(PROTOTYPES, 1)
    np.testing.assert_allclose(space.restore(jnp.zeros_like(base), base), base)
    np.testing.assert_allclose(space.normalise(base, base), 0.0)


def test_the_base_scale_is_interpolated_over_the_logarithm_of_the_shots():
    space = HeadSpace(jnp.asarray([0.5, 1.5, 3.5]), jnp.ones(6), (1, 4, 16), True)
    unit = HeadSpace(jnp.ones(1), jnp.ones(6), (1,), True).base(PROTOTYPES, 7)
    # Exact at the known shots, halfway at their geometric means, flat beyond the last ones.
    wanted = {1: 0.5, 4: 1.5, 16: 3.5, 2: 1.0, 8: 2.5, 0.5: 0.5, 64: 3.5}
    for shot, alpha in wanted.items():
        np.testing.assert_allclose(space.base(PROTOTYPES, shot), alpha * unit, rtol=1e-5)
    of_tasks = space.base(PROTOTYPES, jnp.asarray([1.0, 2.0] * 10))
    np.testing.assert_allclose(of_tasks[0], 0.5 * unit[0], rtol=1e-5)
    np.testing.assert_allclose(of_tasks[1], 1.0 * unit[1], rtol=1e-5)


def test_a_space_knows_no_number_of_classes():
    @quick_jit
    def there_and_back(space, heads, prototypes):
        base = space.base(prototypes, 3)
        return space.restore(space.normalise(heads, base), base)

    space = _fitted(base_scale=1.3)
    for way in (2, 9):
        heads, prototypes = np.ones((3, way, 6), np.float32), np.ones((3, way, 5), np.float32)
        heads[:, 0] += np.arange(6)
        prototypes[:, 1] *= -1
        back = there_and_back(space, heads, prototypes)
        np.testing.assert_allclose(back, heads - heads.mean(1, keepdims=True), atol=1e-5)


def test_base_of_a_zero_prototype_is_finite():
    base = HeadSpace(jnp.ones(1), jnp.ones(6), (1,), True).base(jnp.zeros((1, 4, 5)), 1)
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


def test_task_losses_see_sharper_heads_between_the_known_shots_by_the_logarithm():
    space = HeadSpace(jnp.ones(2), jnp.ones(6), (1, 4), True, jnp.asarray([1.4, 1.2]))
    np.testing.assert_allclose(space.sharpened(HEADS, 1), 1.4 * HEADS, rtol=1e-6)
    np.testing.assert_allclose(space.sharpened(HEADS, 9), 1.2 * HEADS, rtol=1e-6)
    each = space.sharpened(HEADS, jnp.asarray([1.0, 2.0, 4.0, 9.0] * 5))
    np.testing.assert_allclose(each[1], 1.3 * HEADS[1], rtol=1e-6)
    np.testing.assert_allclose(each[2], 1.2 * HEADS[2], rtol=1e-6)
    # Without it heads are what they are; and it is no part of what a head is turned into.
    plain = HeadSpace(jnp.ones(2), jnp.ones(6), (1, 4), True)
    assert plain.sharpened(HEADS, 1) is HEADS
    base = space.base(PROTOTYPES, 1)
    np.testing.assert_array_equal(space.restore(HEADS, base), plain.restore(HEADS, base))
