"""Tidy rows as tables: on the screen and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Cell = tuple[float, float]

# Metric: heading, factor, decimals.
_METRICS = {
    "accuracy": ("accuracy %", 100.0, 1),
    "accuracy_minus_probe": ("minus probe", 100.0, 1),
    "accuracy_minus_class_mean": ("minus class mean", 100.0, 1),
    "accuracy_minus_cosine": ("minus cosine class mean", 100.0, 1),
    "accuracy_minus_ridge": ("minus ridge", 100.0, 1),
    "accuracy_minus_logistic": ("minus logistic regression", 100.0, 1),
    "accuracy_minus_caml": ("minus CAML", 100.0, 1),
    "accuracy_minus_caml_and_base": ("minus CAML + class mean", 100.0, 1),
    "accuracy_minus_regression": ("minus regression", 100.0, 1),
    "nll": ("NLL", 1.0, 3),
    "nll_tempered": ("NLL tempered", 1.0, 3),
    "ece": ("ECE %", 100.0, 1),
    "ece_tempered": ("ECE tempered %", 100.0, 1),
    "nll_minus_regression": ("NLL minus regression", 1.0, 3),
}

# What a table of all methods shows; the other differences stand in a table of their own.
SUMMARY = (
    "accuracy",
    "accuracy_minus_probe",
    "nll",
    "nll_minus_regression",
    "nll_tempered",
    "ece",
    "ece_tempered",
)
_ON_SCREEN = ("accuracy", "accuracy_minus_probe", "nll", "nll_tempered", "ece")
_DIFFERENCE = "accuracy_minus_"


def pivot(rows: Iterable[Row], set_name: str, table: str) -> dict[str, dict[str, Cell]]:
    """Method -> metric -> (value, half width) of one set and table, in the order of the rows."""
    cells: dict[str, dict[str, Cell]] = {}
    for row in rows:
        if row["set"] == set_name and row["table"] == table:
            cells.setdefault(row["method"], {})[row["metric"]] = (row["value"], row["ci95"])
    return cells


def text_cell(metric: str, cell: Cell | None, ends: Cell | None = None) -> str:
    """A figure with its interval, in the unit of its column.

    Args:
      ends: the smallest and the largest of the figures that this one is the mean of.
    """
    if cell is None:
        return ""
    _, factor, decimals = _METRICS[metric]
    value, half = cell
    sign = "+" if "_minus_" in metric else ""
    text = f"{value * factor:{sign}.{decimals}f} ± {half * factor:.{decimals}f}"
    if ends is None:
        return text
    low, high = (f"{end * factor:{sign}.{decimals}f}" for end in ends)
    return f"{text} ({low} to {high})"


def columns(cells: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """The metrics that occur, in the order of a table."""
    present = {metric for metrics in cells.values() for metric in metrics}
    return [metric for metric in _METRICS if metric in present]


def markdown(
    rows: Sequence[Row],
    set_name: str,
    table: str = "main",
    remarks: Mapping[str, str] | None = None,
    shown: Sequence[str] | None = None,
) -> str:
    """One set's table in Markdown, a method a line.

    Args:
      rows: as `few_shot.evaluation.rows_of` gives them; `smallest` and `largest` of a row, where
        it has them, are put behind its interval.
      remarks: by method, put into a last column.
      shown: the metrics to show; None for all.
    """
    cells = pivot(rows, set_name, table)
    metrics = [m for m in columns(cells) if shown is None or m in shown]
    ends = {
        (row["method"], row["metric"]): (row["smallest"], row["largest"])
        for row in rows
        if row["set"] == set_name and row["table"] == table and "smallest" in row
    }
    head = ["method", *(_METRICS[m][0] for m in metrics), *(["remark"] if remarks else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method, figures in cells.items():
        texts = (text_cell(m, figures.get(m), ends.get((method, m))) for m in metrics)
        line = [f"`{method}`", *texts]
        if remarks:
            line.append(remarks.get(method, ""))
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def differences(rows: Sequence[Row], set_names: Mapping[str, str], table: str, method: str) -> str:
    """A method's paired differences of accuracy in Markdown, a rival a line, a set a column.

    Args:
      set_names: set -> title.
    """
    of_set = {name: pivot(rows, name, table).get(method, {}) for name in set_names}
    rivals = [m for m in columns(of_set) if m.startswith(_DIFFERENCE)]
    lines = [
        "| " + " | ".join([f"`{method}`", *set_names.values()]) + " |",
        "|" + "---|" * (1 + len(set_names)),
    ]
    for metric in rivals:
        cells = [text_cell(metric, cells.get(metric)) for cells in of_set.values()]
        lines.append("| " + " | ".join([_METRICS[metric][0], *cells]) + " |")
    return "\n".join(lines)


def screen(rows: Sequence[Row], set_names: Mapping[str, str], table: str = "main") -> None:
    """Print the table of each set on the terminal.

    Args:
      set_names: set -> title.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width to keep to
    for set_name, title in set_names.items():
        cells = pivot(rows, set_name, table)
        metrics = [metric for metric in columns(cells) if metric in _ON_SCREEN]
        shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        shown.add_column("method", no_wrap=True)
        for metric in metrics:
            shown.add_column(_METRICS[metric][0], justify="right")
        for method, figures in cells.items():
            shown.add_row(method, *(_short_cell(m, figures.get(m)) for m in metrics))
        console.print(shown)


def _short_cell(metric: str, cell: Cell | None) -> str:
    """Intervals of accuracies only, so that a line fits into 80 columns."""
    whole = text_cell(metric, cell)
    return whole if metric.startswith("accuracy") else whole.split(" ± ")[0]
