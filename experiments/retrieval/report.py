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
from flown_jax.evaluation import zoo_retrieval_tables as retrieval_tables
from flown_jax.evaluation.rows import Sample

_SHOWN = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_std",
    "accuracy_min",
    "accuracy_top5",
    "accuracy_top5_minus_originals",
    "accuracy_ensemble",
    "nn",
    "copies",
    "diversity",
    "direction_diversity",
    "length",
    "duplicates",
    "error_iou_among",
    "error_iou_train",
    "right_set",
)
_ON_SCREEN = (
    "accuracy",
    "accuracy_minus_originals",
    "copies",
    "diversity",
    "direction_diversity",
)
_INTERVALS = ("accuracy", "accuracy_minus_originals")  # the others' stand in results.json
_DIVERSITIES = {
    "direction_diversity": "diversity of directions, which no length can buy,",
    "diversity": "diversity",
}
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
    sets = retrieval_tables.sets_of(rows, titles, "retrieval")
    tables.screen(
        retrieval_tables.without_intervals(rows, ("accuracy",)), sets, "retrieval", _ON_SCREEN
    )
    sets = retrieval_tables.sets_of(rows, titles, "initialise")
    named = {name: f"{title}: accuracy % after fine-tuning" for name, title in sets.items()}
    tables.screen(retrieval_tables.without_intervals(rows, ()), named, "initialise", None, "start")


def _tables(
    config: ConfigDict, results: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, str]:
    """Heading -> table in Markdown."""
    rows, titles = results["rows"], results["titles"]
    sets, words = retrieval_tables.sets_of(rows, titles, "retrieval"), remarks(config)
    heading = "All sets: accuracy % (minus originals) · diversity (of directions) · copies"
    texts = {heading: retrieval_tables.summary(rows, sets)}
    shown = retrieval_tables.without_intervals(rows, _INTERVALS) + _paper_rows(sets)
    for name, title in sets.items():
        drawn = tables.markdown(shown, name, "retrieval", words, _SHOWN)
        texts[f"Retrieval: {title}"] = f"{drawn}\n\n{tables.note(shown, [name], 'retrieval')}"
    if found["confusion"]:
        texts["Which set's networks came out, % of the support draws"] = retrieval_tables.confusion(
            found["confusion"], titles
        )
    tuned = retrieval_tables.with_std(rows, found["curves"])
    for name, title in retrieval_tables.sets_of(rows, titles, "initialise").items():
        heading = f"Initialisation: {title}, accuracy % after fine-tuning, mean ± std over runs"
        drawn = tables.markdown(tuned, name, "initialise", STARTS, first="start")
        about = tables.note(tuned, [name], "initialise", what="the standard deviation")
        texts[heading] = f"{drawn}\n\n{about}"
    return texts


def _pictures(
    folder: Path, results: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[Path, str]:
    """The figures that there is something for, with their captions."""
    rows, titles = results["rows"], results["titles"]
    captions: dict[Path, str] = {}
    if sets := retrieval_tables.sets_of(rows, titles, "retrieval"):
        for metric, words in _DIVERSITIES.items():
            path = folder / f"accuracy_against_{metric}.png"
            figures.accuracy_against_diversity(path, rows, sets, metric=metric)
            captions[path] = (
                f"Accuracy against {words} of every method; dotted: the originals' mean; "
                "crosses: more than one network in 24 is a copy. A single network stands at "
                "diversity 0."
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
        figures.fine_tuning(path, found["curves"], titles, retrieval_tables.originals(rows))
        captions[path] = (
            "Accuracy while generated weights and other starts are trained on; bands: one standard "
            "deviation over runs; dotted: the zoo's own networks."
        )
    if found.get("prior_curves"):
        path = folder / "prior_losses.png"
        figures.losses(path, found["prior_curves"])
        captions[path] = "Loss of the flow from each source (the paper's Figure 2)."
    return captions


def _paper_rows(sets: Mapping[str, str]) -> list[dict[str, Any]]:
    """The paper's own figures of these sets, as rows."""
    sample = Sample("networks", "the paper's")
    return [
        sample.row("retrieval", method, name, "accuracy_top5", of_set[name], None, 5)
        for method, of_set in PAPER.items()
        for name in sets
        if name in of_set
    ]


def _strips(accuracies: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the methods that are drawn network by network."""
    found = {
        name: {method: of[method] for method in _STRIPS if method in of}
        for name, of in accuracies.items()
    }
    return {name: of for name, of in found.items() if of}
