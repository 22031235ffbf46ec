"""Accuracy, NLL, calibration, intervals: closed forms."""

import numpy as np
import pytest
from scipy import stats

from flown_jax.evaluation import (
    accuracy,
    ece,
    ensemble_log_probs,
    fit_temperature,
    interval,
    nll,
    paired_interval,
    tempered,
    top_k_by,
)
from flown_jax.evaluation.classification import difference_interval, index_of_best

pytestmark = pytest.mark.fast


def test_accuracy_and_nll_per_task():
    probs = np.asarray([[[0.7, 0.3], [0.4, 0.6]], [[0.1, 0.9], [0.2, 0.8]]])
    labels = np.asarray([0, 0])
    np.testing.assert_allclose(accuracy(np.log(probs), labels), [0.5, 0.0])
    expected = [-np.log([0.7, 0.4]).mean(), -np.log([0.1, 0.2]).mean()]
    np.testing.assert_allclose(nll(np.log(probs), labels), expected)
    per_task = np.asarray([[0, 1], [1, 0]])
    np.testing.assert_allclose(accuracy(np.log(probs), per_task), [1.0, 0.5])


def test_ece_closed_forms():
    probs = np.full((100, 2), [0.8, 0.2])
    labels = np.asarray([0] * 80 + [1] * 20)
    np.testing.assert_allclose(ece(np.log(probs), labels), 0.0, atol=1e-12)
    np.testing.assert_allclose(ece(np.log(probs), np.zeros(100, int)), 0.2, atol=1e-12)
    # Two bins with opposite gaps do not cancel.
    probs = np.concatenate([np.full((50, 2), [0.9, 0.1]), np.full((50, 2), [0.6, 0.4])])
    labels = np.asarray([0] * 35 + [1] * 15 + [0] * 40 + [1] * 10)
    np.testing.assert_allclose(ece(np.log(probs), labels), 0.2, atol=1e-12)
    assert ece(np.log(probs), labels, bins=1) < 1e-12
    certain = np.asarray([[0.0, -np.inf]])
    assert ece(certain, np.asarray([0])) == 0.0


def test_interval_is_students():
    values = np.asarray([0.2, 0.5, 0.4, 0.9])
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    np.testing.assert_allclose([mean - half, mean + half], [low, high])


def test_one_number_has_no_interval():
    assert interval([0.3]) == (0.3, None)
    assert paired_interval([0.5], [0.25]) == (0.25, None)
    assert difference_interval([0.5], [0.25, 0.25]) == (0.25, None)
    assert difference_interval([0.5, 0.5], [0.25]) == (0.25, None)
    assert difference_interval([1.0, 1.0], [0.5, 0.5]) == (0.5, 0.0)


def covered(draw, truth, times=1000):
    """Share of the times that an interval holds the truth, and 3.3 of its deviations."""
    found = [draw() for _ in range(times)]
    return np.mean([abs(mean - truth) <= half for mean, half in found]), 3.3 * (
        0.95 * 0.05 / times
    ) ** 0.5


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_interval_covers(count):
    rng = np.random.default_rng(count)
    share, tolerance = covered(lambda: interval(0.7 + 0.2 * rng.normal(size=count)), 0.7)
    assert abs(share - 0.95) < tolerance


@pytest.mark.parametrize("count", [3, 50])
def test_a_paired_interval_covers(count):
    rng = np.random.default_rng(count)

    def draw():
        task = rng.normal(size=count)
        return paired_interval(task + 0.1 + 0.3 * rng.normal(size=count), task)

    share, tolerance = covered(draw, 0.1)
    assert abs(share - 0.95) < tolerance


@pytest.mark.parametrize(
    ("count", "others", "std"), [(50, 80, 0.3), (10, 80, 3.0), (5, 40, 3.0), (20, 20, 1.0)]
)
def test_the_interval_of_a_difference_of_two_groups_covers(count, others, std):
    rng = np.random.default_rng(count)
    share, tolerance = covered(
        lambda: difference_interval(0.1 + std * rng.normal(size=count), rng.normal(size=others)),
        0.1,
    )
    assert abs(share - 0.95) < tolerance


def test_the_interval_of_a_difference_is_welchs():
    values, others = [0.2, 0.5, 0.4, 0.9], [0.1, 0.3, 0.2]
    mean, half = difference_interval(values, others)
    low, high = stats.ttest_ind(values, others, equal_var=False).confidence_interval()
    np.testing.assert_allclose([mean - half, mean + half], [low, high])


def test_paired_interval_removes_what_tasks_share():
    rng = np.random.default_rng(0)
    task = rng.normal(size=50)
    mean, half = paired_interval(task + 0.1 + 0.01 * rng.normal(size=50), task)
    assert abs(mean - 0.1) < half < 0.01


def test_ensemble_averages_probabilities():
    probs = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 2, 5))
    np.testing.assert_allclose(np.exp(ensemble_log_probs(np.log(probs))), probs.mean(0))
    moved = np.moveaxis(np.log(probs), 0, 1)
    np.testing.assert_allclose(np.exp(ensemble_log_probs(moved, axis=1)), probs.mean(0))


