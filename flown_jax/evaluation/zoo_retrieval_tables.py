"""Tables of retrieval and initialisation, of tidy rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flown_jax.evaluation import tables
from flown_jax.evaluation.classification import interval
from flown_jax.evaluation.rows import Sample

_SUMMARY = ("accuracy", "accuracy_minus_originals", "diversity", "direction_diversity", "copies")


def summary(rows: list[dict[str, Any]], sets: Mapping[str, str]) -> str:
    """Accuracy, difference to the originals, diversities and copies of every method and set.

    Args:
      sets: set -> title.
    """
    of_set = {name: tables.pivot(rows, name, "retrieval") for name in sets}
    methods = dict.fromkeys(row["method"] for row in rows if row["table"] == "retrieval")
    counts = {
        (row["method"], row["set"]): row["n"]
        for row in rows
        if row["table"] == "retrieval" and row["metric"] == "copies"
    }
    lines = [_line(["method", *sets.values()]), "|" + "---|" * (1 + len(sets))]
    for method in methods:
        cells = []
        for name in sets:
            of = of_set[name].get(method, {})
            accuracy, minus, diversity, directions, copies = (
                tables.text_cell(m, (of[m][0], None), of=counts.get((method, name)))
                if m in of
                else "-"
                for m in _SUMMARY
            )
            text = f"{accuracy} ({minus}) · {diversity} ({directions}) · {copies}"
            cells.append(text if of else "")
        lines.append(_line([f"`{method}`", *cells]))
    return "\n".join(lines)


def confusion(shares: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> str:
    """Percent of the support draws, a line a set shown, a column a set that came out."""
    columns = list(dict.fromkeys(name for of in shares.values() for name in of))
    head = ["set shown", *(titles.get(name, name) for name in columns)]
    lines = [_line(head), "|" + "---|" * len(head)]
    for shown, of in shares.items():
        cells = [f"{100 * of.get(name, 0.0):.1f}" for name in columns]
        lines.append(_line([titles.get(shown, shown), *cells]))
    return "\n".join(lines)


def sets_of(rows: list[dict[str, Any]], titles: Mapping[str, str], table: str) -> dict[str, str]:
    """Set -> title of the sets that a table has rows for, in the order of the titles."""
    there = dict.fromkeys(row["set"] for row in rows if row["table"] == table)
    return {name: titles.get(name, name) for name in [*titles, *there] if name in there}


def without_intervals(rows: list[dict[str, Any]], but: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows with intervals for these metrics only; a table has no room for all."""
    return [row if row["metric"] in but else {**row, "ci95": None} for row in rows]


def with_std(rows: list[dict[str, Any]], curves: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of fine-tuning with the standard deviation over runs in the place of the half width."""
    std = {
        (name, start, f"accuracy_epoch_{epoch}"): value
        for name, of_start in curves.items()
        for start, curve in of_start.items()
        for epoch, value in zip(curve["epochs"], curve["std"], strict=True)
    }
    found = []
    for row in rows:
        if row["table"] == "initialise":
            value = std.get((row["set"], row["method"], row["metric"]))
            found.append({**row, "ci95": value})
    return found


def originals(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Set -> mean accuracy of the zoo's own networks."""
    return {
        row["set"]: row["value"]
        for row in rows
        if (row["table"], row["method"], row["metric"]) == ("retrieval", "originals", "accuracy")
    }


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def start_curve(epochs: Sequence[int], accuracies: np.ndarray) -> dict[str, list[Any]]:
    """{"epochs", "mean", "std"} of accuracies (E, R) of R runs; the std of one run is None."""
    runs = accuracies.shape[1]
    return {
        "epochs": [int(epoch) for epoch in epochs],
        "mean": [float(value) for value in accuracies.mean(1)],
        "std": [float(own.std(ddof=1)) if runs > 1 else None for own in accuracies],
    }


def start_rows(
    start: str, name: str, epochs: Sequence[int], accuracies: np.ndarray, rate: float, unit: str
) -> list[dict[str, Any]]:
    """Tidy rows of one start on one data set: mean and 95 % interval over runs, and its rate.

    Args:
      accuracies: (E, R). rate: learning rate that was chosen.
      unit: fingerprint of the networks, images and draws behind the runs.
    """
    found: list[tuple[str, float, float | None]] = [
        (f"accuracy_epoch_{epoch}", *interval(own))
        for epoch, own in zip(epochs, accuracies, strict=True)
    ]
    found.append(("learning_rate", float(rate), None))
    sample, runs = Sample("runs", unit), accuracies.shape[1]
    return [
        sample.row("initialise", start, name, metric, value, ci95, runs)
        for metric, value, ci95 in found
    ]
