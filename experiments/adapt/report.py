"""What adaptation writes: tables, figures, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.adapt import progress
from experiments.adapt.words import STATIC, remarks
from experiments.report import write_report
from experiments.zoo_measures import TABLE
from flown_jax.evaluation import tables
from flown_jax.evaluation.audit_figures import accuracy_against

_MAIN = (
    "accuracy",
    "accuracy_std",
    "accuracy_min",
    "accuracy_max",
    "accuracy_vote",
    "accuracy_reestimated",
    "diversity",
    "direction_diversity",
    "length",
    "disagreement_among",
    "seconds_training",
    "seconds_sampling",
)
_ON_SCREEN = ("accuracy", "accuracy_min", "accuracy_max", "accuracy_vote", "diversity")


def screen(results: Mapping[str, Any]) -> None:
    """Print the tables and the sentences of a run on the terminal."""
    tables.screen(results["rows"], results["titles"], TABLE, _ON_SCREEN)
    for sentence in results["remarks"]:
        print(sentence)


def write(
    workdir: Path, config: ConfigDict, results: Mapping[str, Any], done: Mapping[str, Any]
) -> None:
    """results.md, report.html and the figures; results.json last, as the mark of the end.

    Args:
      done: target -> `target`, `new`, `curves`, `samples` (method -> name -> (S,)).
    """
    rows, words, texts, pictures = results["rows"], remarks(config), {}, {}
    for name, title in results["titles"].items():
        drawn = tables.markdown(rows, name, TABLE, words, _MAIN)
        texts[title] = f"{drawn}\n\n{tables.note(rows, [name], TABLE, _MAIN)}".rstrip()
        if results["cuts"][name] is not None:
            texts[f"{title}: the gradient cut"] = cut_table(results["cuts"][name])
        path = workdir / "figures" / f"{name}.png"
        # Few images stand in the table.
        every = done[name]["samples"].items()
        samples = {method: of for method, of in every if not method.endswith("_images")}
        accuracy_against(path, samples, {method: _family(method) for method in samples})
        pictures[path] = (
            f"{title}: accuracy on the new data set against the distance to the nearest training "
            "network and against diversity, a point a network."
        )
        if curves := done[name]["curves"]:
            path = workdir / "figures" / f"{name}-progress.png"
            before = float(np.mean(samples[STATIC]["accuracy"]))
            progress.figure(path, curves, before, f"{title}, {done[name]['new'].name}")
            pictures[path] = (
                f"{title}: accuracy on images to choose by. Filled: new networks of a generator "
                "that is being adapted; dashed: networks fine-tuned for so many steps in all, the "
                "seconds of one of them. Grey: the generator as it is, on test images."
            )
    title = f"Adaptation: variant {config.variant}, seed {config.seed}"
    write_report(
        workdir,
        title,
        introduction(config, done),
        list(results["remarks"]),
        texts,
        pictures,
        results,
    )


def introduction(config: ConfigDict, done: Mapping[str, Any]) -> str:
    """What was adapted to what, in a paragraph."""
    parts = []
    for name, of in done.items():
        new = of["new"]
        counts = [len(each.labels) for each in (new.train, new.validation, new.test)]
        parts.append(
            f"{name}: a generator of {len(of['target'].train)} networks, adapted to {new.name} "
            f"({counts[0]:,} images to train on, {counts[1]:,} to choose by, {counts[2]:,} of the "
            "test split)"
        )
    adapt = config.adapt
    return (
        f"{'; '.join(parts)}. {config.sampling.samples} new networks of each adapted generator, "
        f"after {adapt.recipe.steps:,} steps of {adapt.networks} networks and "
        f"{adapt.recipe.batch} images; plain fine-tuning takes as many steps of as many images a "
        f"network. Learning rates are chosen on images to choose by."
    )


def cut_table(cut: Mapping[str, Any]) -> str:
    """Seconds, memory and direction of the gradient by t', in Markdown."""
    lines = [
        "| steps | t' | solver's gradient, ms | whole step, ms | MiB | cosine | accuracy % |",
        "|---|---|---|---|---|---|---|",
    ]
    # Of the first number of steps, trained with each t'; on images to choose by.
    accuracies = [f"{100 * value:.1f}" for value in cut.get("accuracies", ())]
    accuracies += [""] * (len(cut["rows"]) - len(accuracies))
    for row, accuracy in zip(cut["rows"], accuracies, strict=True):
        lines.append(
            f"| {row['steps']} | {row['t']:g} | {1000 * row['solver_seconds']:.2f} | "
            f"{1000 * row['step_seconds']:.2f} | {row['memory'] / 2**20:.2f} | "
            f"{row['cosine']:.3f} | {accuracy} |"
        )
    norms = ", ".join(f"{value:.3g}" for value in cut["norms"])
    return "\n".join(lines) + f"\n\nNorms of the gradient at the states, from t = 0 to 1: {norms}."


def _family(method: str) -> str:
    if method in ("velocity", "residual", "decoder"):
        return "generator"
    return "networks" if method in ("static", "members") else "no model"
