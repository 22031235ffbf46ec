"""Prints the tables of several finished runs as one, in Markdown: means over seeds.

    python -m experiments.compare workdirs/fsl-default-seed0 workdirs/fsl-default-seed1

Runs of one experiment and config with different seeds. First the differences of accuracy to one
method (--against=METHOD), each taken within a run, with the interval over seeds. Then a table for
each setting and set, whose last column says what each line's ± are over: the first within runs,
which is narrower only where each run drew test tasks of its own, the second over the seeds.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import command
from experiments.means import differences, mean_rows, over_words
from experiments.runs import Run, load, other_versions
from flown_jax.evaluation import tables

_LEGEND = (
    "The first ± is the 95 % interval within runs, over what the last column says; it is narrowed "
    "by more runs only where each of them drew tasks of its own. `seeds ±` is Student's 95 % "
    "interval over the runs' values: what a seed changes, and nothing of what all runs share (one "
    "unit: the same zoo, test images and support draws; several units: not the same ones). "
    "Where there are both, both count."
)


def main() -> None:
    """The command."""
    parser = command.Parser("experiments.compare", __doc__)
    parser.add_argument("workdir", nargs="+", type=pathlib.Path, help="folder of a finished run")
    parser.add_argument("--against", metavar="METHOD", help="whom the others are compared with")
    with command.one_sentence():
        arguments = parser.parse_args()
        print(compared([load(path) for path in arguments.workdir], arguments.against))


def compared(runs: Sequence[Run], against: str | None = None) -> str:
    """The whole text, in Markdown.

    Raises:
      UserError: runs that make no mean, or none with the method `against`.
    """
    rows = mean_rows(runs)
    apart = differences(runs, against)
    parts = other_versions(runs) + difference_tables(apart, len(runs))
    if against is not None:
        without = {row["table"]: "" for row in rows} | {row["table"]: against for row in apart}
        parts += [
            f"No row of {table} is of `{against}`." for table, of in without.items() if not of
        ]
    for table, name in dict.fromkeys((row["table"], row["set"]) for row in rows):
        shown = [row for row in rows if (row["table"], row["set"]) == (table, name)]
        words = {row["method"]: "" for row in shown}
        for method in words:
            own = (over_words(row) for row in shown if row["method"] == method)
            words[method] = " / ".join(text for text in dict.fromkeys(own) if text)
        drawn = tables.markdown(shown, name, table, words, last="± over")
        parts += [f"### {heading(table, name)}", drawn]
        if text := gaps(shown, len(runs)):
            parts.append(text)
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    memory = max(run["peak_memory_gib"] for run in runs)
    parts.append(_LEGEND if len(runs) > 1 else "One run: there is no interval over seeds.")
    parts.append(f"{len(runs)} runs, {seconds:.0f} s and at most {memory:.2f} GiB each")
    return "\n\n".join(parts)


def difference_tables(rows: Sequence[dict[str, Any]], runs: int) -> list[str]:
    """A heading and a table for each setting: a line a method, a column a set."""
    parts: list[str] = []
    if runs < 2:
        return parts
    for table in dict.fromkeys(row["table"] for row in rows):
        of = [row for row in rows if row["table"] == table]
        sets = list(dict.fromkeys(row["set"] for row in of))
        title = "" if table == "main" else f"{table}, "
        parts.append(
            f"### {title}accuracy minus that of `{of[0]['against']}`, points: mean ± 95 % interval "
            f"over {runs} seeds"
        )
        lines = ["| " + " | ".join(["method", *sets]) + " |", "|" + "---|" * (1 + len(sets))]
        for method in dict.fromkeys(row["method"] for row in of):
            cells = {row["set"]: _cell(row, runs) for row in of if row["method"] == method}
            line = [f"`{method}`", *(cells.get(name, "") for name in sets)]
            lines.append("| " + " | ".join(line) + " |")
        parts.append("\n".join(lines))
    return parts


def _cell(row: dict[str, Any], runs: int) -> str:
    text = tables.text_cell("accuracy_minus_originals", (row["value"], row["seeds"]))
    return text if row["runs"] == runs else f"{text} ({row['runs']} runs)"


def heading(table: str, name: str) -> str:
    """The setting and the set in words; a run with one setting has no name for it."""
    words = name.replace("_", " ")
    return words if table == "main" else f"{table}, {words}"


def gaps(rows: Sequence[dict[str, Any]], runs: int) -> str:
    """A sentence on what of a table some of the runs do not have; "" for nothing.

    Args:
      rows: mean rows of the table.
    """
    found: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        if row["runs"] < runs:
            found.setdefault((row["method"], row["runs"]), []).append(row["metric"])
    listed = "; ".join(
        f"`{method}` ({count}: {', '.join(metrics)})" for (method, count), metrics in found.items()
    )
    return f"Not in all {runs} runs: {listed}." if found else ""


if __name__ == "__main__":
    main()
