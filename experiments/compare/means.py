"""Finished runs and their means."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from flown_jax.errors import UserError

_FIELDS = {"experiment", "variant", "seed", "seconds", "peak_memory_gib", "rows"}


def load(workdir: pathlib.Path) -> dict[str, Any]:
    """The results of a finished run.

    Raises:
      UserError: there are none, or they are not a run's.
    """
    try:
        results = json.loads((workdir / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} holds no results.json of a finished run.") from error
    if not isinstance(results, dict) or _FIELDS - set(results):
        needed = ", ".join(sorted(_FIELDS))
        raise UserError(f"{workdir / 'results.json'} has no results of a run: needs {needed}.")
    return results


def mean_rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the mean over runs.

    Runs with the same "tasks" share their test tasks: a half width is then the mean over them, for
    their errors over tasks go together (no correlation makes it larger), and n counts the tasks
    once. Runs without, or with another one, are independent.

    Args:
      runs: contents of results.json.
    Returns:
      Rows as the runs have them, with `runs`, how many have the row. Where all of several runs
      share their tasks, rows of accuracy also have `smallest` and `largest`.
    Raises:
      UserError: runs of different experiments or variants, or the same seed twice.
    """
    kinds = {(run["experiment"], run["variant"]) for run in runs}
    if len(kinds) > 1:
        raise UserError(f"the runs are of different kinds: {sorted(kinds)}.")
    if len({run["seed"] for run in runs}) < len(runs):
        raise UserError("two of the runs have the same seed.")
    values: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
    for index, run in enumerate(runs):
        tasks = run.get("tasks") or f"of run {index}"
        for row in run["rows"]:
            key = (row["table"], row["method"], row["set"], row["metric"])
            values.setdefault(key, {}).setdefault(tasks, []).append(row)
    return [_mean(list(groups.values())) for groups in values.values()]


def _mean(groups: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The mean of a row over runs, which are grouped by their tasks."""
    rows = [row for group in groups for row in group]
    known = all(row["ci95"] is not None for row in rows)
    halves = [sum(row["ci95"] for row in group) for group in groups] if known else []
    mean = {
        **rows[0],
        "value": sum(row["value"] for row in rows) / len(rows),
        "ci95": sum(half**2 for half in halves) ** 0.5 / len(rows) if known else None,
        "n": sum(group[0]["n"] for group in groups),
        "runs": len(rows),
    }
    if mean["metric"] == "accuracy" and len(groups) == 1 and len(rows) > 1:
        mean["smallest"] = min(row["value"] for row in rows)
        mean["largest"] = max(row["value"] for row in rows)
    return mean
