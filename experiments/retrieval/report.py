"""What the retrieval experiment writes: tables, figures, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.report import write_report
from experiments.retrieval.words import PAPER, STARTS, remarks
from flown_jax.evaluation import tables
from flown_jax.evaluation import zoo_retrieval_figures as figures

_SHOWN = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_std",
    "accuracy_min",
    "accuracy_top5",
    "accuracy_ensemble",
    "nn",
    "copies",
    "diversity",
    "duplicates",
    "error_iou_among",
    "error_iou_train",
    "right_set",
)
_ON_SCREEN = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_top5",
    "copies",
    "diversity",
)
_INTERVALS = ("accuracy", "accuracy_minus_originals")  # the others' stand in results.json
_SUMMARY = ("accuracy", "accuracy_minus_originals", "diversity", "copies")
_STRIPS = ("originals", "flown", "flown_weights")


def write(
    workdir: Path, config: ConfigDict, results: dict[str, Any], found: dict[str, Any]
) -> None:
    """results.md, report.html and the figures; results.json last, as the mark of the end.

    Args:
      results: the content of results.json.
      found: what is shown and not kept there: `introduction` (text), `remarks` (sentences),
        `confusion` {set shown: {set that came out: share}}, `curves` {set: {start: {"epochs",
        "mean", "std"}}}; `prior_curves` {"steps", name: losses} and `accuracies`
        {set: {method: of each network}}, where there are any.
    """
    title = f"Retrieval and initialisation: variant {config.variant}, seed {config.seed}"
    pictures = _pictures(workdir / "figures", results, found)
    texts, sentences = _tables(config, results, found), list(found.get("remarks") or [])
    write_report(workdir, title, found["introduction"], sentences, texts, pictures, results)


def screen(results: Mapping[str, Any]) -> None:
    """Print the tables of a run on the terminal: each set's networks, then the starts."""
    rows, titles = results["rows"], results["titles"]
    sets = _sets(rows, titles, "retrieval")
    tables.screen(_without_intervals(rows, ("accuracy",)), sets, "retrieval", _ON_SCREEN)
    sets = _sets(rows, titles, "initialise")
    named = {name: f"{title}: accuracy % after fine-tuning" for name, title in sets.items()}
    tables.screen(_without_intervals(rows, ()), named, "initialise", None, "start")


def summary(rows: list[dict[str, Any]], sets: Mapping[str, str]) -> str:
    """Accuracy, difference to the originals, diversity and copies of every method and set.

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
            accuracy, minus, diversity, copies = (
                tables.text_cell(m, (of[m][0], None), of=counts.get((method, name)))
                if m in of
                else "-"
                for m in _SUMMARY
            )
            cells.append(f"{accuracy} ({minus}) · {diversity} · {copies}" if of else "")
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


def _tables(
    config: ConfigDict, results: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, str]:
    """Heading -> table in Markdown."""
    rows, titles = results["rows"], results["titles"]
    sets, words = _sets(rows, titles, "retrieval"), remarks(config)
    texts = {"All sets: accuracy % (minus originals) · diversity · copies": summary(rows, sets)}
    shown = _without_intervals(rows, _INTERVALS) + _paper_rows(sets)
    for name, title in sets.items():
        texts[f"Retrieval: {title}"] = tables.markdown(shown, name, "retrieval", words, _SHOWN)
    if found["confusion"]:
        texts["Which set's networks came out, % of the support draws"] = confusion(
            found["confusion"], titles
        )
    tuned = _with_std(rows, found["curves"])
    for name, title in _sets(rows, titles, "initialise").items():
        heading = f"Initialisation: {title}, accuracy % after fine-tuning, mean ± std over runs"
        texts[heading] = tables.markdown(tuned, name, "initialise", STARTS, first="start")
    return texts


def _pictures(
    folder: Path, results: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[Path, str]:
    """The figures that there is something for, with their captions."""
    rows, titles = results["rows"], results["titles"]
    captions: dict[Path, str] = {}
    if sets := _sets(rows, titles, "retrieval"):
        path = folder / "accuracy_against_diversity.png"
        figures.accuracy_against_diversity(path, rows, sets)
        captions[path] = (
            "Accuracy against diversity of every method; dotted: the originals' mean; crosses: "
            "more than one network in 24 is a copy. A single network stands at diversity 0."
        )
    if accuracies := _strips(found.get("accuracies") or {}):
        path = folder / "accuracies.png"
        figures.accuracy_strips(path, accuracies, titles)
        captions[path] = "The accuracy of every network, a point each; the ticks are means."
    if found["confusion"]:
        path = folder / "confusion.png"
        figures.confusion(path, found["confusion"], titles)
        captions[path] = "Which set's networks came out for which set that was shown."
    if found["curves"]:
        path = folder / "fine_tuning.png"
        figures.fine_tuning(path, found["curves"], titles, _originals(rows))
        captions[path] = (
            "Accuracy while generated weights and other starts are trained on; bands: one standard "
            "deviation over runs; dotted: the zoo's own networks."
        )
    if found.get("prior_curves"):
        path = folder / "prior_losses.png"
        figures.losses(path, found["prior_curves"])
        captions[path] = "Loss of the flow from each source (the paper's Figure 2)."
    return captions


def _sets(rows: list[dict[str, Any]], titles: Mapping[str, str], table: str) -> dict[str, str]:
    """Set -> title of the sets that a table has rows for, in the order of the titles."""
    there = dict.fromkeys(row["set"] for row in rows if row["table"] == table)
    return {name: titles.get(name, name) for name in [*titles, *there] if name in there}


def _without_intervals(rows: list[dict[str, Any]], but: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows with intervals for these metrics only; a table has no room for all."""
    return [row if row["metric"] in but else {**row, "ci95": None} for row in rows]


def _paper_rows(sets: Mapping[str, str]) -> list[dict[str, Any]]:
    """The paper's own figures of these sets, as rows."""
    return [
        {"table": "retrieval", "method": method, "set": name, "metric": "accuracy_top5"}
        | {"value": of_set[name], "ci95": None, "n": 5}
        for method, of_set in PAPER.items()
        for name in sets
        if name in of_set
    ]


def _with_std(rows: list[dict[str, Any]], curves: Mapping[str, Any]) -> list[dict[str, Any]]:
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
            found.append({**row, "ci95": value if row["n"] > 1 else None})
    return found


def _originals(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Set -> mean accuracy of the zoo's own networks."""
    return {
        row["set"]: row["value"]
        for row in rows
        if (row["table"], row["method"], row["metric"]) == ("retrieval", "originals", "accuracy")
    }


def _strips(accuracies: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the methods that are drawn network by network."""
    found = {
        name: {method: of[method] for method in _STRIPS if method in of}
        for name, of in accuracies.items()
    }
    return {name: of for name, of in found.items() if of}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
