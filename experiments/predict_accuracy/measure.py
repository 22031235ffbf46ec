"""What readers are worth on held-out networks, as these are and with their units permuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.predict_accuracy.networks import Networks, Parts
from experiments.predict_accuracy.readers import predict, trained_readers
from experiments.stages import Stages
from flown_jax.evaluation import ranks
from flown_jax.evaluation.classification import interval
from flown_jax.evaluation.rows import Sample
from flown_jax.training.fingerprints import digest
from flown_jax.training.stages import StageContext, StageResult
from flown_jax.weights.symmetries import permuted

RIVALS = ("statistics", "mlp")
_FIELDS = dataclasses.fields(Networks)
_SCORES = {"kendall": ranks.kendall, "spearman": ranks.spearman, "r2": ranks.r2}


def evaluate(
    stages: Stages, config: ConfigDict, parts: Parts, fitted: Mapping[str, StageResult]
) -> StageResult:
    """A stage: {"rows": tidy rows, "predictions": {part: {method: {"plain", "permuted"}}}}.

    Predictions are (R, N). It is the only stage that sees held-out networks.
    """
    inputs = {
        "fitted": fitted,
        "readers": trained_readers(config),
        "spec": parts.spec,
        "parts": {"test": parts.test, "learn": parts.learn},
        "seed": config.seed,
    }
    return stages("evaluation", inputs, _evaluate)


def _evaluate(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    kinds, place = {}, 0
    for part, networks in given.parts.items():
        other = permuted(given.spec, networks.weights, np.random.default_rng(given.seed))
        copies = dataclasses.replace(networks, weights=other)
        for kind, of in (("plain", networks), ("permuted", copies)):
            kinds[part, kind] = of, slice(place, place + len(of.epoch))
            place += len(of.epoch)
    together = Networks(
        *(
            np.concatenate([getattr(of, field.name) for of, _ in kinds.values()])
            for field in _FIELDS
        )
    )
    predictions: dict[str, dict[str, dict[str, np.ndarray]]] = {part: {} for part in given.parts}
    for method, fit in given.fitted.items():
        # At once: a program is compiled once.
        found = predict(method, fit.values, given.readers.get(method), given.spec, together)
        for (part, kind), (_, where) in kinds.items():
            predictions[part].setdefault(method, {})[kind] = found[:, where]
    scored = (rows(part, given.parts[part], of) for part, of in predictions.items())
    return {"rows": [row for of in scored for row in of], "predictions": predictions}


def rows(
    part: str, networks: Networks, predictions: Mapping[str, Mapping[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """Tidy rows: scores of every method among all networks, within epochs, in the last epoch.

    A score of several runs is their mean; its interval is over networks, `seeds` over the runs.

    Args:
      part: its name: of "learn" there are no rows but those of all networks.
      predictions: method -> "plain" and "permuted", (R, N) each.
    """
    found: list[dict[str, Any]] = []
    last, whole = networks.epoch == networks.epoch.max(), np.ones(len(networks.epoch), bool)
    sets = {"all_epochs" if part == "test" else part: (whole, np.zeros_like(networks.epoch))}
    if part == "test" and not last.all():
        sets |= {"within_epochs": (whole, networks.epoch), "last_epoch": (last, networks.epoch)}
    unit = digest({"networks": networks})
    for name, (mask, groups) in sets.items():
        own = networks.network[mask]
        counts = np.concatenate([np.ones((1, len(own))), ranks.draws(own)])
        scored = {
            method: _scored(
                networks.accuracy[mask],
                {kind: values[:, mask] for kind, values in of.items()},
                groups[mask],
                counts,
            )
            for method, of in predictions.items()
        }
        rivals = {rival: scored[rival]["kendall"].mean(0, keepdims=True) for rival in RIVALS}
        for method, of in scored.items():
            for rival, drawn in rivals.items():
                if method != rival:
                    of[f"kendall_minus_{rival}"] = of["kendall"] - drawn
            if len(sets) > 1 and name != "all_epochs":
                del of["r2"]  # within an epoch little varies beside what other images would change
            for metric, drawn in of.items():
                found += _row(name, method, metric, drawn, len(set(own)), unit)
    return found


def _scored(
    truth: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    groups: np.ndarray,
    counts: np.ndarray,
) -> dict[str, np.ndarray]:
    """Metric -> its values (R, B) in draws of the networks, counts (B, N)."""
    plain, other = predicted["plain"], predicted["permuted"]
    found = {name: ranks.scores(of, truth, plain, groups, counts) for name, of in _SCORES.items()}
    found["kendall_permuted"] = ranks.scores(ranks.kendall, truth, other, groups, counts)
    # Each run with itself: is a network's copy read as the network is?
    pairs = zip(plain, other, strict=True)
    itself = [ranks.scores(ranks.kendall, one, two[None], groups, counts) for one, two in pairs]
    return found | {"kendall_itself": np.concatenate(itself)}


def _row(
    name: str, method: str, metric: str, drawn: np.ndarray, count: int, unit: str
) -> list[dict[str, Any]]:
    """The row of a score, or none where it is not defined."""
    value = drawn.mean(0)
    if not np.isfinite(value[0]):
        return []
    half = ranks.half_width(value[1:], count)
    row = Sample("networks", unit).row("main", method, name, metric, float(value[0]), half, count)
    if len(drawn) > 1:
        row["seeds"] = interval(drawn[:, 0])[1]
    return [row]
