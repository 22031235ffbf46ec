"""Measures of novelty against closed forms: copies, equal networks, disjoint errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from flown_jax.errors import UserError
from flown_jax.evaluation import novelty
from flown_jax.evaluation.classification import interval
from flown_jax.evaluation.novelty import Figure, Yardstick
from flown_jax.weights.statistics import distances

pytestmark = pytest.mark.fast

# Training networks are corners of a square of side 2, held-out ones lie at distance 1 of them.
TRAIN = np.array([[0, 0], [2, 0], [0, 2], [2, 2]], np.float32)
HELD_OUT = np.array([[1, 0], [0, 1]], np.float32)
UNIT = novelty.yardstick(distances(HELD_OUT, TRAIN), distances(TRAIN))


def row(samples, **options):
    return novelty.report(distances(samples, TRAIN), distances(samples), UNIT, **options)


def values(figures):
    return {name: figure.value for name, figure in figures.items()}


def test_the_yardstick_is_that_of_the_zoo():
    assert UNIT.nearest == pytest.approx(1.0)
    assert UNIT.pairwise == pytest.approx((4 * 2 + 2 * 8**0.5) / 6)
    held_out = row(HELD_OUT)
    assert held_out["nn"].value == pytest.approx(1.0) and held_out["copies"].value == 0


def test_copies_are_found_by_their_distance():
    samples = np.array([[0, 0.3], [2, 0.5], [2, 1.4], [1, 1]], np.float32)
    ratios = novelty.nearest_ratio(distances(samples, TRAIN), Yardstick(0.5, 1.0))
    np.testing.assert_allclose(ratios, [0.6, 1.0, 1.2, 2 * 2**0.5], rtol=1e-6)
    np.testing.assert_array_equal(
        novelty.copies(novelty.nearest_ratio(distances(samples, TRAIN), UNIT)),
        [True, False, False, False],  # a half is not below a half
    )
    assert row(samples)["copies"].value == 1
    assert row(samples, copy_threshold=0.7)["copies"].value == 3
    assert row(samples)["nn_smallest"].value == pytest.approx(0.3)
    mean, half = interval([0.3, 0.5, 0.6, 2**0.5])
    assert row(samples)["nn"].value == pytest.approx(mean)
    assert row(samples)["nn"].ci95 == pytest.approx(half)


def test_no_copies_among_24_leave_a_share_open():
    samples = np.random.default_rng(0).normal(50, 1, (24, 2))
    found = row(samples)
    assert found["copies"] == Figure(0, None, 24)
    assert found["copies_at_most"].value == pytest.approx(1 - 0.05 ** (1 / 24))
    # The bound is the share at which so few copies have a probability of 5 %.
    some = row(np.concatenate([samples[:21], TRAIN[:3]]))
    assert stats.binom.cdf(3, 24, some["copies_at_most"].value) == pytest.approx(0.05)
    assert row(TRAIN)["copies_at_most"].value == 1.0


def test_one_network_printed_many_times_is_new_but_not_diverse():
    found = row(np.full((5, 2), 1.0))
    assert found["copies"].value == 0
    assert found["diversity"] == Figure(0.0, pytest.approx(0.0), 5)
    assert found["duplicates"].value == 4


def test_the_zoo_itself_is_measured_without_itself():
    assert values(row(TRAIN)) | {"nn": 0.0, "copies": 4} == values(row(TRAIN))
    found = row(TRAIN, itself=True)
    assert found["nn"].value == pytest.approx(2.0) and found["copies"].value == 0
    assert found["diversity"].value == pytest.approx(1.0)
    assert found["duplicates"].value == 0


def test_diversity_is_the_ratio_of_mean_distances():
    samples = TRAIN * 0.25 + 7
    assert novelty.diversity(distances(samples), UNIT) == pytest.approx(0.25)
    assert row(samples)["diversity"].value == pytest.approx(0.25)
    assert row(samples[:1])["diversity"] == Figure(None, None, 1)


def test_the_interval_of_pairs_is_that_of_samples():
    # The mean of (x_i + x_j) / 2 over pairs is the mean of x: so is its jackknife.
    x = np.array([1.0, 4.0, 2.0, 7.0])
    matrix = (x[:, None] + x[None]) / 2
    np.testing.assert_allclose(novelty.pairwise(matrix), interval(x))
    assert novelty.pairwise(matrix[:2, :2]) == (2.5, None)
    # Of a matrix that is not symmetric both halves count.
    assert novelty.pairwise([[9, 1], [2, 9]]) == (1.5, None)


def test_duplicates_do_not_depend_on_the_order():
    chain = np.array([[0.0], [0.9], [1.8], [5.0], [9.0], [9.1]])
    for order in (np.arange(6), np.array([2, 5, 0, 3, 4, 1])):
        assert novelty.duplicates(distances(chain[order]), 1.0) == 3
    assert novelty.duplicates(distances(chain), 0.5) == 1
    assert novelty.duplicates(distances(chain), 0.0) == 0


def test_error_sets_and_their_overlap():
    labels = np.array([0, 1, 2, 0, 1, 2])
    predictions = np.array(
        [[0, 1, 2, 0, 1, 2], [1, 2, 2, 0, 1, 2], [0, 0, 1, 0, 1, 2], [0, 1, 2, 1, 1, 2]]
    )
    errors = novelty.error_sets(predictions, labels)
    np.testing.assert_array_equal(errors.sum(1), [0, 2, 2, 1])
    # Networks 1 and 2 share one of three images, although their wrong answers differ.
    expected = [[np.nan, 0, 0, 0], [0, 1, 1 / 3, 0], [0, 1 / 3, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(novelty.error_iou(errors), expected)
    np.testing.assert_allclose(novelty.error_iou(errors[1:2], errors), expected[1:2])


def test_independent_errors_share_what_the_docstring_says():
    draw = np.random.default_rng(0)
    errors = draw.random((2, 200_000)) < np.array([[0.3], [0.2]])
    expected = 0.3 * 0.2 / (0.3 + 0.2 - 0.3 * 0.2)
    assert novelty.error_iou(errors)[0, 1] == pytest.approx(expected, abs=0.005)


def test_shared_errors_of_a_report():
    train_errors = np.zeros((4, 12), bool)
    for i in range(4):
        train_errors[i, 3 * i : 3 * i + 3] = True  # disjoint
    errors = np.zeros((4, 12), bool)
    errors[0] = train_errors[2]  # a copy
    errors[1, :4] = True  # three of four errors are those of network 0
    errors[2, 3:5] = True  # two of three of network 1
    found = row(TRAIN + 0.5, errors=errors, train_errors=train_errors, fewest_errors=2)
    # The sample without an error is left out.
    assert found["error_iou_train"].n == found["error_iou_among"].n == 3
    mean, half = interval([1.0, 3 / 4, 2 / 3])
    assert found["error_iou_train"].value == pytest.approx(mean)
    assert found["error_iou_train"].ci95 == pytest.approx(half)
    assert found["error_iou_among"].value == pytest.approx((0 + 0 + 1 / 5) / 3)
    none = row(TRAIN + 0.5, errors=errors, train_errors=train_errors)
    assert none["error_iou_train"] == none["error_iou_among"] == Figure(None, None, 0)
    own = row(TRAIN, errors=train_errors, train_errors=train_errors, itself=True, fewest_errors=1)
    assert own["error_iou_train"].value == own["error_iou_among"].value == 0.0


ERRORS = np.ones((4, 30), bool)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: novelty.nearest(np.zeros((0, 4))), "to_train must be a matrix of distances"),
        (lambda: novelty.nearest([[np.nan, 1.0]]), "negative or not finite"),
        (lambda: novelty.nearest([[-1.0, 1.0]]), "negative or not finite"),
        (lambda: novelty.nearest(np.ones((2, 3)), itself=True), r"are \(N, N\) with N >= 2"),
        (lambda: novelty.yardstick(np.ones((2, 3)), np.ones((4, 4))), r"not \(2, 3\) and \(4, 4\)"),
        (lambda: novelty.yardstick(np.ones((2, 3)), np.zeros((3, 3))), "length zero"),
        (lambda: novelty.duplicates(np.ones((2, 3)), 1.0), "among themselves"),
        (lambda: novelty.pairwise([[0.0]]), "two samples or more"),
        (lambda: novelty.error_sets(np.zeros((2, 3)), np.zeros(4)), r"\(2, 3\) with \(4,\)"),
        (lambda: novelty.error_iou(ERRORS, ERRORS[:, 1:]), "of the same images"),
        (lambda: novelty.error_iou(ERRORS.astype(int)), "must be bool"),
        (lambda: novelty.report(np.ones((3, 4)), np.ones((2, 2)), UNIT), "give the same"),
        (lambda: row(TRAIN, errors=ERRORS), "or neither"),
        (lambda: row(TRAIN, errors=ERRORS, train_errors=ERRORS[:3]), "as many error sets"),
        (
            lambda: row(TRAIN, errors=ERRORS, train_errors=ERRORS, fewest_errors=0),
            "fewest_errors is 0",
        ),
    ],
)
def test_mistakes_are_told(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


@pytest.mark.parametrize("count", [8, 40])
def test_the_interval_of_pairs_covers(count):
    rng, times = np.random.default_rng(count), 600
    points = rng.normal(size=(2, 4000, 6))
    truth = np.linalg.norm(points[0] - points[1], axis=1).mean()
    hits = []
    for _ in range(times):
        made = rng.normal(size=(count, 6))
        mean, half = novelty.pairwise(np.linalg.norm(made[:, None] - made[None], axis=-1))
        hits.append(abs(mean - truth) <= half)
    assert abs(np.mean(hits) - 0.95) < 3.5 * (0.95 * 0.05 / times) ** 0.5


def test_the_bound_on_copies_holds():
    # The largest share that a count does not rule out is above the true one in 95 of 100 cases.
    rng, share = np.random.default_rng(0), 0.2
    hits = []
    for _ in range(400):
        near = np.where(rng.uniform(size=(30, 1)) < share, 0.1, 1.0)
        far = 1.0 - np.eye(30)
        found = novelty.report(near, far, novelty.Yardstick(1.0, 1.0))
        hits.append(found["copies_at_most"].value >= share)
    assert np.mean(hits) > 0.95 - 3.3 * (0.95 * 0.05 / 400) ** 0.5
