"""Prints the tables of several finished runs as one: means over runs, in Markdown.

    python -m experiments.compare workdirs/fsl-default-seed0 workdirs/fsl-default-seed1

Runs of the same experiment and variant with different seeds. The interval of a mean combines the
intervals over tasks of its runs.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from experiments import command
from flown_jax.errors import UserError
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
        for name in dict.fromkeys(row["set"] for row in rows):
            print(f"\n### {name.replace('_', ' ')}\n\n{tables.markdown(rows, name)}")
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        memory = max(run["peak_memory_gib"] for run in runs)
        print(f"\n{len(runs)} runs, {seconds:.0f} s and at most {memory:.2f} GiB each")


def load(workdir: pathlib.Path) -> dict[str, Any]:
    """The results of a finished run.

    Raises:
      UserError: there are none.
    """
    try:
        return json.loads((workdir / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} holds no results.json of a finished run.") from error


def mean_rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the mean over runs; half widths combined as of independent means.

    Raises:
      UserError: runs of different experiments or variants, or the same seed twice.
    """
    kinds = {(run["experiment"], run["variant"]) for run in runs}
    if len(kinds) > 1:
        raise UserError(f"the runs are of different kinds: {sorted(kinds)}.")
    if len({run["seed"] for run in runs}) < len(runs):
        raise UserError("two of the runs have the same seed.")
    values: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        for row in run["rows"]:
            key = (row["table"], row["method"], row["set"], row["metric"])
            values.setdefault(key, []).append(row)
    return [
        {
            **rows[0],
            "value": sum(row["value"] for row in rows) / len(rows),
            "ci95": sum(row["ci95"] ** 2 for row in rows) ** 0.5 / len(rows),
            "n": sum(row["n"] for row in rows),
        }
        for rows in values.values()
    ]


if __name__ == "__main__":
    main()
