"""Accuracy, calibration and intervals of classifiers over tasks (paper section 3.2).

Predictions are log-probabilities (T, q, n) of T tasks. All on the host, in float64. A prediction
without a largest finite score (NaN, or every class impossible) is no prediction: it counts as no
class, and makes the figure of its task NaN. All functions raise ValueError for labels that are no
integers in 0..n-1 and for predictions of no queries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def accuracy(log_probs: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Share of right predictions of each task, (...).

    Args:
      log_probs: (..., q, n). labels: (..., q) or (q,) integers.
    """
    right, _ = _top(*_checked(log_probs, labels))
    return np.mean(right, axis=-1)


def nll(log_probs: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Mean negative log-probability of the true labels of each task, in nats, (...).

    Args:
      log_probs: (..., q, n), normalised. labels: (..., q) or (q,) integers.
    Raises:
      ValueError: also for logits that are not normalised.
    """
    scores, labels = _checked(log_probs, labels, normalised=True)
    return -np.mean(np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0], axis=-1)


def ece(log_probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the top label's probability, over all queries together.

    Args:
      log_probs: (..., q, n), normalised. labels: (..., q) or (q,) integers.
      bins: of equal width over (0, 1].
    Raises:
      ValueError: also for logits that are not normalised, or no bins.
    """
    return float(np.abs(calibration_gaps(log_probs, labels, bins)).sum())


def calibration_gaps(log_probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> np.ndarray:
    """Accuracy minus confidence of each bin times its share of the queries, (bins,).

    The sum of the absolute values is the expected calibration error; gaps of equally large sets
    of queries average to the gaps of their union.

    Args: as of `ece`.
    """
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise ValueError(f"bins must be a whole number of at least 1, not {bins!r}.")
    right, top = _top(*_checked(log_probs, labels, normalised=True))
    confidence, right = np.exp(top).ravel(), right.ravel()
    if not confidence.size:
        raise ValueError("there are no queries whose calibration could be measured.")
    if np.isnan(right).any():
        return np.full(bins, np.nan)
    # An edge belongs to the bin below it, also where rounding puts a confidence just above it.
    index = np.clip(np.ceil(confidence * bins - 1e-6).astype(int) - 1, 0, bins - 1)
    return np.bincount(index, weights=right - confidence, minlength=bins) / confidence.size


def interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float | None]:
    """Mean of independent numbers and the half width of its confidence interval.

    The t quantile times the standard deviation (ddof 1) over sqrt(N); None for a single number,
    which says nothing about its spread.

    Args:
      values: (N,) one number a task (a network, a run, a seed).
    Raises:
      ValueError: no values, or more than one axis, a confidence outside (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"interval wants one number a task, (N,), not {values.shape}.")
    if values.size == 1:
        return float(values[0]), None
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not at {confidence}.")
    error = values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean()), float(t_quantile(values.size - 1, confidence) * error)


def t_quantile(freedom: float, confidence: float = 0.95) -> float:
    """The quantile of Student's t of so many degrees of freedom for an interval of two sides."""
    from scipy import special

    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


def difference_interval(
    values: ArrayLike, others: ArrayLike, confidence: float = 0.95
) -> tuple[float, float | None]:
    """Difference of the means of two independent groups and its half width, Welch's.

    Args:
      values, others: (N,) and (M,); of one number in either there is no half width.
    Raises:
      ValueError: as `interval`.
    """
    (mean, half), (other, of_other) = interval(values), interval(others)
    if half is None or of_other is None:
        return mean - other, None
    groups = [np.asarray(group, np.float64) for group in (values, others)]
    counts = np.asarray([len(group) for group in groups])
    errors = np.asarray([group.var(ddof=1) for group in groups]) / counts
    if not errors.sum():
        return mean - other, 0.0
    freedom = errors.sum() ** 2 / (errors**2 / (counts - 1)).sum()
    return mean - other, float(t_quantile(freedom, confidence) * np.sqrt(errors.sum()))


def index_of_best(scores: ArrayLike, *, smallest: bool = False) -> int:
    """The index of the largest (smallest) of scores (N,), the first of equals; never of NaN.

    Raises:
      ValueError: all are NaN, or there are none.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or np.isnan(values).all():
        raise ValueError(f"nothing can be chosen by {values.tolist()}.")
    return int(np.nanargmin(values) if smallest else np.nanargmax(values))


def paired_interval(
    values: ArrayLike, baseline: ArrayLike, confidence: float = 0.95
) -> tuple[float, float | None]:
    """Mean and half width of the task-by-task difference `values - baseline`.

    Args:
      values, baseline: (N,), of the same tasks in the same order.
    Raises:
      ValueError: different lengths.
    """
    values, baseline = np.asarray(values), np.asarray(baseline)
    if values.shape != baseline.shape:
        raise ValueError(
            f"paired_interval compares the same tasks, not {values.shape} with {baseline.shape}."
        )
    return interval(values - baseline, confidence)


def ensemble_log_probs(log_probs: ArrayLike, axis: int = 0) -> np.ndarray:
    """Log of the mean probability over the heads along `axis`.

    Args:
      log_probs: (S, ..., n), normalised; -inf where all heads have it.
    Raises:
      ValueError: no heads.
    """
    scores = np.asarray(log_probs, dtype=np.float64)
    if not scores.shape[axis]:
        raise ValueError(f"there are no heads to average: predictions have shape {scores.shape}.")
    top = scores.max(axis=axis, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)  # -inf minus itself is NaN
    with np.errstate(divide="ignore"):
        return np.squeeze(top, axis) + np.log(np.mean(np.exp(scores - top), axis=axis))


def top_k_by(scores: ArrayLike, k: int) -> np.ndarray:
    """Indices of the k highest scores, best first, (..., k); ties go to the lower index.

    What the scores are decides what the result means: by support loss it is a method, by query
    accuracy a selection on test labels.

    Args:
      scores: (..., S); NaN is below all others.
    Raises:
      ValueError: k is no whole number in 1..S.
    """
    scores = np.asarray(scores)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"top_k_by wants k in 1..{scores.shape[-1]}, not {k}.")
    return np.argsort(-scores, axis=-1, kind="stable")[..., :k]


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T that minimises the NLL of softmax(logits / T).

    Args:
      logits: (..., q, n) of validation tasks; log-probabilities do as well.
      labels: (..., q) or (q,) integers.
    Raises:
      ValueError: also for a query without a finite likelihood of its true class, which no
        temperature mends.
    """
    from scipy import optimize

    scores, labels = _checked(logits, labels)
    if not (scores.size and np.isfinite(nll(tempered(scores, 1.0), labels)).all()):
        raise ValueError("a temperature needs queries with finite likelihoods of their classes.")

    def loss(log_temperature: float) -> float:
        return float(np.mean(nll(tempered(scores, np.exp(log_temperature)), labels)))

    # Logits of cosines want 0.1 and those of one-image discriminants 16: search widely. The NLL
    # is convex in 1/T, so one minimum.
    result = optimize.minimize_scalar(loss, bounds=(-9.0, 9.0), method="bounded")
    return float(np.exp(result.x))


def tempered(logits: ArrayLike, temperature: float) -> np.ndarray:
    """Log-probabilities softmax(logits / temperature), (..., n).

    Raises:
      ValueError: a temperature that is not above 0 or not finite.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"a temperature is a finite number above 0, not {temperature}.")
    scores = np.asarray(logits, dtype=np.float64) / temperature
    with np.errstate(invalid="ignore"):  # what is no prediction becomes NaN
        scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def _checked(
    log_probs: ArrayLike, labels: ArrayLike, normalised: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(log_probs, dtype=np.float64), np.asarray(labels)
    if scores.ndim < 2 or labels.shape not in (scores.shape[-2:-1], scores.shape[:-1]):
        raise ValueError(
            f"labels {labels.shape} must be (..., q) or (q,) for predictions (..., q, n) of "
            f"shape {scores.shape}."
        )
    queries, classes = scores.shape[-2:]
    if not queries or not classes:
        raise ValueError(f"predictions of shape {scores.shape} have no queries or no classes.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}.")
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"labels must lie in 0..{classes - 1}, and these reach from {labels.min()} to "
            f"{labels.max()}."
        )
    if normalised and (scores > 1e-3).any():
        raise ValueError(
            f"log-probabilities are at most 0, and these reach {np.nanmax(scores):g}: normalise "
            "logits first, for instance by `tempered(logits, 1.0)`."
        )
    return scores, np.broadcast_to(labels, scores.shape[:-1])


def _top(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the best score is the true class's (1, 0, or NaN for no prediction), and it."""
    top = scores.max(-1)
    return np.where(np.isfinite(top), scores.argmax(-1) == labels, np.nan), top
