"""What unconditional generation writes: tables, figures, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.report import write_report
from experiments.unconditional.words import family, introduction, remarks
from experiments.zoo_measures import TABLE
from flown_jax.evaluation import tables
from flown_jax.evaluation.audit_figures import accuracy_against

_MAIN = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_max_minus_originals",
    "accuracy_std",
    "accuracy_min",
    "accuracy_max",
    "accuracy_vote",
    "accuracy_reestimated",
    "seconds_training",
    "seconds_sampling",
    "nfe",
)
_NOVELTY = (
    "nearest",
    "nearest_smallest",
    "copies",
    "accuracy_copies",
    "accuracy_others",
    "diversity",
    "direction_diversity",
    "length",
    "duplicates",
    "error_iou_train",
    "error_iou_among",
    "disagreement_nearest",
    "disagreement_among",
    "novel_performant_1",
    "novel_performant_2",
    "not_finite",
)
_ON_SCREEN = (
    "accuracy",
    "accuracy_minus_originals",
    "accuracy_max_minus_originals",
    "nearest",
    "copies",
    "diversity",
    "direction_diversity",
    "length",
)


def screen(results: Mapping[str, Any]) -> None:
    """Print the tables and the sentences of a run on the terminal."""
    rows, titles = results["rows"], results["titles"]
    bare = [{**row, "ci95": None} if row["metric"] != "accuracy" else row for row in rows]
    tables.screen(bare, titles, TABLE, _ON_SCREEN)
    for sentence in results["remarks"]:
        print(sentence)


def write(
    workdir: Path, config: ConfigDict, results: Mapping[str, Any], done: Mapping[str, Any]
) -> None:
    """results.md, report.html and the figures; results.json last, as the mark of the end.

    Args:
      done: target -> `target`, `samples` (method -> name -> (S,)).
    """
    rows, words, texts = results["rows"], remarks(config), {}
    for name, title in results["titles"].items():
        drawn = tables.markdown(rows, name, TABLE, words, _MAIN)
        texts[f"{title}: accuracy"] = (
            f"{drawn}\n\n{tables.note(rows, [name], TABLE, _MAIN)}".rstrip()
        )
        bare = [{**row, "ci95": None} for row in rows]
        drawn = tables.markdown(bare, name, TABLE, {}, _NOVELTY)
        texts[f"{title}: novelty and diversity"] = drawn
        texts[f"{title}: what the autoencoders keep"] = tables.markdown(
            rows, name, "reconstruction"
        )
    pictures = {}
    for name, of in done.items():
        path = workdir / "figures" / f"{name}.png"
        samples: dict[str, Mapping[str, np.ndarray]] = of["samples"]
        accuracy_against(path, samples, {method: family(method) for method in samples})
        pictures[path] = (
            f"{results['titles'][name]}: accuracy against the distance to the nearest training "
            "network and against diversity, a point a network."
        )
    title = f"Unconditional generation: variant {config.variant}, seed {config.seed}"
    targets = [of["target"] for of in done.values()]
    sentences = list(results["remarks"])
    write_report(workdir, title, introduction(config, targets), sentences, texts, pictures, results)