def test_top_k_by():
    scores = np.asarray([[0.1, 0.9, 0.5, 0.9], [1.0, 0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(top_k_by(scores, 2), [[1, 3], [3, 0]])
    np.testing.assert_array_equal(top_k_by(scores, 3)[1], [3, 0, 1])


@pytest.mark.parametrize("temperature", [0.05, 1.0, 16.0])
def test_fit_temperature_finds_the_temperature_that_made_the_labels(temperature):
    rng = np.random.default_rng(0)
    calibrated = tempered(2 * rng.normal(size=(200, 75, 5)), 1.0)
    labels = (calibrated + rng.gumbel(size=calibrated.shape)).argmax(-1)
    logits = temperature * calibrated
    fitted = fit_temperature(logits, labels)
    assert abs(fitted / temperature - 1) < 0.03
    best = nll(tempered(logits, fitted), labels).mean()
    for factor in (0.9, 1.1):
        assert best < nll(tempered(logits, factor * fitted), labels).mean()


def test_refusals():
    with pytest.raises(ValueError, match=r"labels \(3,\) must be"):
        accuracy(np.zeros((2, 4, 5)), np.zeros(3, int))
    with pytest.raises(ValueError, match="one number a task"):
        interval([])
    with pytest.raises(ValueError, match="one number a task"):
        interval([[0.3, 0.4]])
    with pytest.raises(ValueError, match="compares the same tasks"):
        paired_interval([0.3, 0.4], [0.3])
    with pytest.raises(ValueError, match=r"k in 1\.\.2, not 3"):
        top_k_by([0.1, 0.2], 3)


NO_PREDICTIONS = [np.nan, -np.inf, [np.nan, 0.0, -1.0], [np.inf, 0.0, np.inf]]


@pytest.mark.parametrize("row", NO_PREDICTIONS)
@pytest.mark.parametrize("label", [0, 1, 2])
def test_what_is_no_prediction_counts_as_no_class(row, label):
    scores = np.log(np.full((2, 4, 3), 1 / 3))
    scores[1, 2] = row
    labels = np.full(4, label)
    right = accuracy(scores, labels)
    assert np.isfinite(right[0]) and np.isnan(right[1])
    if not np.isposinf(row).any():
        assert np.isnan(ece(scores, labels))
        assert not np.isfinite(nll(scores, labels)[1]) or label > 0
    with pytest.raises(ValueError, match="finite likelihoods"):
        fit_temperature(scores, labels)


def test_what_no_head_gives_is_impossible():
    heads = np.log([[[1e-9, 1.0]], [[1e-9, 1.0]]])
    heads[..., 0] = -np.inf
    with np.errstate(all="raise"):
        mean = ensemble_log_probs(heads)
    np.testing.assert_array_equal(mean, [[-np.inf, 0.0]])
    assert accuracy(mean, [1]) == 1 and np.isinf(nll(mean, [0])) and ece(mean, [1]) == 0
    heads[1] = np.nan
    assert np.isnan(ensemble_log_probs(heads)).all()
    with pytest.raises(ValueError, match="no heads to average"):
        ensemble_log_probs(np.zeros((0, 4, 3)))


def test_a_confidence_on_an_edge_is_in_the_bin_below_however_it_is_rounded():
    scores = np.log(np.full((100, 5), 0.2))  # the edge of the third bin of fifteen
    scores += np.random.default_rng(0).normal(scale=1e-8, size=(100, 1))
    labels = np.r_[np.zeros(20, int), np.ones(80, int)]
    assert ece(scores, labels) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 1, 2, -1], r"must lie in 0\.\.2, and these reach from -1 to 2"),
        ([0, 1, 2, 3], r"must lie in 0\.\.2"),
        ([0.0, 1.0, 2.0, 0.0], "must be integers, not float64"),
        ([True, False, True, True], "must be integers, not bool"),
    ],
)
@pytest.mark.parametrize("measure", [accuracy, nll, ece, fit_temperature])
def test_labels_that_are_no_classes_are_refused(measure, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure(np.log(np.full((4, 3), 1 / 3)), labels)


@pytest.mark.parametrize("measure", [accuracy, nll, ece, fit_temperature])
def test_no_queries_have_no_figure(measure):
    with pytest.raises(ValueError, match="no queries"):
        measure(np.zeros((2, 0, 3)), np.zeros(0, int))


def test_numbers_outside_of_their_range_are_refused():
    scores, labels = np.log(np.full((4, 3), 1 / 3)), np.zeros(4, int)
    for measure in (nll, ece):
        with pytest.raises(ValueError, match="at most 0, and these reach 2: normalise"):
            measure(np.eye(3)[[0, 1, 2, 0]] * 2.0, labels)
    for bins in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="bins must be a whole number"):
            ece(scores, labels, bins)
    for temperature in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite number above 0"):
            tempered(scores, temperature)
    for confidence in (0, 1, 95, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            interval([0.1, 0.2], confidence)
    for k in (0, True, 1.0):
        with pytest.raises(ValueError, match=r"k in 1\.\.3"):
            top_k_by([0.1, 0.2, 0.3], k)
    np.testing.assert_array_equal(top_k_by([np.nan, 0.2, 0.3], 2), [2, 1])


def test_nothing_that_is_no_number_is_chosen():
    assert index_of_best([0.1, np.nan, 0.3, 0.3]) == 2
    assert index_of_best([np.nan, 0.4, 0.2, 0.2], smallest=True) == 2
    for scores in ([np.nan, np.nan], [], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match="nothing can be chosen"):
            index_of_best(scores)
