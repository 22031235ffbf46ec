"""Prints the tables of several finished runs as one: means over runs, in Markdown.

    python -m experiments.compare workdirs/fsl-default-seed0 workdirs/fsl-default-seed1

Runs of the same experiment and variant with different seeds, a table for each setting and set.
Where the runs have test tasks of their own, the interval of a mean combines their intervals as of
independent means. Where they share the test tasks (results.json has the same "tasks"), another
seed brings no further tasks: the interval of a mean is the mean of the intervals, and accuracies
carry the smallest and the largest of the runs.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from experiments import command
from experiments.compare.means import load, mean_rows
from flown_jax.evaluation import tables


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


if __name__ == "__main__":
    main()
