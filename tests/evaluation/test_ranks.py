"""Rank correlations against SciPy's, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from flown_jax.evaluation import ranks

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 8, 15).astype(float)  # with ties
PREDICTED = TRUTH + RNG.integers(-3, 4, 15)
COUNTS = np.concatenate([np.ones((1, 15)), RNG.multinomial(15, np.full(15, 1 / 15), 3)])


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (ranks.kendall, lambda t, p: stats.kendalltau(t, p).statistic),
        (ranks.spearman, lambda t, p: stats.spearmanr(t, p).statistic),
        (ranks.r2, lambda t, p: 1 - ((t - p) ** 2).mean() / t.var()),
    ],
)
def test_scores_of_draws_are_those_of_the_drawn_networks(score, expected):
    found = score(TRUTH, PREDICTED, COUNTS)
    for value, counts in zip(found, COUNTS.astype(int), strict=True):
        drawn = [np.repeat(values, counts) for values in (TRUTH, PREDICTED)]
        assert value == pytest.approx(expected(*drawn), abs=1e-12)
    same = np.ones(15)
    assert np.isnan(score(same, PREDICTED, COUNTS)).all()
    if score is not ranks.r2:
        assert np.isnan(score(TRUTH, same, COUNTS)).all()


def test_groups_are_compared_within_themselves():
    truth, groups = np.array([1.0, 2, 3, 11, 12, 13]), np.array([0, 0, 0, 1, 1, 1])
    runs = np.array([[1.0, 2, 3, 13, 12, 11], [1.0, 2, 3, 11, 12, 13]])
    found = ranks.scores(ranks.kendall, truth, runs, groups, np.ones((1, 6)))
    np.testing.assert_allclose(found, [[0.0], [1.0]])


def test_states_of_a_network_are_drawn_together():
    drawn = ranks.draws(np.array([7, 3, 7, 5]))
    assert drawn.shape == (1000, 4) and (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3]].sum(1) == 3).all() and drawn[:, 0].std() > 0


def test_half_widths_cover():
    rho, count, inside = 0.5, 20, 0
    for seed in range(60):
        x, y = (
            np.random.default_rng(seed).multivariate_normal([0, 0], [[1, rho], [rho, 1]], count).T
        )
        value = stats.kendalltau(x, y).statistic
        half = ranks.half_width(ranks.kendall(x, y, ranks.draws(np.arange(count), seed)), count)
        inside += abs(value - 2 / np.pi * np.arcsin(rho)) <= half
    assert 53 <= inside < 60  # of 60, at 95 %: 57
    assert ranks.half_width(np.ones(3), 1) is None
    assert ranks.half_width(np.full(3, np.nan), 5) is None
