"""How well predicted numbers order the true ones, with intervals over networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flown_jax.evaluation.classification import t_quantile

_DRAWS = 1000  # of the bootstrap
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def kendall(truth: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each draw, (B,); NaN where all are equal.

    Args:
      truth, predicted: (N,). counts: (B, N), how often each is in a draw; copies are ties.
    """
    t, p = _signs(truth), _signs(predicted)

    def pairs(matrix: np.ndarray) -> np.ndarray:
        return ((counts @ matrix) * counts).sum(1)

    return _ratio(pairs(t * p), pairs(t * t) * pairs(p * p))


def spearman(truth: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's rho of each draw, (B,), ties by their mean rank. Arguments as of `kendall`."""
    # How many are below less how many are above: twice a rank about its mean.
    t, p = counts @ _signs(truth).T, counts @ _signs(predicted).T

    def total(values: np.ndarray) -> np.ndarray:
        return (counts * values).sum(1)

    return _ratio(total(t * p), total(t * t) * total(p * p))


def r2(truth: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Explained share of the variance of each draw, (B,). Arguments as of `kendall`."""
    mean = counts @ truth / counts.sum(1)
    spread = (counts * (truth - mean[:, None]) ** 2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - counts @ (truth - predicted) ** 2 / np.where(spread > 0, spread, np.nan)


def scores(
    score: Score, truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """A score of the predictions of each run in each draw, (R, B): its mean over groups.

    Args:
      score: one of the above. truth: (N,). predicted: (R, N). groups: (N,), names of the groups
        within which networks are compared. counts: (B, N).
    """
    found = []
    for group in np.unique(groups):
        here = groups == group
        found.append([score(truth[here], run[here], counts[:, here]) for run in predicted])
    return np.mean(found, axis=0)


def draws(networks: np.ndarray, seed: int = 0) -> np.ndarray:
    """How often each state is in each draw of a bootstrap over networks, (1000, N).

    Args:
      networks: (N,), the network that each is a state of: its states are drawn together.
    """
    _, index = np.unique(networks, return_inverse=True)
    count = int(index.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _DRAWS)
    return drawn[:, index].astype(np.float64)


def half_width(drawn: np.ndarray, count: int) -> float | None:
    """Half width of the 95 % interval of a number from its draws (B,), over so many networks.

    Student's quantile times the bootstrap's deviation, with ddof 1; None of one network.
    """
    finite = drawn[np.isfinite(drawn)]
    if count < 2 or len(finite) < len(drawn) / 2:
        return None
    return float(t_quantile(count - 1) * finite.std() * np.sqrt(count / (count - 1)))


def _signs(values: np.ndarray) -> np.ndarray:
    return np.sign(np.asarray(values, np.float64)[:, None] - values)


def _ratio(product: np.ndarray, squares: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return product / np.sqrt(np.where(squares > 0, squares, np.nan))
