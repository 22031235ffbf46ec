"""Numbers that describe a zoo: its accuracies, its tensors, the distances between its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flown_jax.weights.spec import WeightSpec

_COLUMNS = 1 << 16  # of a block of weights that is held in float64


@dataclass(frozen=True)
class Spread:
    """Of some numbers: how many, mean, standard deviation (with n - 1), smallest, largest.

    The deviation of a single number is NaN; so is everything of no numbers.
    """

    n: int
    mean: float
    std: float
    smallest: float
    largest: float


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """The spread of finite numbers; NaN and None are left out."""
    numbers = np.asarray([np.nan if v is None else v for v in np.ravel(values)], np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return Spread(0, *[float("nan")] * 4)
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
    return Spread(
        len(numbers), float(numbers.mean()), std, float(numbers.min()), float(numbers.max())
    )


def accuracies(
    table: Mapping[str, Sequence[Any]], column: str = "test_accuracy"
) -> dict[tuple[int, str], Spread]:
    """(epoch, split) -> spread of an accuracy, by epoch, training networks first.

    Args:
      table: of a zoo. column: without it or without a number in it there is no entry.
    """
    groups: dict[tuple[int, str], list[Any]] = {}
    for epoch, split, value in zip(
        table.get("epoch", ()), table.get("split", ()), table.get(column, ()), strict=False
    ):
        if value is not None:
            groups.setdefault((epoch, split), []).append(value)
    order = sorted(groups, key=lambda key: (key[0], key[1] != "train"))
    return {key: spread(groups[key]) for key in order}


def last_states(table: Mapping[str, Sequence[Any]]) -> list[int]:
    """Indices of the latest epoch of each network; of all its epochs if there is one network.

    Networks are told apart as in `networks`.
    """
    last: dict[int, int] = {}
    for i, (network, epoch) in enumerate(zip(networks(table), table["epoch"], strict=True)):
        if network not in last or epoch > table["epoch"][last[network]]:
            last[network] = i
    return sorted(last.values()) if len(last) > 1 else list(range(len(table["epoch"])))


def networks(table: Mapping[str, Sequence[Any]]) -> list[int]:
    """The number of the network that each row is a state of, in the order of their first rows.

    Networks are told apart by trial and seed, or by file where there is no seed.
    """
    blank = [None] * len(table["epoch"])
    columns = (table.get("trial", blank), table.get("file", blank), table["seed"])
    numbers: dict[tuple[Any, ...], int] = {}
    return [
        numbers.setdefault((trial, seed, file if seed is None else None), len(numbers))
        for trial, file, seed in zip(*columns, strict=True)
    ]


def tensors(weights: np.ndarray, spec: WeightSpec) -> dict[str, Spread]:
    """PyTorch's name -> spread of a tensor's values over all networks.

    Args:
      weights: (N, D). spec: of its rows.
    """
    found = {}
    for name, place in spec.slices.items():
        values = weights[:, place].astype(np.float64)
        std = float(values.std(ddof=1)) if values.size > 1 else float("nan")
        found[name] = Spread(
            values.size, float(values.mean()), std, float(values.min()), float(values.max())
        )
    return found


def features(weights: np.ndarray, spec: WeightSpec) -> np.ndarray:
    """Statistics of every tensor of each network, (N, 7 T), blind to the order of its units.

    Mean, deviation, smallest, quartiles and largest, as Unterthiner et al. (2020), "Predicting
    Neural Network Accuracy from Weights", take them.

    Args:
      weights: (N, D). spec: of its rows, T tensors.
    """
    found = []
    for place in spec.slices.values():
        values = weights[:, place].astype(np.float64)
        found += [values.mean(1), values.std(1), *np.quantile(values, np.linspace(0, 1, 5), axis=1)]
    return np.stack(found, axis=1)


def distances(weights: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Euclidean distances (N, M) between networks (N, D) and others (M, D), or between themselves.

    Computed in float64 about a common centre, so that near-duplicates keep their digits.
    """
    square = np.zeros((len(weights), len(weights if others is None else others)))
    for start in range(0, weights.shape[1], _COLUMNS):
        a = weights[:, start : start + _COLUMNS].astype(np.float64)
        centre = a.mean(axis=0) if len(a) else 0.0
        a = a - centre
        b = a
        if others is not None:
            b = others[:, start : start + _COLUMNS].astype(np.float64) - centre
        square += (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T)
    found = np.sqrt(np.maximum(square, 0.0))
    if others is None:
        np.fill_diagonal(found, 0.0)
    return found


def within(matrix: np.ndarray) -> tuple[Spread, Spread]:
    """Of networks among themselves: distances of all pairs, and of each to its nearest other.

    Args:
      matrix: (N, N), as `distances(weights)` gives it.
    """
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    if len(matrix) < 2:
        return spread(pairs), spread([])
    apart = matrix + np.where(np.eye(len(matrix), dtype=bool), np.inf, 0.0)
    return spread(pairs), spread(apart.min(axis=1))


def between(matrix: np.ndarray) -> tuple[Spread, Spread]:
    """Of networks to others: distances of all pairs, and of each to the nearest of the others.

    Args:
      matrix: (N, M), as `distances(weights, others)` gives it.
    """
    return spread(matrix), spread(matrix.min(axis=1) if matrix.size else [])
