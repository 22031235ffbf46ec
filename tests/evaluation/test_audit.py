"""The audit of samples against closed forms, and what it must catch."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.evaluation import audit, novelty
from flown_jax.evaluation.audit import Distances, distances_of, measure, yard
from flown_jax.evaluation.classification import difference_interval, interval
from flown_jax.weights.statistics import distances
from flown_jax.weights.symmetries import permuted
from tests.weights.test_alignment import IMAGES, SPEC, networks
from tests.weights.test_canonical import rescaled, spec_of

PLAIN = distances_of(SPEC)
# Corners of a rectangle: nearest others at 3, and directions of our own.
TRAIN = np.array([[1, 1], [4, 1], [1, 5], [4, 5]], np.float64)
LABELS = np.arange(40) % 2
RIGHT = np.tile(LABELS, (4, 1))


def wrong(*counts, first=0):
    """Predictions that are wrong on the first so many images, of each network."""
    found = np.tile(LABELS, (len(counts), 1))
    for row, count in zip(found, counts, strict=True):
        row[first : first + count] = 1 - row[first : first + count]
    return found


SCALE = yard(PLAIN, TRAIN, wrong(20, 24, 28, 32), LABELS)


def values(found):
    return {name: metric["value"] for name, metric in found.metrics.items()}


def test_the_yard_is_the_zoos_own():
    assert SCALE.tau == pytest.approx(3.0) and PLAIN.kind == "as they are"
    assert SCALE.pairwise == pytest.approx((2 * 3 + 2 * 4 + 2 * 5) / 6)
    units = TRAIN / np.linalg.norm(TRAIN, axis=1, keepdims=True)
    assert SCALE.direction_pairwise == pytest.approx(novelty.pairwise(distances(units))[0])
    assert SCALE.length == pytest.approx(np.linalg.norm(TRAIN, axis=1).mean())
    np.testing.assert_allclose(SCALE.accuracies, [0.5, 0.4, 0.3, 0.2])
    assert SCALE.least == pytest.approx(0.918 * 0.35)
    few = yard(PLAIN, TRAIN, wrong(20, 24, 28, 32), LABELS, own=[0, 2, 3], networks=2)
    assert few.tau == pytest.approx(3.0)  # of 4, 3, 3
    assert few.pairwise == pytest.approx(4.0)
    assert few.least == pytest.approx(0.918 * 0.3) and len(few.accuracies) == 4


def test_directions_are_those_of_unit_vectors():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(3, 7)) * 9
    lengths = [np.linalg.norm(x, axis=1) for x in (a, b)]
    units = [x / n[:, None] for x, n in zip((a, b), lengths, strict=True)]
    found = novelty.direction_distances(distances(a, b), *lengths)
    np.testing.assert_allclose(found, distances(*units), rtol=1e-9)
    zero = novelty.direction_distances(distances(np.eye(3)[:2] * 0 + [[0] * 3, [2, 0, 0]]), [0, 2])
    np.testing.assert_array_equal(zero, [[0, 1], [1, 0]])
    with pytest.raises(UserError, match="need a length of each"):
        novelty.direction_distances(np.ones((2, 3)), lengths[0])


def test_the_zoo_itself_is_no_copy_of_itself():
    found = measure(SCALE, TRAIN, wrong(20, 24, 28, 32), itself=True)
    got = values(found)
    assert got["nearest"] == pytest.approx(1.0) and got["copies"] == 0
    assert got["diversity"] == got["direction_diversity"] == pytest.approx(1.0)
    assert got["length"] == pytest.approx(1.0) and got["duplicates"] == 0
    assert got["accuracy_minus_originals"] == got["accuracy_max_minus_originals"] == 0
    # Errors of one are part of those of the next.
    assert got["error_iou_train"] == pytest.approx(np.mean([20 / 24, 24 / 28, 28 / 32, 28 / 32]))
    # The nearest other one of the first and second are each other, and of the third and fourth.
    assert got["disagreement_nearest"] == pytest.approx(4 / 40)
    assert got["disagreement_among"] == pytest.approx((3 * 4 + 2 * 8 + 12) / 6 / 40)
    assert found.metrics["nearest"]["ci95"] is None
    assert not found.samples["copy"].any() and "accuracy_copies" not in got
    np.testing.assert_allclose(found.samples["similarity"][0], 20 / 24)


def test_samples_are_counted_by_hand():
    made = np.array([[1, 1.3], [4, -2], [10, 5], [np.nan, 0]])
    found = measure(SCALE, made, wrong(4, 24, 20, 0))
    got = values(found)
    np.testing.assert_allclose(found.samples["nearest"], [0.1, 1, 2, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(found.samples["copy"], [True, False, False, False])
    np.testing.assert_allclose(found.samples["accuracy"], [0.9, 0.4, 0.5, 0.0])
    assert got["not_finite"] == 1 and found.metrics["nearest"]["n"] == 3
    assert got["copies"] == 1 and got["accuracy_copies"] == pytest.approx(0.9)
    assert found.metrics["accuracy_others"] == {
        "value": pytest.approx(0.45),
        "ci95": pytest.approx(interval([0.4, 0.5])[1]),
        "n": 2,
    }
    assert got["novel_performant_1"] == 2 / 4 and got["novel_performant_2"] == 1 / 4
    assert got["novel_performant_3"] == got["novel_performant_6"] == 0
    expected = difference_interval([0.9, 0.4, 0.5, 0.0], [0.5, 0.4, 0.3, 0.2])
    assert got["accuracy_minus_originals"] == pytest.approx(expected[0])
    assert found.metrics["accuracy_minus_originals"]["ci95"] == pytest.approx(expected[1])
    assert got["accuracy_max_minus_originals"] == pytest.approx(0.9 - 0.5)
    # The first sample has too few errors to share any.
    assert np.isnan(found.samples["similarity"][[0, 3]]).all()
    assert found.metrics["error_iou_train"]["n"] == 2
    between = distances(made[:3])
    np.testing.assert_allclose(
        found.samples["diversity"][:3], between.sum(1) / 2 / SCALE.pairwise, rtol=1e-6
    )
    assert np.isnan(found.samples["diversity"][3])
    # Of three votes two are needed; the fourth network has none.
    assert got["accuracy_vote"] == pytest.approx(1 - 20 / 40)


def test_no_finite_sample_has_an_accuracy_alone():
    got = values(measure(SCALE, np.full((2, 2), np.inf), wrong(0, 0)))
    assert got["accuracy"] == 0 and got["not_finite"] == 2 and got["novel_performant_1"] == 0
    assert "nearest" not in got and "diversity" not in got


def zoo_of(spec, kind=None):
    train = networks(spec, 8)
    predictions = np.random.default_rng(1).integers(0, 3, (8, 60))
    return yard(kind or distances_of(spec, IMAGES), train, predictions, np.arange(60) % 3)


MATCHED = zoo_of(SPEC)
GUESSES = np.random.default_rng(2).integers(0, 3, (8, 60))


def noise(spec, weights, strength):
    scale = np.empty(spec.size)
    for place in spec.slices.values():
        scale[place] = weights[:, place].std()
    drawn = np.random.default_rng(3).normal(size=weights.shape)
    return (weights + strength * scale * drawn).astype(np.float32)


def test_one_network_printed_many_times_is_caught():
    made = np.repeat(networks(SPEC, 1, seed=5), 8, 0)
    got = values(measure(MATCHED, made, np.repeat(GUESSES[:1], 8, 0)))
    assert got["copies"] == 0  # it is new, and
    assert got["diversity"] < 1e-3 and got["direction_diversity"] < 1e-3
    assert got["duplicates"] == 7 and got["disagreement_among"] == 0
    assert got["error_iou_among"] == pytest.approx(1.0)


def test_noise_and_other_orders_of_units_are_copies():
    got = measure(MATCHED, noise(SPEC, MATCHED.train, 0.1), MATCHED.predictions)
    assert values(got)["copies"] == 8 and got.samples["copy"].all()
    assert values(got)["disagreement_nearest"] == 0 and "accuracy_others" not in got.metrics
    moved = permuted(SPEC, noise(SPEC, MATCHED.train, 0.05), np.random.default_rng(0))
    assert values(measure(MATCHED, moved, GUESSES))["copies"] == 8
    plain = zoo_of(SPEC, PLAIN)
    assert values(measure(plain, moved, GUESSES))["copies"] == 0  # as they are: strangers
    assert values(measure(MATCHED, networks(SPEC, 8, seed=7), GUESSES))["copies"] == 0


def test_units_of_another_scale_are_copies_of_the_same_length():
    relu = spec_of("relu")
    scale = zoo_of(relu)
    made = np.stack([rescaled(relu, w, 1.0) for w in scale.train])
    got = values(measure(scale, made, scale.predictions))
    assert scale.distances.kind == "matched"
    assert got["copies"] == 8 and got["length"] == pytest.approx(1.0, abs=1e-4)
    assert values(measure(scale, made, scale.predictions))["nearest"] < 1e-3


def test_distance_bought_by_length_is_seen():
    near = MATCHED.train.mean(0) + 0.5 * (networks(SPEC, 8, seed=8) - MATCHED.train.mean(0))
    got, longer = (values(measure(MATCHED, w, GUESSES)) for w in (near, 3 * near))
    assert longer["diversity"] == pytest.approx(3 * got["diversity"], rel=1e-2)
    assert longer["length"] == pytest.approx(3 * got["length"], rel=1e-4)
    assert longer["nearest"] > got["nearest"]
    assert longer["direction_diversity"] == pytest.approx(got["direction_diversity"], rel=1e-2)


def test_parts_and_other_networks_are_compared_as_they_are():
    part = SPEC.subset(lambda name: name == SPEC.names[0])
    assert distances_of(part, IMAGES).kind == distances_of(SPEC).kind == "as they are"
    assert isinstance(distances_of(SPEC, IMAGES), Distances)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: yard(PLAIN, TRAIN, RIGHT, LABELS, own=[1]), "has 1 networks"),
        (lambda: yard(PLAIN, TRAIN * np.nan, RIGHT, LABELS), "training network 0 has weights"),
        (lambda: yard(PLAIN, TRAIN, RIGHT[:3], LABELS), "4 networks have predictions of 3"),
        (lambda: yard(PLAIN, TRAIN, RIGHT, LABELS[1:]), r"with labels \(n,\)"),
        (lambda: yard(PLAIN, TRAIN[[0, 0, 1, 1]], RIGHT, LABELS), "equal to another one"),
        (lambda: measure(SCALE, TRAIN[:3], RIGHT[:2]), "3 networks have predictions of 2"),
        (lambda: measure(SCALE, TRAIN[:3], RIGHT[:3], itself=True), "not the 4 training"),
        (lambda: measure(SCALE, TRAIN[:0], RIGHT[:0]), "0 networks have predictions of 0"),
    ],
)
def test_mistakes_are_told(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


def test_multiples_of_tau_are_the_fields():
    assert audit.MULTIPLES == (1, 2, 3, 4, 6)
