"""Logistic regression on the support: scikit-learn's own predictions, as heads."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from flown_jax.models.logistic import fit_logistic
from tests.few_shot import small


@pytest.mark.parametrize(("way", "shot", "penalty"), [(3, 2, 1.0), (5, 1, 0.1), (2, 3, 1.0)])
def test_heads_predict_what_scikit_learn_predicts(way, shot, penalty):
    table = small.table(tasks=3, way=way, shot=shot, seed=way)
    heads = fit_logistic(table.support(), inverse_penalty=penalty)
    assert heads.shape == (3, way, small.WIDTH + 1) and heads.dtype == np.float32
    for head, support, query in zip(heads, table.support(), table.query(), strict=True):
        images = query.reshape(-1, small.WIDTH)
        labels = np.repeat(np.arange(way), shot)
        model = LogisticRegression(C=penalty, max_iter=200)
        model.fit(support.reshape(-1, small.WIDTH), labels)
        scores = images @ head[:, :-1].T + head[:, -1]
        probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        np.testing.assert_allclose(probabilities, model.predict_proba(images), atol=1e-5)
        np.testing.assert_array_equal(scores.argmax(-1), model.predict(images))


def test_a_weaker_penalty_makes_longer_heads():
    support = small.table(tasks=2).support()
    strong, weak = (
        np.linalg.norm(fit_logistic(support, inverse_penalty=c)[..., :-1]) for c in (0.01, 10.0)
    )
    assert weak > 5 * strong


@pytest.mark.parametrize(("shape", "penalty"), [((3, 2, 4), 1.0), ((1, 3, 2, 4), 0.0)])
def test_features_without_tasks_and_no_penalty_are_refused(shape, penalty):
    with pytest.raises(ValueError, match=r"wants features \(T, n, k, F\) and C > 0, not \("):
        fit_logistic(np.ones(shape, np.float32), inverse_penalty=penalty)
