"""What the networks of every method are worth and how far they are from the zoo's, by the audit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.stages import Stages
from experiments.zoo_generators import Design, Generated, decoded, described_latents
from experiments.zoo_targets import STATES, Target
from flown_jax.data.pictures import Pictures
from flown_jax.evaluation import audit
from flown_jax.evaluation.batch_statistics import reestimated
from flown_jax.evaluation.rows import Sample
from flown_jax.evaluation.vectors import explained, predictions
from flown_jax.training.stages import StageContext, StageResult

TABLE = "unconditional"
ORIGINALS, HELD_OUT = "originals", "held_out"
_SAMPLES = ("accuracy", "nearest", "diversity", "similarity", "copy")


def reconstruction(stages: Stages, target: Target, design: Design) -> StageResult:
    """A stage: what an autoencoder keeps, on images to choose by; said before a flow is trained.

    {"accuracy", "originals", "r2", "r2_held_out", "latent", "std"}
    """
    inputs = {
        "codec": design.codec,
        "spec": target.spec,
        "base": target.base,
        "train": target.train,
        "held_out": target.held_out,
        "choice": target.choice,
    }
    return stages(design.stage_name("reconstruction"), inputs, _reconstruction)


def _reconstruction(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    apply, images, labels = (
        given.choice.preprocessing.apply,
        given.choice.images,
        given.choice.labels,
    )
    mean = given.train.mean(0)
    scale = np.sqrt(np.square(given.train - mean).mean()) or 1.0

    def r2(weights: np.ndarray, found: np.ndarray) -> float:
        return explained((weights - mean) / scale, (found - mean) / scale)

    def accuracy(weights: np.ndarray) -> float:
        found = predictions(given.spec, weights, images, apply, host=given.base)
        return float((found == labels).mean())

    found, few = decoded(given.codec, given.train), spaced(len(given.train))
    about = described_latents(given.codec)
    return {
        "weights": found,
        "accuracy": accuracy(found[few]),
        "originals": accuracy(given.train[few]),
        "r2": r2(given.train, found),
        "r2_held_out": r2(given.held_out, decoded(given.codec, given.held_out)),
        "latent": about.size,
        "std": about.std,
    }


def say_reconstruction(target: Target, kept: Mapping[str, StageResult]) -> None:
    """Print what autoencoders keep, on images to choose by, before anything flows."""
    for name, stage in kept.items():
        of = stage.values
        print(
            f"{target.name}, {name}: decode(encode(w)) has {100 * of['accuracy']:.1f} % where the "
            f"networks have {100 * of['originals']:.1f} %, R2 {of['r2']:.3f}, of held-out ones "
            f"{of['r2_held_out']:.3f}; {of['latent']} latent numbers of deviation {of['std']:.3g}"
        )


def spaced(count: int, most: int = 20) -> np.ndarray:
    """At most so many of so many rows, at equal distances."""
    return np.arange(min(count, most)) * count // min(count, most)


class Measures:
    """The audit of one target's methods, in units of its own zoo.

    Args:
      name: stands behind the stages' names where a target is judged in several ways.

    Attributes:
      yard: finished stage, what the zoo itself gives.
    """

    def __init__(self, stages: Stages, config: ConfigDict, target: Target, name: str = "") -> None:
        part, count = config.evaluation, config.evaluation.matching_images
        images = target.images
        self._stages, self._name = stages, "-".join([target.name, *[name] * bool(name)])
        self._inputs = {
            "spec": target.spec,
            "base": target.base,
            "train": target.train,
            "test": target.test,
            "matching": _first(images, count) if target.cnn else None,
            # BatchNorm's statistics are of training images, of every method alike.
            "statistics": None if target.base is None else _first(images, part.statistics_images),
            "performant": part.performant,
            "networks": part.networks,
        }
        self.yard = stages.common(f"{self._name}-yard", self._inputs, _yard)

    def of(self, method: str, made: Generated) -> StageResult:
        """A stage: {"metrics": name -> {"value", "ci95", "n"}, "samples": name -> (S,)}."""
        inputs = {
            **self._inputs,
            "yard": self.yard,
            "weights": made.weights,
            "itself": method == ORIGINALS,
        }
        return self._stages(f"{self._name}-measures-{method}", inputs, _measure)


def _first(pictures: Pictures, count: int) -> Pictures:
    count = min(count or len(pictures.labels), len(pictures.labels))
    return dataclasses.replace(
        pictures, images=pictures.images[:count], labels=pictures.labels[:count]
    )


def _predicted(given: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Classes (S, n) with BatchNorm's statistics as they are, and as they are estimated anew."""
    apply, images = given.test.preprocessing.apply, given.test.images
    found = {"": predictions(given.spec, weights, images, apply, host=given.base)}
    if given.statistics is None:
        return found
    new = reestimated(given.spec, weights, given.statistics.images, apply, host=given.base)
    if new is not None:
        found["_reestimated"] = predictions(
            given.spec,
            weights,
            images,
            apply,
            host=given.base,
            buffers_spec=new[0],
            buffers=new[1],
        )
    return found


