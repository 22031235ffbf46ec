"""Logistic regression on the support images: scikit-learn's L-BFGS, task by task."""

from __future__ import annotations

import warnings

import numpy as np


def fit_logistic(features: np.ndarray, *, inverse_penalty: float) -> np.ndarray:
    """Heads of penalised multinomial logistic regression, (T, n, F + 1), float32.

    Args:
      features: support features by class, (T, n, k, F).
      inverse_penalty: C of scikit-learn: the loss is |W|^2 / 2 + C times the summed cross-entropy;
        the intercept is not penalised.
    Raises:
      ValueError: features without four axes, C <= 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if np.ndim(features) != 4 or inverse_penalty <= 0:
        raise ValueError(
            f"fit_logistic wants features (T, n, k, F) and C > 0, not {np.shape(features)} and "
            f"{inverse_penalty}."
        )
    tasks, way, shot, width = features.shape
    labels = np.repeat(np.arange(way), shot)
    model = LogisticRegression(C=inverse_penalty, max_iter=200)
    heads = np.zeros((tasks, way, width + 1), np.float32)
    with warnings.catch_warnings():
        # 200 iterations are enough for accuracies; the rest of the decimals is not worth a line.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for head, support in zip(heads, features, strict=True):
            model.fit(support.reshape(way * shot, width), labels)
            if way == 2:
                # scikit-learn keeps one row for two classes, the logit of the second.
                head[1, :-1], head[1, -1] = model.coef_[0], model.intercept_[0]
            else:
                head[:, :-1], head[:, -1] = model.coef_, model.intercept_
    return heads
