"""The figures of a page, drawn from its rows, and those that a run itself has drawn."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.means import differences
from experiments.publish import quantities
from experiments.publish.layout import short_titles
from flown_jax.evaluation import tables
from flown_jax.evaluation import zoo_retrieval_figures as figures
from flown_jax.evaluation.forest import Difference, forest
from flown_jax.files import writing

Row = Mapping[str, Any]
# Of the first run, what needs more than rows: experiment -> pattern -> caption.
_DRAWN = {
    "fewshot": {
        "accuracy_against_nfe.png": "Accuracy against function evaluations.",
        "nll_against_nfe.png": "Likelihood against function evaluations.",
        "heads_averaged.png": "What averaging generated heads gains.",
        "reliability.png": "Share of right predictions against confidence.",
    },
    "retrieval": {"prior_losses.png": "Loss of the flow from each source."},
    "adapt": {"*-progress.png": "Accuracy on images to choose by, while something is adapted."},
    "predict_accuracy": {"predicted_*.png": "Predicted against true accuracy."},
    "train_zoo": {"zoo.png": "Accuracies, tensors and distances of the zoo."},
    "train_trajectory": {"zoo.png": "Accuracies, tensors and distances of the zoo."},
    "novelty": {"accuracy_against.png": "Accuracy against novelty and diversity."},
}
_PANELS = 3  # of a forest plot


def drawn(page: Mapping[str, Any], rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """Draws what the rows have; file name -> caption, in the order of the page.

    Args:
      page: as `collect.pages` makes it. rows: means over its runs. folder: of the figures.
    """
    captions: dict[str, str] = {}
    for table in dict.fromkeys(row["table"] for row in rows):
        of = [row for row in rows if row["table"] == table]
        name = f"{table.replace(' ', '-')}" if len({r["table"] for r in rows}) > 1 else ""
        _forests(page, of, table, folder, captions, name)
        _diversities(page, of, table, folder, captions, name)
        _fine_tuning(page, of, folder, captions)
    return captions


def copied(page: Mapping[str, Any], workdir: Path, folder: Path) -> dict[str, str]:
    """Copies the curves that a run has drawn; file name -> caption."""
    found: dict[str, str] = {}
    if page["part"] != page["experiment"] or not (workdir / "figures").is_dir():
        return found
    for pattern, caption in _DRAWN.get(page["experiment"], {}).items():
        for path in sorted((workdir / "figures").iterdir()):
            if fnmatch.fnmatch(path.name, pattern):
                with writing(folder / path.name):
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, folder / path.name)
                about = path.stem.removesuffix("-progress").replace("_", " ")
                of = f"{about}: {caption}" if "*" in pattern else caption
                found[path.name] = f"{of[:1].upper()}{of[1:-1]}; seed {page['runs'][0]['seed']}."
    return found


def _forests(
    page: Mapping[str, Any],
    rows: Sequence[Row],
    table: str,
    folder: Path,
    captions: dict[str, str],
    name: str,
) -> None:
    metrics = {row["metric"] for row in rows}
    metric = next((m for m in quantities.REFERENCES if m in metrics), None)
    words = f"{table}. " if name else ""
    if metric is not None:
        of = quantities.REFERENCES[metric]
        found = [row for row in rows if row["metric"] == metric and row["method"] != of]
        text = f"{words}{quantities.title(metric)}, of every method."
    else:
        found = [row for row in differences(page["runs"]) if row["table"] == table]
        if not found or len(page["runs"]) < 2:
            return
        metric, of = found[0]["metric"], found[0]["against"]
        text = f"{words}Accuracy minus that of `{of}` in the same run, points."
    factor = 100 if metric.startswith("accuracy") else 1
    label = f"difference to {of}" + (", points" if factor == 100 else "")
    _forest(page, found, "forest", folder, captions, name, (label, text, factor))
    own = [
        {**row, "method": tables.heading(row["metric"]).removeprefix("minus ")}
        for row in rows
        if row["method"] == quantities.HEADLINE and row["metric"].startswith(quantities.MINUS)
    ]
    if own:
        text = f"{words}Accuracy of `{quantities.HEADLINE}` minus that of each rival, points."
        label = f"{quantities.HEADLINE} minus rival, points"
        _forest(page, own, "rivals", folder, captions, name, (label, text, 100))


def _forest(
    page: Mapping[str, Any],
    rows: Sequence[Row],
    kind: str,
    folder: Path,
    captions: dict[str, str],
    name: str,
    words: tuple[str, str, int],
) -> None:
    label, text, factor = words
    titles = short_titles(page, (row["set"] for row in rows))
    panels = {
        title: [_difference(row, factor) for row in rows if row["set"] == of]
        for of, title in titles.items()
    }
    keys = list(panels)
    for i in range(0, len(keys), _PANELS):
        part = f"{i // _PANELS + 1}" if len(keys) > _PANELS else ""
        file = "-".join(word for word in (kind, name, part) if word) + ".png"
        forest(folder / file, {key: panels[key] for key in keys[i : i + _PANELS]}, label)
        captions[file] = text


def _difference(row: Row, factor: float) -> Difference:
    def scaled(value: float | None) -> float | None:
        return None if value is None else factor * value

    method = row["method"]
    chosen = tables.chosen_on_test(method)
    kind = "chosen" if chosen else "ours" if method.startswith("flown") else "other"
    halves = scaled(row.get("ci95")), scaled(row["seeds"])
    return Difference(f"{method}{' †' * chosen}", factor * row["value"], *halves, kind)


def _diversities(
    page: Mapping[str, Any],
    rows: Sequence[Row],
    table: str,
    folder: Path,
    captions: dict[str, str],
    name: str,
) -> None:
    metrics = {row["metric"] for row in rows}
    sets = short_titles(page, (row["set"] for row in rows if row["metric"] == "diversity"))
    for metric, words in (
        ("diversity", "diversity"),
        ("direction_diversity", "diversity of directions, which no length can buy"),
    ):
        if {metric, "accuracy"} <= metrics:
            file = "-".join(word for word in ("accuracy-against", metric, name) if word) + ".png"
            figures.accuracy_against_diversity(folder / file, rows, sets, table, metric=metric)
            captions[file] = (
                f"Accuracy against {words}; dotted: the mean of the zoo's own networks where they "
                "are in the table."
            )


def _fine_tuning(
    page: Mapping[str, Any], rows: Sequence[Row], folder: Path, captions: dict[str, str]
) -> None:
    epochs = {row["metric"]: int(row["metric"].removeprefix(quantities.EPOCH)) for row in rows
              if row["metric"].startswith(quantities.EPOCH)}  # fmt: skip
    if len(epochs) < 2:
        return
    titles = short_titles(page, (row["set"] for row in rows))
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in sorted(
        (r for r in rows if r["metric"] in epochs), key=lambda r: epochs[r["metric"]]
    ):
        of = curves.setdefault(row["set"], {})
        curve = of.setdefault(row["method"], {"epochs": [], "mean": [], "std": []})
        half = row["ci95"] if row["seeds"] is None else row["seeds"]
        for key, value in zip(
            curve, (epochs[row["metric"]], row["value"], half or 0.0), strict=True
        ):
            curve[key].append(value)
    figures.fine_tuning(folder / "fine-tuning.png", curves, titles)
    over = "seeds" if len(page["runs"]) > 1 else "networks"
    captions["fine-tuning.png"] = (
        f"Accuracy while starts are trained on; bands: 95 % interval over {over}."
    )
