"""What predictions on many tasks are worth: accuracy, likelihood, calibration, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.evaluation import classification
from flown_jax.evaluation.classification import interval, paired_interval, t_quantile
from flown_jax.evaluation.rows import Sample

_DRAWS = 1000  # of a bootstrap


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One method on T tasks: log-probabilities (S, T, Q, n) of Q query images, S = 1 for one.

    Query images stand class by class. Figures are means over the S predictions, each scored by
    itself.

    Raises:
      ValueError: of another shape, or with a count of query images that n does not divide.
    """

    log_probs: np.ndarray

    def __post_init__(self) -> None:
        shape = np.shape(self.log_probs)
        if len(shape) != 4 or 0 in shape or shape[2] % shape[3]:
            raise ValueError(
                "predictions are log-probabilities (S, T, Q, n) with Q a multiple of n, not "
                f"{shape}."
            )

    @property
    def labels(self) -> np.ndarray:
        """(Q,) true classes."""
        count, way = self.log_probs.shape[-2:]
        return np.repeat(np.arange(way), count // way)

    def accuracy(self) -> np.ndarray:
        """(T,) share of query images whose class is the most probable."""
        return classification.accuracy(self.log_probs, self.labels).mean(0)

    def nll(self) -> np.ndarray:
        """(T,) mean negative log-likelihood of the query images, nats."""
        return classification.nll(self.log_probs, self.labels).mean(0)

    def ece(self, seed: int = 0) -> tuple[float, float | None]:
        """Expected calibration error over all query images, and a half width over tasks.

        The error is a sum of absolute values: gaps of bins that are nothing but noise add up. So
        the half width is the 95 % quantile of how far errors of tasks drawn with replacement lie
        from the error without such gaps, those below two of their deviations. None for one task.
        """
        tasks = [
            classification.calibration_gaps(self.log_probs[:, t], self.labels)
            for t in range(self.log_probs.shape[1])
        ]
        gaps = np.stack(tasks)  # (T, bins), each a share of its task's predictions
        mean, count = gaps.mean(0), len(gaps)
        error = float(np.abs(mean).sum())
        if count < 2:
            return error, None
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _DRAWS)
        noise = (draws @ gaps / count - mean) * (count / (count - 1)) ** 0.5
        sure = np.where(np.abs(mean) > 2 * noise.std(0), mean, 0.0)
        apart = np.abs(np.abs(sure + noise).sum(1) - np.abs(sure).sum())
        return error, float(np.quantile(apart, 0.95) * t_quantile(count - 1) / t_quantile(np.inf))

    def tempered(self, temperature: float) -> Prediction:
        """The same with all log-probabilities divided by a temperature, normalised again."""
        return Prediction(classification.tempered(self.log_probs, temperature))

    def temperature(self) -> float:
        """The temperature with the least negative log-likelihood on these tasks.

        Of many predictions the first five are looked at: one number needs no more.
        """
        return classification.fit_temperature(self.log_probs[:5], self.labels)


def rows_of(
    predictions: Mapping[str, Prediction],
    *,
    references: Mapping[str, str],
    set_name: str,
    unit: str,
    table: str = "main",
    temperatures: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Tidy rows of several methods on the same tasks, one number each.

    Args:
      predictions: by method.
      references: name -> method that paired differences of accuracy are taken to; to the one
        named `regression` also those of the likelihood.
      set_name: the set of tasks. unit: fingerprint of the tasks that were drawn.
      table: the table's name.
      temperatures: by method, fitted elsewhere; adds the rows `nll_tempered` and
        `ece_tempered`.
    Returns:
      Rows of `rows.Sample`: metrics `accuracy` and
      `accuracy_minus_NAME` (paired) as shares, `nll` and `nll_minus_regression` (paired) in nats,
      `ece` as a share; ci95 is a half width over the n tasks.
    """
    others = {name: predictions[method].accuracy() for name, method in references.items()}
    rows, sample = [], Sample("tasks", unit)
    for name, prediction in predictions.items():
        accuracy = prediction.accuracy()
        figures = {
            "accuracy": interval(accuracy),
            **{
                f"accuracy_minus_{other}": paired_interval(accuracy, theirs)
                for other, theirs in others.items()
            },
            "nll": interval(prediction.nll()),
            "ece": prediction.ece(),
        }
        if "regression" in references:
            theirs = predictions[references["regression"]].nll()
            figures["nll_minus_regression"] = paired_interval(prediction.nll(), theirs)
        if temperatures is not None:
            tempered = prediction.tempered(temperatures[name])
            figures["nll_tempered"] = interval(tempered.nll())
            figures["ece_tempered"] = tempered.ece()
        rows += [
            sample.row(table, name, set_name, metric, value, half, len(accuracy))
            for metric, (value, half) in figures.items()
        ]
    return rows
