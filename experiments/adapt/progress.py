"""Accuracy on the images to choose by, against steps and against seconds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.adapt.new import New
from experiments.stages import Stages
from experiments.zoo_targets import Target
from flown_jax.data.pictures import Pictures
from flown_jax.evaluation.figures import new_figure, save_figure
from flown_jax.evaluation.vectors import predictions
from flown_jax.training.records import read_metrics
from flown_jax.training.stages import StageContext
from flown_jax.training.tuning import Training, train_starts

# A curve: [(steps, accuracy), ...] and the seconds of a step.
Curve = Mapping[str, Any]


def curve(context: StageContext, run: str, plain: float) -> dict[str, Any]:
    """Validations of a run of the stage, and seconds of a step without them and compilation.

    Args:
      run: its name. plain: seconds of a step where the records are too few to tell.
    """
    own = [r for r in read_metrics(context.records.path.parent) if r["stage"] == run]
    scores = [[r["step"], r["validation"]] for r in own if "validation" in r]
    logs = [(r["step"], r["time"]) for r in own if "loss" in r]
    paces = [(t - s) / (j - i) for (i, s), (j, t) in itertools.pairwise(logs) if j > i]
    return {"scores": scores, "step_seconds": min(paces, default=plain)}


def plain_stage(
    stages: Stages,
    config: ConfigDict,
    target: Target,
    new: New,
    starts: dict[str, np.ndarray],
) -> dict[str, Curve]:
    """Kind of start -> its curve: a point is a whole fine-tuning of so many steps."""
    budgets = (*config.rivals.curve, config.adapt.recipe.steps)
    inputs = {
        "spec": target.spec,
        "starts": {kind: own[: config.rivals.tuned_on] for kind, own in starts.items()},
        "seed": config.seed,
        "train": new.outputs(new.train),
        "choice": new.outputs(new.validation),
        "budgets": sorted({min(b, config.adapt.recipe.steps) for b in budgets}),
        "batch": config.adapt.recipe.batch,
        "rates": config.adapt.rates.plain,
    }
    return stages(f"{target.name}-budgets", inputs, _budgets, version=2).values["curves"]


def _budgets(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    data = Training(
        given.train.inputs, given.train.labels, given.choice.inputs, given.choice.labels
    )
    networks = sum(map(len, given.starts.values()))
    scores: dict[str, list[list[float]]] = {kind: [] for kind in given.starts}
    for steps in given.budgets:
        begun = time.perf_counter()
        tuned = train_starts(
            context,
            given.spec,
            given.starts,
            data,
            name=f"plain-{steps}",
            seed=given.seed,
            steps=steps,
            batch=given.batch,
            rates=given.rates,
            tuned_on=len(next(iter(given.starts.values()))),
        )
        for kind, weights in tuned.items():
            scores[kind].append([steps, _accuracy(given.spec, weights, given.choice)])
        # Of the longest, for each network; those that choose among the rates count, too.
        pace = (time.perf_counter() - begun) / (steps * networks * (1 + len(given.rates)))
    return {"curves": {k: {"scores": s, "step_seconds": pace} for k, s in scores.items()}}


def _accuracy(spec: Any, weights: np.ndarray, pictures: Pictures) -> float:
    found = predictions(spec, weights, pictures.images, pictures.preprocessing.apply)
    return float((found == pictures.labels).mean())


def figure(path: Path, curves: Mapping[str, Curve], start: float, title: str) -> None:
    """Accuracy against gradient steps and seconds, a line a way.

    Args:
      path: PNG file. start: accuracy of the generator as it is.
    """
    from matplotlib.ticker import LogLocator

    drawing, axes = new_figure(1, 2, (11.0, 4.6))
    for axis, unit in zip(axes[0], ("steps", "seconds"), strict=True):
        for name, of in curves.items():
            whole = name.startswith("plain")
            x, y = np.asarray(of["scores"], float).reshape(-1, 2).T
            x = x * (of["step_seconds"] if unit == "seconds" else 1)
            style = "o--" if whole else "o-"
            label = name.replace("_", " ") + (", a network" if whole else "")
            axis.plot(x, 100 * y, style, ms=3.5, lw=1.3, label=label)
        axis.axhline(100 * start, color="#7a7a7a", lw=1, ls=":", label="not adapted")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.set_xlabel(f"{unit} of training")
        axis.set_ylabel("accuracy on images to choose by, %")
        axis.grid(alpha=0.25)
    axes[0][1].legend(fontsize=8, loc="lower right")
    drawing.suptitle(title)
    save_figure(drawing, path)


def curves_of(stages: Mapping[str, Any], plain: Mapping[str, Curve]) -> dict[str, Curve]:
    """All curves of a target, those without a validation left out."""
    found = {name: stage.values["curve"] for name, stage in stages.items()}
    found |= {f"plain_{kind}": of for kind, of in plain.items()}
    return {name: of for name, of in found.items() if len(of["scores"])}
