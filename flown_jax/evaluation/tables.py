"""Tidy rows as tables: on the screen and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Cell = tuple[float, float | None]

# Metric: heading, factor, decimals (None: three significant digits).
_METRICS: dict[str, tuple[str, float, int | None]] = {
    "reconstruction_r2": ("R2", 1.0, 3),
    "reconstruction_r2_minus_vae_mlp": ("R2 minus vae_mlp", 1.0, 3),
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
    "accuracy_minus_originals": ("minus originals", 100.0, 1),
    "accuracy_std": ("std", 100.0, 1),
    "accuracy_max_minus_originals": ("best minus theirs", 100.0, 1),
    "accuracy_min": ("min", 100.0, 1),
    "accuracy_max": ("best", 100.0, 1),
    "accuracy_top5": ("top 5", 100.0, 1),
    "accuracy_top5_minus_originals": ("top 5 minus theirs", 100.0, 1),
    "accuracy_ensemble": ("averaged 10", 100.0, 1),
    "accuracy_vote": ("vote of 16", 100.0, 1),
    "accuracy_reestimated": ("BatchNorm re-estimated", 100.0, 1),
    "nn": ("nn", 1.0, 2),
    "nn_smallest": ("nn smallest", 1.0, 2),
    "copies": ("copies", 1.0, None),
    "copies_at_most": ("copies at most %", 100.0, 1),
    "nearest": ("nearest", 1.0, 2),
    "nearest_smallest": ("nearest smallest", 1.0, 2),
    "accuracy_copies": ("accuracy of copies", 100.0, 1),
    "accuracy_others": ("of the others", 100.0, 1),
    "diversity": ("diversity", 1.0, 2),
    "direction_diversity": ("directions", 1.0, 2),
    "length": ("length", 1.0, 2),
    "duplicates": ("duplicates", 1.0, None),
    "error_iou_among": ("error IoU among", 1.0, 2),
    "error_iou_train": ("error IoU with training", 1.0, 2),
    "disagreement_nearest": ("differs from nearest %", 100.0, 1),
    "disagreement_among": ("differ among %", 100.0, 1),
    "novel_performant_1": ("novel and performant %", 100.0, 0),
    "novel_performant_2": ("at twice %", 100.0, 0),
    "not_finite": ("not finite", 1.0, None),
    "decoded_accuracy": ("decoded accuracy %", 100.0, 1),
    "decoded_r2": ("R2", 1.0, 3),
    "decoded_r2_held_out": ("R2 held out", 1.0, 3),
    "decoded_latent": ("latent numbers", 1.0, 0),
    "decoded_std": ("latent deviation", 1.0, None),
    "seconds_training": ("training s", 1.0, 0),
    "seconds_sampling": ("s a network", 1.0, None),
    "nfe": ("NFE", 1.0, 0),
    "right_set": ("right set %", 100.0, 1),
    "learning_rate": ("learning rate", 1.0, None),
    "kendall": ("Kendall's tau", 1.0, 2),
    "kendall_minus_statistics": ("tau minus statistics", 1.0, 2),
    "kendall_minus_mlp": ("tau minus MLP", 1.0, 2),
    "spearman": ("Spearman's rho", 1.0, 2),
    "r2": ("R2", 1.0, 2),
    "kendall_permuted": ("tau, permuted", 1.0, 2),
    "kendall_itself": ("tau to itself", 1.0, 2),
    "loss": ("loss", 1.0, 3),
}
_EPOCH = "accuracy_epoch_"  # and a number: after so many epochs of fine-tuning
_CAME_OUT = "came_out_"  # and a set: the share of draws that gave its networks
COUNTS = ("copies", "duplicates")  # of the samples

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


def chosen_on_test(method: str, metric: str = "") -> bool:
    """Whether a figure takes the best by test labels: a statistic of the paper's, and no result.

    Args:
      method: of a row. metric: of the row.
    """
    return method.endswith("_query") or metric.startswith(("accuracy_top5", "accuracy_max"))


CHOSEN_HEADINGS = frozenset(words[0] for m, words in _METRICS.items() if chosen_on_test("", m))


def pivot(rows: Iterable[Row], set_name: str, table: str) -> dict[str, dict[str, Cell]]:
    """Method -> metric -> (value, half width) of one set and table, in the order of the rows."""
    cells: dict[str, dict[str, Cell]] = {}
    for row in rows:
        if row["set"] == set_name and row["table"] == table:
            cells.setdefault(row["method"], {})[row["metric"]] = (row["value"], row["ci95"])
    return cells


def text_cell(
    metric: str, cell: Cell | None, seeds: float | None = None, of: int | None = None
) -> str:
    """A figure with its interval, in the unit of its column.

    Args:
      cell: value and half width; without a half width the value stands alone.
      seeds: half width over the seeds of runs, of which the value is the mean.
      of: what a count is a part of.
    """
    if cell is None:
        return ""
    _, factor, decimals = _form(metric)
    sign = "+" if "_minus_" in metric else ""

    def number(value: float, sign: str = sign) -> str:
        kind = ".3g" if decimals is None else f".{decimals}f"
        return f"{value * factor:{sign}{kind}}"

    value, half = cell
    text = number(value) if half is None else f"{number(value)} ± {number(half, '')}"
    if of is not None and metric in COUNTS:
        text += f" of {of}"
    return text if seeds is None else f"{text}, seeds ± {number(seeds, '')}"


def columns(cells: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """The metrics that occur, in the order of a table."""
    present = dict.fromkeys(metric for metrics in cells.values() for metric in metrics)
    epochs = sorted((m for m in present if m.startswith(_EPOCH)), key=_epoch)
    known = epochs + [metric for metric in _METRICS if metric in present]
    return known + [metric for metric in present if metric not in known]


def heading(metric: str) -> str:
    """What a table calls a metric."""
    return _form(metric)[0]


def _form(metric: str) -> tuple[str, float, int | None]:
    """Heading, factor and decimals."""
    if metric.startswith(_EPOCH):
        return f"epoch {_epoch(metric)}", 100.0, 1
    if metric.startswith(_CAME_OUT):
        return f"{metric.removeprefix(_CAME_OUT)} %", 100.0, 1
    return _METRICS.get(metric, (metric.replace("_", " "), 1.0, None))


def _epoch(metric: str) -> int:
    return int(metric.removeprefix(_EPOCH))


def _counted(rows: Iterable[Row], set_name: str, table: str) -> dict[tuple[str, str], int]:
    """(method, metric) -> of how many, for counts; a mean over runs is of no whole number."""
    return {
        (row["method"], row["metric"]): row["n"]
        for row in rows
        if row["set"] == set_name
        and row["table"] == table
        and row["metric"] in COUNTS
        and row.get("runs", 1) == 1
    }


def markdown(
    rows: Sequence[Row],
    set_name: str,
    table: str = "main",
    remarks: Mapping[str, str] | None = None,
    shown: Sequence[str] | None = None,
    first: str = "method",
    last: str = "remark",
) -> str:
    """One set's table in Markdown, a method a line.

    Args:
      rows: as `rows.Sample` makes them; `seeds` of a row, where it has one, is put behind its
        interval.
      remarks: by method, put into a last column.
      shown: the metrics to show; None for all.
      first, last: headings of the methods and of the remarks.
    """
    cells = pivot(rows, set_name, table)
    metrics = [m for m in columns(cells) if shown is None or m in shown]
    seeds = {
        (row["method"], row["metric"]): row["seeds"]
        for row in rows
        if row["set"] == set_name and row["table"] == table and "seeds" in row
    }
    counted = _counted(rows, set_name, table)
    head = [first, *(_form(m)[0] for m in metrics), *([last] if remarks else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method, figures in cells.items():
        keys = [(method, m) for m in metrics]
        texts = (
            text_cell(m, figures.get(m), seeds.get(key), counted.get(key))
            for m, key in zip(metrics, keys, strict=True)
        )
        line = [f"`{method}`", *texts]
        if remarks:
            line.append(remarks.get(method, ""))
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def note(
    rows: Iterable[Row],
    sets: Iterable[str],
    table: str,
    shown: Sequence[str] | None = None,
    what: str = "the half width of the 95 % interval",
) -> str:
    """What the ± of a table is and what it is over, in a sentence; "" where there is none.

    Args:
      sets, shown: the sets and metrics of the table; None for all metrics.
      what: the ± is.
    """
    wanted, counts = set(sets), dict[str, set[int]]()
    for row in rows:
        here = row["table"] == table and row["set"] in wanted
        if here and row["ci95"] is not None and (shown is None or row["metric"] in shown):
            counts.setdefault(row["over"], set()).add(row["n"])
    over = " and ".join(f"{numbers(found)} {kind}" for kind, found in counts.items())
    return f"± is {what} over {over}." if over else ""


def numbers(found: Iterable[int]) -> str:
    """Whole numbers in a few words: the one, or the smallest and the largest."""
    known = set(found)
    low, high = min(known), max(known)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


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
        lines.append("| " + " | ".join([_form(metric)[0], *cells]) + " |")
    return "\n".join(lines)


def screen(
    rows: Sequence[Row],
    set_names: Mapping[str, str],
    table: str = "main",
    shown: Sequence[str] | None = _ON_SCREEN,
    first: str = "method",
) -> None:
    """Print the table of each set on the terminal.

    Args:
      set_names: set -> title.
      shown: the metrics to show; None for all.
      first: heading of the methods.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width to keep to
    for set_name, title in set_names.items():
        cells = pivot(rows, set_name, table)
        counted = _counted(rows, set_name, table)
        metrics = [metric for metric in columns(cells) if shown is None or metric in shown]
        drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        drawn.caption = note(rows, [set_name], table, metrics) or None
        drawn.caption_justify = "left"
        drawn.add_column(first, no_wrap=True)
        for metric in metrics:
            drawn.add_column(_form(metric)[0], justify="right")
        for method, figures in cells.items():
            texts = (_short_cell(m, figures.get(m), counted.get((method, m))) for m in metrics)
            drawn.add_row(method, *texts)
        console.print(drawn)


def _short_cell(metric: str, cell: Cell | None, of: int | None) -> str:
    """Intervals of accuracies and tau only, so that a line fits into 80 columns."""
    whole = text_cell(metric, cell, of=of)
    return whole if metric.startswith(("accuracy", "kendall")) else whole.split(" ± ")[0]
