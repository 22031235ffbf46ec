"""Prints the tables of several finished runs as one: means over runs, in Markdown.

    python -m experiments.compare workdirs/fsl-default-seed0 workdirs/fsl-default-seed1

Runs of the same experiment and variant with different seeds, a table for each setting and set.
Where the runs have test tasks of their own, the interval of a mean combines their intervals as of
independent means. Where they share the test tasks (results.json has the same "tasks"), another
seed brings no further tasks: the interval of a mean is the mean of the intervals, and accuracies
carry the smallest and the largest of the runs.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from experiments import command
from flown_jax.errors import UserError
from flown_jax.evaluation import tables

_FIELDS = {"experiment", "variant", "seed", "seconds", "peak_memory_gib", "rows"}


def main() -> None:
    """The command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return
    with command.one_sentence():
        runs = [load(pathlib.Path(argument)) for argument in arguments]
        rows = mean_rows(runs)
        for table, name in dict.fromkeys((row["table"], row["set"]) for row in rows):
            print(f"\n### {heading(table, name)}\n\n{tables.markdown(rows, name, table)}")
            if text := gaps(rows, name, table, len(runs)):
                print(f"\n{text}")
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        memory = max(run["peak_memory_gib"] for run in runs)
        print(f"\n{len(runs)} runs, {seconds:.0f} s and at most {memory:.2f} GiB each")


def heading(table: str, name: str) -> str:
    """The setting and the set in words; a run with one setting has no name for it."""
    words = name.replace("_", " ")
    return words if table == "main" else f"{table}, {words}"


def gaps(rows: list[dict[str, Any]], name: str, table: str, runs: int) -> str:
    """A sentence on the methods of a table that some of the runs do not have; "" for none."""
    found = {
        row["method"]: row["runs"]
        for row in rows
        if row["set"] == name and row["table"] == table and row["runs"] < runs
    }
    listed = ", ".join(f"`{method}` ({count})" for method, count in found.items())
    return f"Not in all {runs} runs: {listed}." if found else ""


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


if __name__ == "__main__":
    main()