def _yard(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    distances = _distances(given)
    found = audit.yard(
        distances,
        given.train,
        _predicted(given, given.train)[""],
        given.test.labels,
        networks=given.networks,
        performant=given.performant,
    )
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return {name: value for name, value in values.items() if name != "distances"}


def _distances(given: Any) -> audit.Distances:
    return audit.distances_of(given.spec, None if given.matching is None else given.matching.inputs)


def _measure(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    yard = audit.Yard(distances=_distances(given), **given.yard.values)
    predicted = _predicted(given, given.weights)
    found = audit.measure(yard, given.weights, predicted[""], itself=given.itself)
    metrics = dict(found.metrics)
    if "_reestimated" in predicted:
        accuracy = (predicted["_reestimated"] == given.test.labels).mean(1)
        metrics["accuracy_reestimated"] = {
            "value": float(accuracy.mean()),
            "ci95": None,
            "n": len(accuracy),
        }
    return {"metrics": metrics, "samples": {name: found.samples[name] for name in _SAMPLES}}


def rows(
    target: Target, method: str, made: Generated, measured: StageResult
) -> list[dict[str, Any]]:
    """Tidy rows of a method. States of one network are no independent draws: no interval."""
    metrics = {**measured.values["metrics"], **_costs(made)}
    sample = Sample("networks", target.unit)
    bare = target.kind == STATES and method in (ORIGINALS, HELD_OUT)
    found = []
    for metric, of in metrics.items():
        if of["value"] is None:
            continue
        # Of a trajectory's states there is one sample, however many they are.
        to_states = target.kind == STATES and metric != "accuracy"
        half = None if bare or to_states else of["ci95"]
        found.append(
            sample.row(TABLE, method, target.name, metric, float(of["value"]), half, of["n"])
        )
    return found


def _costs(made: Generated) -> dict[str, dict[str, Any]]:
    costs = {
        "nfe": made.nfe,
        "seconds_training": made.training,
        "seconds_sampling": made.sampling,
    }
    return {
        name: {"value": value, "ci95": None, "n": len(made.weights)}
        for name, value in costs.items()
        if value is not None
    }


def reconstruction_rows(target: Target, found: Mapping[str, StageResult]) -> list[dict[str, Any]]:
    """Tidy rows of what the autoencoders keep, in a table of their own."""
    sample, rows = Sample("networks", target.unit), []
    counts = {"r2_held_out": len(target.held_out)}
    for name, stage in found.items():
        for metric in ("accuracy", "r2", "r2_held_out", "latent", "std"):
            value = float(stage.values[metric])
            count = counts.get(metric, len(target.train))
            rows.append(
                sample.row(
                    "reconstruction", name, target.name, f"decoded_{metric}", value, None, count
                )
            )
    return rows
