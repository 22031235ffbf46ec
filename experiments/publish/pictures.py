"""The figures of a page, drawn from its rows, and those that a run itself has drawn."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
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
_DIVERSITIES = {
    "diversity": "diversity",
    "direction_diversity": "diversity of directions, which no length can buy",
}
_PANELS = 3  # of a forest plot


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: its caption, and what draws it into a file."""

    caption: str
    draw: Callable[[Path], None]


def pictures(page: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Picture]:
    """What can be drawn of the rows; file name -> picture, in the order of the page.

    Args:
      page: as `collect.pages` makes it. rows: means over its runs.
    """
    found: dict[str, Picture] = {}
    names = list(dict.fromkeys(row["table"] for row in rows))
    for table in names:
        of = [row for row in rows if row["table"] == table]
        # Of a few-shot run's settings each has its own; of other tables one has a figure.
        several = page["experiment"] == "fewshot" and len(names) > 1
        found |= _forests(page, of, table if several else "")
        found |= _diversities(
            page["experiment"], of, short_titles(page, (row["set"] for row in of)), table
        )
        found |= _fine_tuning(page, of)
    return found


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


def _forests(page: Mapping[str, Any], rows: Sequence[Row], setting: str) -> dict[str, Picture]:
    """Differences to the row that a table refers to, and those of the headline to its rivals.

    Args:
      rows: of one table. setting: its name where others have such figures, too, else "".
    """
    metrics, table = {row["metric"] for row in rows}, rows[0]["table"]
    metric = next((m for m in quantities.REFERENCES if m in metrics), None)
    if metric is not None:
        of = quantities.REFERENCES[metric]
        found = [row for row in rows if row["metric"] == metric and row["method"] != of]
        text = f"{quantities.title(metric)}, of every method."
    else:
        found = [row for row in differences(page["runs"]) if row["table"] == table]
        if not found or len(page["runs"]) < 2:
            return {}
        metric, of = found[0]["metric"], found[0]["against"]
        text = f"{_title(metric)} minus that of `{of}` in the same run, points."
    factor = 100 if metric.startswith("accuracy") else 1
    label = f"difference to {of}" + (", points" if factor == 100 else "")
    made = _forest(page, found, ("forest", setting), (label, text, factor))
    own = [
        {**row, "method": tables.heading(row["metric"]).removeprefix("minus ")}
        for row in rows
        if row["method"] == quantities.HEADLINE and row["metric"].startswith(quantities.MINUS)
    ]
    if own:
        text = f"Accuracy of `{quantities.HEADLINE}` minus that of each rival, points."
        label = f"{quantities.HEADLINE} minus rival, points"
        made |= _forest(page, own, ("rivals", setting), (label, text, 100))
    return made


def _title(metric: str) -> str:
    if metric.startswith(quantities.EPOCH):
        return f"Accuracy at {tables.heading(metric)}"
    return "Accuracy"


def _forest(
    page: Mapping[str, Any],
    rows: Sequence[Row],
    name: tuple[str, str],
    words: tuple[str, str, int],
) -> dict[str, Picture]:
    """A picture of a few sets' panels, and others of the next ones.

    Args:
      name: kind and setting. words: label of the axis, caption, factor of the values.
    """
    (kind, setting), (label, text, factor) = name, words
    titles = list(short_titles(page, (row["set"] for row in rows)).items())
    made = {}
    for i in range(0, len(titles), _PANELS):
        panels = {
            title: [
                _difference(page["experiment"], row, factor) for row in rows if row["set"] == of
            ]
            for of, title in titles[i : i + _PANELS]
        }
        part = f"{i // _PANELS + 1}" if len(titles) > _PANELS else ""
        file = "-".join(word.replace(" ", "-") for word in (kind, setting, part) if word) + ".png"
        caption = f"{setting}. {text}" if setting else text
        made[file] = Picture(caption, functools.partial(forest, panels=panels, x_label=label))
    return made


def _difference(experiment: str, row: Row, factor: float) -> Difference:
    def scaled(value: float | None) -> float | None:
        return None if value is None else factor * value

    method = row["method"]
    chosen = tables.chosen_on_test(method)
    ours = quantities.kind(experiment, method) == "ours"
    kind = "chosen" if chosen else "ours" if ours else "other"
    halves = scaled(row.get("ci95")), scaled(row["seeds"])
    return Difference(f"{method}{' †' * chosen}", factor * row["value"], *halves, kind)


def _diversities(
    experiment: str, rows: Sequence[Row], titles: Mapping[str, str], table: str
) -> dict[str, Picture]:
    """Accuracy against diversity, of a table that has both."""
    made = {}
    rows = [row for row in rows if not row["method"].endswith("_images")]  # these are in the tables
    kinds = {row["method"]: quantities.kind(experiment, row["method"]) for row in rows}
    for metric, words in _DIVERSITIES.items():
        there = {row["set"] for row in rows if row["metric"] == metric}
        there &= {row["set"] for row in rows if row["metric"] == "accuracy"}
        if sets := {name: title for name, title in titles.items() if name in there}:
            file = f"accuracy-against-{metric.replace('_', '-')}.png"
            original = next((m for m in quantities.LEVELS if m in kinds), "originals")
            level = quantities.LEVELS[original]
            caption = f"Accuracy against {words}; dotted: {level}."
            given: dict[str, Any] = {"rows": rows, "sets": sets, "table": table, "metric": metric}
            given |= {"original": original, "level": level, "kinds": kinds}
            draw = functools.partial(figures.accuracy_against_diversity, **given)
            made[file] = Picture(caption, draw)
    return made


def _fine_tuning(page: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Picture]:
    """Accuracies while starts are trained on."""
    length = len(quantities.EPOCH)
    found = [row for row in rows if row["metric"].startswith(quantities.EPOCH)]
    if len({row["metric"] for row in found}) < 2:
        return {}
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in sorted(found, key=lambda row: int(row["metric"][length:])):
        of = curves.setdefault(row["set"], {})
        curve = of.setdefault(row["method"], {"epochs": [], "mean": [], "std": []})
        for key, value in (("epochs", int(row["metric"][length:])), ("mean", row["value"])):
            curve[key].append(value)
        curve["std"].append(0.0)  # few runs have bands that hide the lines
    titles = short_titles(page, (row["set"] for row in rows))
    caption = "Accuracy while starts are trained on; intervals: in the tables."
    draw = functools.partial(figures.fine_tuning, curves=curves, titles=titles)
    return {"fine-tuning.png": Picture(caption, draw)}
