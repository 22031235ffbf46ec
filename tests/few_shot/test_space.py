"""Coordinates of heads: round trips, the base head, the task loss."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.few_shot.space import HeadSpace, fit_head_space, query_log_probs
from flown_jax.models import heads as linear
from tests.layers.helpers import quick_jit

pytestmark = pytest.mark.fast

KEY_HEADS, KEY_PROTOTYPES, KEY_QUERY = jax.random.split(jax.random.key(0), 3)
HEADS = 3.0 * jax.random.normal(KEY_HEADS, (20, 4, 6)) + 1.0
PROTOTYPES = jax.random.normal(KEY_PROTOTYPES, (20, 4, 5))
QUERY = jax.random.normal(KEY_QUERY, (20, 7, 5))


def _context(shot, prototypes=PROTOTYPES):
    return {"prototypes": prototypes, "shot": jnp.asarray(shot)}


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
    assert space.shape == (4, 6)
    x1 = space.normalise(HEADS, _context(1))
    back = space.restore(x1, _context(1))
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


def test_its_spec_is_a_layer_in_the_order_of_vectors():
    space = _fitted()
    spec, vector = space.spec, linear.to_vector(HEADS[0])
    assert spec.size == vector.size == math.prod(space.shape)
    tensors = [vector[spec.slices[entry.name]].reshape(entry.shape) for entry in spec.entries]
    assert [entry.name.split(".")[-1] for entry in spec.entries] == ["weight", "bias"]
    np.testing.assert_array_equal(tensors[0], HEADS[0][:, :-1])
    np.testing.assert_array_equal(tensors[1], HEADS[0][:, -1])
    assert space.affine is None


def test_without_standardising_the_columns_keep_their_size():
    space = _fitted(centred=False, standardise=False)
    np.testing.assert_array_equal(space.normalise(HEADS, _context(1)), HEADS)


def test_a_column_that_is_always_zero_stays_zero():
    heads = HEADS.at[..., -1].set(0.0)
    space = _fitted(heads, base_scale=0.5)
    x1 = space.normalise(heads, _context(1))
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
        (space.normalise(heads, _context(shot, prototypes)) ** 2).mean((0, 1))
        for heads, prototypes, shot in ((few, PROTOTYPES[:5], 1), (3 * HEADS, PROTOTYPES, 5))
    ]
    np.testing.assert_allclose(np.mean(squares, axis=0), 1.0, rtol=1e-4)


def test_the_base_head_is_the_cosine_class_mean_classifier():
    base = HeadSpace(jnp.asarray([2.0]), jnp.ones(6), (1,), True).base(_context(1))
    np.testing.assert_allclose(base.mean(1), 0.0, atol=1e-6)
    cosine = linear.logits(linear.cosine_class_mean(PROTOTYPES[:, :, None]), QUERY)
    np.testing.assert_allclose(
        jax.nn.log_softmax(linear.logits(base, QUERY)),
        jax.nn.log_softmax(2.0 * cosine),
        atol=1e-5,
    )


def test_the_zero_target_is_the_base_head():
    space = _fitted(base_scale=0.8)
    base = space.base(_context(1))
    np.testing.assert_allclose(space.restore(jnp.zeros_like(base), _context(1)), base)
    np.testing.assert_allclose(space.normalise(base, _context(1)), 0.0)


def test_the_base_scale_is_interpolated_over_the_logarithm_of_the_shots():
    space = HeadSpace(jnp.asarray([0.5, 1.5, 3.5]), jnp.ones(6), (1, 4, 16), True)
    unit = HeadSpace(jnp.ones(1), jnp.ones(6), (1,), True).base(_context(7))
    # Exact at the known shots, halfway at their geometric means, flat beyond the last ones.
    wanted = {1: 0.5, 4: 1.5, 16: 3.5, 2: 1.0, 8: 2.5, 0.5: 0.5, 64: 3.5}
    for shot, alpha in wanted.items():
        np.testing.assert_allclose(space.base(_context(shot)), alpha * unit, rtol=1e-5)
    of_tasks = space.base(_context([1.0, 2.0] * 10))
    np.testing.assert_allclose(of_tasks[0], 0.5 * unit[0], rtol=1e-5)
    np.testing.assert_allclose(of_tasks[1], 1.0 * unit[1], rtol=1e-5)


def test_a_space_knows_no_number_of_classes():
    @quick_jit
    def there_and_back(space, heads, prototypes):
        context = _context(3, prototypes)
        return space.restore(space.normalise(heads, context), context)

    space = _fitted(base_scale=1.3)
    for way in (2, 9):
        heads, prototypes = np.ones((3, way, 6), np.float32), np.ones((3, way, 5), np.float32)
        heads[:, 0] += np.arange(6)
        prototypes[:, 1] *= -1
        back = there_and_back(space, heads, prototypes)
        np.testing.assert_allclose(back, heads - heads.mean(1, keepdims=True), atol=1e-5)


def test_base_of_a_zero_prototype_is_finite():
    base = HeadSpace(jnp.ones(1), jnp.ones(6), (1,), True).base(_context(1, jnp.zeros((1, 4, 5))))
    assert jnp.isfinite(base).all()


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
    np.testing.assert_array_equal(
        space.restore(HEADS, _context(1)), plain.restore(HEADS, _context(1))
    )


def test_the_task_loss_is_the_cross_entropy_of_each_image_under_its_tasks_head():
    images = jax.random.normal(KEY_QUERY, (20, 4, 2, 5))
    space = HeadSpace(jnp.ones(2), jnp.ones(6), (1, 4), True, jnp.asarray([1.4, 1.2]))
    plain = HeadSpace(jnp.ones(2), jnp.ones(6), (1, 4), True)
    batch = {"context": _context([1.0, 4.0] * 10), "query": images}
    found = plain.task_loss(HEADS, batch)
    assert found.shape == (20, 4, 2)
    for task, label, image in ((0, 0, 0), (3, 2, 1), (19, 3, 0)):
        scores = HEADS[task, :, :-1] @ images[task, label, image] + HEADS[task, :, -1]
        expected = jax.nn.logsumexp(scores) - scores[label]
        np.testing.assert_allclose(found[task, label, image], expected, rtol=1e-4)
    # A head that is right for new classes is judged on training classes with sharper logits.
    sharper = jnp.asarray([1.4, 1.2] * 10)[:, None, None]
    expected = plain.task_loss(sharper * HEADS, batch)
    np.testing.assert_allclose(space.task_loss(HEADS, batch), expected, rtol=1e-5)
    assert float(jnp.abs(expected - found).max()) > 0.1


def test_log_probabilities_of_queries_are_those_of_their_logits():
    images = jax.random.normal(KEY_QUERY, (20, 4, 2, 5))
    found = query_log_probs(HEADS, images)
    assert found.shape == (20, 4, 2, 4)
    scores = jax.nn.log_softmax(linear.logits(HEADS[7], images[7, 1]))
    np.testing.assert_allclose(found[7, 1], scores, atol=1e-5)


@pytest.mark.parametrize("sharpness", [None, jnp.asarray([1.4, 1.2])])
def test_a_space_is_its_description_and_its_arrays(sharpness):
    space = HeadSpace(jnp.asarray([0.5, 1.5]), jnp.arange(1.0, 7.0), (1, 4), True, sharpness, 4)
    description, arrays = space.describe()
    again = HeadSpace.build(json.loads(json.dumps(description)), arrays)
    assert jax.tree.structure(again) == jax.tree.structure(space)
    jax.tree.map(np.testing.assert_array_equal, again, space)
    assert again.shape == (4, 6) and again.what == "heads of 6 columns"
