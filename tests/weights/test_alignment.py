"""Units that change places and signs: functions stay, copies are found, references are reused."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.models.cnn import CNN, cnn_medium, cnn_small
from flown_jax.weights import alignment, matching
from flown_jax.weights.alignment import Reference, align, apply_reference
from flown_jax.weights.matching import matched_distances
from flown_jax.weights.spec import Entry, WeightSpec
from flown_jax.weights.symmetries import Symmetry, hidden_layers, moved, permuted, transform
from tests.layers.helpers import quick_jit
from tests.weights import small

pytestmark = pytest.mark.fast

CASES = {
    "small": (cnn_small(), (28, 28, 1)),
    "small, relu": (cnn_small(activation="relu"), (28, 28, 3)),
    "medium": (cnn_medium(), (32, 32, 3)),
    "medium, relu": (cnn_medium(activation="relu"), (32, 32, 1)),
    "no hidden": (CNN(channels=(3, 4), kernels=(3, 2), pools=(False, True), hidden=()), (9, 8, 3)),
    "one convolution": (CNN(channels=(4,), kernels=(3,), pools=(False,), hidden=(7, 5)), (6, 5, 1)),
}
SPEC = small.spec(channels=(5, 4), hidden=(6,), num_classes=3)
RELU = small.spec(channels=(5, 4), hidden=(6,), num_classes=3, activation="relu")
IMAGES = np.random.default_rng(9).normal(size=(30, 8, 8, 1)).astype(np.float32)


def networks(spec: WeightSpec, count: int, seed: int = 0) -> np.ndarray:
    """Random networks; positive biases keep the units of ReLU alive."""
    rng = np.random.default_rng(seed)
    scales = [max(np.prod(e.shape[1:]), 4.0) ** -0.5 for e in spec.entries for _ in range(e.size)]
    w = (rng.normal(size=(count, spec.size)) * np.array(scales)).astype(np.float32)
    for name, place in spec.slices.items():
        w[:, place] = abs(w[:, place]) if name.endswith("bias") else w[:, place]
    return w


def symmetries(spec: WeightSpec, count: int, seed: int = 0) -> list[Symmetry]:
    rng, layers = np.random.default_rng(seed), hidden_layers(spec)
    return [
        Symmetry(
            tuple(rng.permutation(layer.units) for layer in layers),
            tuple(
                rng.choice([-1, 1], layer.units) if layer.signs else np.ones(layer.units, int)
                for layer in layers
            ),
        )
        for _ in range(count)
    ]


def logits(spec: WeightSpec, weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    return np.asarray(quick_jit(jax.vmap(spec.apply, (0, None)))(weights, images))


@pytest.mark.parametrize("name", CASES)
def test_functions_stay_as_they_are(name):
    cnn, shape = CASES[name]
    shapes = jax.eval_shape(cnn.init, jax.random.key(0), jnp.zeros((1, *shape)))
    spec = WeightSpec.from_module(cnn, shapes)
    w = networks(spec, 2)
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    changed = transform(spec, w, symmetries(spec, 2))
    assert changed.dtype == np.float32 and np.mean(changed == w) < 0.5
    np.testing.assert_array_equal(np.sort(abs(changed), axis=1), np.sort(abs(w), axis=1))
    # Sums of the same numbers in another order.
    np.testing.assert_allclose(logits(spec, changed, images), logits(spec, w, images), atol=2e-5)


def test_units_in_a_random_order_compute_the_same():
    w = networks(SPEC, 3)
    changed = permuted(SPEC, w, np.random.default_rng(0))
    np.testing.assert_allclose(logits(SPEC, changed, IMAGES), logits(SPEC, w, IMAGES), atol=2e-5)
    assert (changed != w).any(1).all()
    same = permuted(SPEC, np.repeat(w[:1], 9, 0), np.random.default_rng(0))
    assert len(np.unique(same, axis=0)) > 7  # every network has orders of its own


def test_signs_are_free_where_the_function_is_odd():
    assert [layer.signs for layer in hidden_layers(SPEC)] == [False, True, True]
    assert not any(layer.signs for layer in hidden_layers(RELU))
    w = networks(SPEC, 1)
    (same,) = symmetries(SPEC, 1)
    flipped = Symmetry(same.permutations, (np.array([1, 1, -1, 1, 1]), *same.signs[1:]))
    with pytest.raises(UserError, match="units of conv_0 must keep their signs.*max-pooling"):
        transform(SPEC, w, [flipped])
    # For a reason: the function would be another one.
    orders, signs = ([each[None] for each in s] for s in (flipped.permutations, flipped.signs))
    other = moved(SPEC, w, orders, signs)
    assert np.abs(logits(SPEC, other, IMAGES) - logits(SPEC, w, IMAGES)).max() > 0.1
    (signed,) = symmetries(SPEC, 1, seed=3)
    assert any(np.any(each < 0) for each in signed.signs)
    with pytest.raises(UserError, match="units of conv_1 must keep their signs"):
        transform(RELU, w, [signed])


def test_activations_are_those_of_the_network(monkeypatch):
    monkeypatch.setattr(alignment, "_NETWORKS", 2)  # the last of two groups is filled up
    w = networks(SPEC, 3)
    w[1, SPEC.slices[SPEC.names[0]]] = 0  # all its units are constant
    found = alignment.activations(SPEC, w, IMAGES)
    assert not any(layer[1].any() for layer in found)
    for i in (0, 2):
        _, stages = SPEC.module().apply(SPEC.unflatten(w[i]), IMAGES, return_stages=True)
        for layer, stage in zip(found, stages.values(), strict=True):
            expected = np.asarray(stage).reshape(-1, stage.shape[-1])
            expected = (expected - expected.mean(0)) / expected.std(0)
            assert layer.shape == (3, *expected.shape)
            np.testing.assert_allclose(layer[i], expected, atol=1e-4)


@pytest.mark.parametrize("signs", [False, True])
def test_the_best_match_is_found(signs):
    table = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4))
    orders, factors, matched = alignment.assign(table, signs)
    value = np.abs if signs else np.asarray
    for each, order, factor, found in zip(table, orders, factors, matched, strict=True):
        sums = [value(each[range(4), p]).sum() for p in itertools.permutations(range(4))]
        np.testing.assert_allclose(found, each[range(4), order] * factor)
        np.testing.assert_allclose(found.sum(), max(sums))
    assert signs == (factors < 0).any()


@pytest.mark.parametrize("spec", [SPEC, RELU], ids=["tanh", "relu"])
def test_changed_copies_are_brought_back(spec):
    w = networks(spec, 1).repeat(4, 0)
    copies = transform(spec, w, symmetries(spec, 4))
    aligned = align(spec, copies, IMAGES, reference=w[0], rounds=1)
    np.testing.assert_array_equal(aligned.weights, w)
    np.testing.assert_allclose(aligned.correlations, np.ones((4, 3)), atol=1e-5)
    # Without a reference they get the order of the first.
    aligned = align(spec, copies, IMAGES)
    np.testing.assert_array_equal(aligned.weights, copies[:1].repeat(4, 0))


def test_later_rounds_align_to_the_mean_of_all():
    rng, w = np.random.default_rng(0), networks(SPEC, 1).repeat(6, 0)
    w = (w + 0.3 * w.std() * rng.normal(size=w.shape)).astype(np.float32)
    copies = transform(SPEC, w, symmetries(SPEC, 6))
    one, two = (align(SPEC, copies, IMAGES, rounds=rounds) for rounds in (1, 2))
    mean = [layer.mean(0) for layer in alignment.activations(SPEC, one.weights, IMAGES)]
    for expected, found in zip(mean, two.reference.activations, strict=True):
        np.testing.assert_allclose(found, expected / expected.std(0), atol=1e-4)
    assert np.all(two.correlations.mean(0) > one.correlations[1:].mean(0))


def test_a_reference_can_be_stored_and_reused():
    aligned = align(SPEC, networks(SPEC, 5), IMAGES)
    stored = Reference(*aligned.reference.__dict__.values())
    again = apply_reference(SPEC, networks(SPEC, 5), stored)
    np.testing.assert_array_equal(again.weights, aligned.weights)
    np.testing.assert_array_equal(again.correlations, aligned.correlations)
    moved_again = transform(SPEC, networks(SPEC, 5), again.symmetries)
    np.testing.assert_array_equal(moved_again, aligned.weights)
    # Other changes of the same networks, and fewer of them, come to the same place.
    copies = transform(SPEC, networks(SPEC, 5), symmetries(SPEC, 5))[3:]
    new = apply_reference(SPEC, copies, stored)
    np.testing.assert_array_equal(new.weights, aligned.weights[3:])


def test_copies_are_found_by_matched_distances(monkeypatch):
    rng, zoo = np.random.default_rng(1), networks(SPEC, 7)
    own = zoo[[4, 2, 0]]
    copies = transform(SPEC, own, symmetries(SPEC, 3))
    noise = 0.2 * zoo.std() * rng.normal(size=own.shape)
    for name in SPEC.names[-2:]:  # what all classes share is no difference, see `canonical`
        classes = noise[:, SPEC.slices[name]].reshape(3, 3, -1)
        classes -= classes.mean(1, keepdims=True)
    noisy = transform(SPEC, (own + noise).astype(np.float32), symmetries(SPEC, 3))
    given = np.linalg.norm(noisy[:, None] - zoo, axis=2)
    found = matched_distances(SPEC, np.concatenate([copies, noisy]), zoo, IMAGES)
    assert found.shape == (6, 7)
    np.testing.assert_array_equal(found.argmin(1), [4, 2, 0, 4, 2, 0])
    np.testing.assert_allclose(found.min(1)[:3], 0, atol=1e-4)
    np.testing.assert_allclose(found.min(1)[3:], np.linalg.norm(noise, axis=1), rtol=1e-4)
    assert np.all(found[3:] <= given + 1e-5) and found[3:].mean() < 0.9 * given.mean()
    monkeypatch.setattr(matching, "_VALUES", 1)  # a network at a time
    np.testing.assert_allclose(matched_distances(SPEC, copies, zoo, IMAGES), found[:3], atol=1e-5)


def test_a_match_that_is_worse_than_none_is_not_used():
    # The networks differ in the order of their units' functions, but not in their later weights.
    w = networks(SPEC, 2)
    w[1] = w[0]
    first = SPEC.slices[SPEC.names[0]]
    w[1, first] = w[0, first].reshape(5, -1)[[1, 2, 3, 4, 0]].ravel()
    w[:, first] *= 0.1
    w[:, SPEC.slices[SPEC.names[2]]] *= 10
    as_given = np.linalg.norm(w[0] - w[1])
    assert np.linalg.norm(align(SPEC, w, IMAGES, rounds=1).weights[1] - w[0]) > 2 * as_given
    found = matched_distances(SPEC, w[:1], w[1:], IMAGES)
    np.testing.assert_allclose(found, as_given, rtol=1e-5)


def test_mistakes_are_named():
    w = networks(SPEC, 2)
    same = symmetries(SPEC, 2)
    foreign = WeightSpec((Entry("a", "params/a/kernel", (1, 3)),))
    with pytest.raises(UserError, match="model cnn can be aligned, not None"):
        align(foreign, np.zeros((2, 3)), IMAGES)
    part = SPEC.subset(lambda name: name.endswith("bias"))
    with pytest.raises(UserError, match="not a part of cnn"):
        transform(part, w, same)
    with pytest.raises(UserError, match=rf"\(N, {SPEC.size}\).*not \(2, {SPEC.size - 1}\)"):
        matched_distances(SPEC, w, w[:, 1:], IMAGES)
    with pytest.raises(UserError, match="not .0, "):
        align(SPEC, w[:0], IMAGES)
    with pytest.raises(UserError, match="not .1, 3."):
        align(SPEC, w, IMAGES, reference=w[0, :3])
    with pytest.raises(UserError, match="preprocessed.*not uint8"):
        align(SPEC, w, IMAGES.astype(np.uint8))
    with pytest.raises(UserError, match="conv_0 of this CNN 3 inputs, but its weights have 1"):
        align(SPEC, w, IMAGES.repeat(3, axis=-1))
    with pytest.raises(UserError, match="dense_0 of this CNN 36 inputs, but its weights have 16"):
        align(SPEC, w, np.zeros((2, 10, 10, 1), np.float32))
    with pytest.raises(UserError, match="at least one round, not 0"):
        align(SPEC, w, IMAGES, rounds=0)
    with pytest.raises(UserError, match="2 networks need as many symmetries, not 1"):
        transform(SPEC, w, same[:1])
    with pytest.raises(UserError, match="conv_0 needs a permutation of 0 to 4"):
        transform(
            SPEC, w[:1], [Symmetry((np.zeros(5, int), *same[0].permutations[1:]), same[0].signs)]
        )
    with pytest.raises(UserError, match="dense_0 needs 6 signs 1 or -1"):
        transform(SPEC, w[:1], [Symmetry(same[0].permutations, (*same[0].signs[:2], np.zeros(6)))])
    with pytest.raises(UserError, match="3 permutations and signs"):
        transform(SPEC, w[:1], [Symmetry(same[0].permutations[:2], same[0].signs)])
    other = small.spec(channels=(4, 4), hidden=(6,), num_classes=3)
    with pytest.raises(UserError, match="reference is of a CNN of other sizes"):
        apply_reference(other, networks(other, 1), align(SPEC, w, IMAGES, rounds=1).reference)
