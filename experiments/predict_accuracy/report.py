"""What the readers' experiment writes: tables, a figure, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.predict_accuracy.networks import Parts
from experiments.report import write_report
from flown_jax.evaluation import tables
from flown_jax.evaluation.reading_figures import predicted_against_true

TITLES = {
    "all_epochs": "All held-out networks",
    "within_epochs": "Within an epoch, mean over epochs",
    "last_epoch": "Last epoch",
    "learn": "Networks that were learned from",
}
REMARKS = {
    "epoch": "mean accuracy at the network's epoch, blind to its weights",
    "statistics": "ridge on mean, deviation and quantiles of each tensor",
    "mlp": "MLP on vectors",
    "mlp_permuted": "the same, units permuted at random in every batch",
    "graph_transformer": "graph encoder, relational transformer",
    "graph_pna": "graph encoder, PNA",
}
_ON_SCREEN = ("kendall", "kendall_minus_statistics", "kendall_minus_mlp", "r2", "kendall_itself")


def titles(results: Mapping[str, Any]) -> dict[str, str]:
    """Set -> title, of the sets that have rows."""
    return {name: TITLES[name] for name in dict.fromkeys(row["set"] for row in results["rows"])}


def screen(results: Mapping[str, Any]) -> None:
    """Print the tables of a run on the terminal."""
    tables.screen(results["rows"], titles(results), shown=_ON_SCREEN, first="reader")


def write(
    workdir: Path,
    config: ConfigDict,
    parts: Parts,
    results: Mapping[str, Any],
    predictions: Mapping[str, Any],
) -> None:
    """results.md, report.html and the figure; results.json last, as the mark of the end."""
    rows, texts = results["rows"], {}
    for name, title in titles(results).items():
        table = tables.markdown(rows, name, remarks=REMARKS, first="reader")
        texts[title] = f"{table}\n\n{tables.note(rows, [name], 'main')}"
    pictures = {}
    for part, (words, networks) in {
        "test": ("held-out networks", parts.test),
        "learn": ("networks that were learned from", parts.learn),
    }.items():
        kinds = {words: "plain", "the same, units permuted": "permuted"}
        drawn = {
            method: {title: predictions[part][method][kind] for title, kind in kinds.items()}
            for method in REMARKS
            if method in predictions[part]
        }
        path = workdir / "figures" / f"predicted_{part}.png"
        predicted_against_true(path, networks.accuracy, networks.epoch, drawn)
        pictures[path] = f"Predicted against true accuracy, {words}; of trained ones the first run."
    title = f"Accuracies read from weights: {config.zoo}, seed {config.seed}"
    write_report(workdir, title, introduction(config, parts), [], texts, pictures, results)


def introduction(config: ConfigDict, parts: Parts) -> str:
    """What was read and how, in a paragraph."""
    learn, choose, test = (
        f"{part.count} networks ({len(part.epoch)} states)"
        for part in (parts.learn, parts.choose, parts.test)
    )
    images = "test images" if config.label == "test_accuracy" else "validation images"
    return (
        f"Readers predict the accuracy on the {images} of {parts.dataset} that the zoo records "
        f"for each network, from its weights alone. All learn from {learn}, choose penalty or "
        f"steps by {choose} of other seeds, and are measured on {test} that the zoo holds out. "
        "Accuracy is mostly told by the epoch; within an epoch that reader knows nothing. "
        "`permuted`: of copies with their hidden units in another order; `to itself`: of the "
        "predictions for networks and for these copies. "
        f"Trained readers are means over {config.runs} run(s), `seeds ±` is over these."
    )
