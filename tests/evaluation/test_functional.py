"""Measures of predictions against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.evaluation import functional

PREDICTIONS = np.array([[0, 1, 2, 0], [0, 1, 1, 1], [2, 1, 2, -1]])


def test_disagreement_is_the_share_of_other_classes():
    expected = [[0, 2 / 4, 2 / 4], [2 / 4, 0, 3 / 4], [2 / 4, 3 / 4, 0]]
    np.testing.assert_allclose(functional.disagreement(PREDICTIONS), expected)
    np.testing.assert_allclose(
        functional.disagreement(PREDICTIONS[1:2], PREDICTIONS), expected[1:2]
    )
    assert functional.disagreement(PREDICTIONS[:0], PREDICTIONS).shape == (0, 3)


def test_votes_are_of_classes_and_ties_go_to_the_lowest():
    np.testing.assert_array_equal(functional.majority_vote(PREDICTIONS), [0, 1, 2, 0])
    np.testing.assert_array_equal(functional.majority_vote(PREDICTIONS[1:]), [0, 1, 1, 1])
    np.testing.assert_array_equal(functional.majority_vote([[-1, 2], [-1, -1]]), [-1, 2])
    np.testing.assert_array_equal(functional.majority_vote([[-1, -1]]), [-1, -1])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: functional.disagreement(PREDICTIONS, PREDICTIONS[:, 1:]), r"\(3, 4\) and \(3, 3"),
        (lambda: functional.majority_vote(PREDICTIONS[:0]), "K >= 1"),
    ],
)
def test_mistakes_are_told(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
