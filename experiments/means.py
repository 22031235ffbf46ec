"""Means over runs of several seeds, and what their intervals are over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.runs import Run, check_alike
from flown_jax.errors import UserError
from flown_jax.evaluation.classification import interval

Row = dict[str, Any]
Key = tuple[str, str, str, str]
# Differences are to the first of these that a table has, unless a method is named.
_REFERENCES = ("class_mean", "zoo_start", "originals", "static")
_EPOCH = "accuracy_epoch_"


def mean_rows(runs: Sequence[Run]) -> list[Row]:
    """Rows with the mean over runs.

    `ci95` holds what varies within runs. Rows over tasks of other units are independent: their
    half widths combine as of independent means, and n counts all tasks. Of rows that share their
    unit, and of all that are not over tasks, it is the mean over runs, for their errors may go
    together (no correlation makes it larger). `seeds` is Student's half width over the values of
    the runs: what a seed changes, and nothing of what all runs share.

    Args:
      runs: as `load` gives them.
    Returns:
      Rows as the runs have them, with `runs`, how many have the row; `units`, of how many units
      they are; and `seeds`, None for one run.
    Raises:
      UserError: runs that make no mean, see `check_alike`.
    """
    check_alike(runs)
    return [_mean(rows) for rows in _by_key(runs).values()]


def _by_key(runs: Sequence[Run]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for run in runs:
        for row in run["rows"]:
            key = (row["table"], row["method"], row["set"], row["metric"])
            found.setdefault(key, []).append(row)
    return found


def _mean(rows: list[Row]) -> Row:
    if len({row["over"] for row in rows}) > 1:
        key = " ".join(rows[0][name] for name in ("table", "method", "set", "metric"))
        raise UserError(f"the runs' intervals of {key} are not over the same thing.")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["unit"], []).append(row)
    tasks, known = rows[0]["over"] == "tasks", all(row["ci95"] is not None for row in rows)
    together = list(groups.values()) if tasks else [rows]  # of which errors may go together
    halves = [sum(row["ci95"] for row in group) for group in together] if known else []
    value, seeds = interval([row["value"] for row in rows])
    return {
        **rows[0],
        "value": value,
        "ci95": sum(half**2 for half in halves) ** 0.5 / len(rows) if known else None,
        "n": sum(max(row["n"] for row in group) for group in together),
        "runs": len(rows),
        "units": len(groups),
        "seeds": seeds,
    }


def over_words(row: Mapping[str, Any]) -> str:
    """What the ± of a mean row are over."""
    parts = []
    if row["ci95"] is not None:
        count, runs, units = f"{row['n']:,} {row['over']}", row["runs"], row["units"]
        if runs == 1:
            parts.append(count)
        elif row["over"] != "tasks":
            parts.append(f"{count} a run" + (", one unit" if units == 1 else ", several units"))
        else:
            of = {1: "the same in all runs", runs: "each run's own"}.get(units, "shared in part")
            parts.append(f"{count}, {of}")
    if row["seeds"] is not None:
        parts.append(f"{row['runs']} seeds")
    return "; ".join(parts)


def differences(runs: Sequence[Run], against: str | None = None) -> list[Row]:
    """Rows of accuracy minus that of another method in the same run: the mean over seeds.

    Runs of a table and set that lack either method do not count.

    Args:
      runs: as `load` gives them, that make a mean.
      against: the other method; None for one that suits the table.
    Returns:
      Rows {"table", "against", "method", "set", "metric", "value", "seeds", "runs"}; `seeds` is
      Student's half width, None for one run. After fine-tuning, of the last epoch.
    Raises:
      UserError: no run has the method.
    """
    methods = dict.fromkeys(row["method"] for run in runs for row in run["rows"])
    if against is not None and against not in methods:
        raise UserError(f"no run has a method {against!r}; there are {', '.join(methods)}.")
    found = []
    for table, metric in _accuracies(runs).items():
        of_run = [
            {
                (row["method"], row["set"]): row["value"]
                for row in run["rows"]
                if (row["table"], row["metric"]) == (table, metric)
            }
            for run in runs
        ]
        keys = list(dict.fromkeys(key for values in of_run for key in values))
        known = dict.fromkeys(method for method, _ in keys)
        other = against or next((name for name in _REFERENCES if name in known), None)
        for method, name in keys:
            apart = [
                values[method, name] - values[other, name]
                for values in of_run
                if (method, name) in values and (other, name) in values
            ]
            if apart and method != other:
                value, seeds = interval(apart)
                row = {"table": table, "against": other, "method": method, "set": name}
                row |= {"metric": metric, "value": value, "seeds": seeds, "runs": len(apart)}
                found.append(row)
    return found


def _accuracies(runs: Sequence[Run]) -> dict[str, str]:
    """Table -> its metric of accuracy; the last of the epochs where there are several."""
    metrics: dict[str, set[str]] = {}
    for run in runs:
        for row in run["rows"]:
            metrics.setdefault(row["table"], set()).add(row["metric"])
    found = {}
    for table, names in metrics.items():
        epochs = sorted(int(m.removeprefix(_EPOCH)) for m in names if m.startswith(_EPOCH))
        if "accuracy" in names:
            found[table] = "accuracy"
        elif epochs:
            found[table] = f"{_EPOCH}{epochs[-1]}"
    return found
