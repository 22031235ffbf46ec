"""What generated networks are worth: accuracy, novelty and diversity, as tidy rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from flown_jax.evaluation import novelty
from flown_jax.evaluation.classification import difference_interval, interval
from flown_jax.evaluation.rows import Sample
from flown_jax.models import many
from flown_jax.weights.canonical import canonical
from flown_jax.weights.matching import matched_distances
from flown_jax.weights.spec import WeightSpec

TOP = 5  # samples of the paper's Table 2
MEMBERS = 10  # networks whose probabilities are averaged
_CHUNK = 250  # images at a time


@dataclass(frozen=True, eq=False)
class SetMeasures:
    """What the measures of one data set's networks need.

    Attributes:
      spec: of the networks.
      train: (N, D) training networks of the zoo. held_out: (H, D), of its other seeds.
      images, labels: test images, preprocessed, and their classes.
      matching: (B, H, W, C) images on which units are matched.
    """

    spec: WeightSpec
    train: np.ndarray
    held_out: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    matching: np.ndarray


def network_logits(
    spec: WeightSpec, weights: jax.Array, images: jax.Array, base: Any = None
) -> jax.Array:
    """Logits (N, B, classes) of networks (N, D) on the same images (B, H, W, C).

    Args:
      base: variables that the vectors are a part of, or take their running statistics from.
    """
    if base is not None:
        return jax.vmap(lambda w: spec.apply(w, images, base))(weights)
    params = jax.vmap(spec.unflatten)(weights)["params"]
    return many.logits(spec.module())(params, images[None])


def log_probabilities(
    spec: WeightSpec, weights: np.ndarray, images: np.ndarray, base: Any = None
) -> np.ndarray:
    """Log-probabilities (N, n, classes) float32 of networks (N, D) on images (n, H, W, C).

    Args:
      base: as in `network_logits`.
    """
    parts = []
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK]
        padded = np.concatenate([part, np.repeat(part[-1:], _CHUNK - len(part), axis=0)])
        found = _log_probs(spec, jnp.asarray(weights), jnp.asarray(padded), base)
        parts.append(np.asarray(found)[:, : len(part)])
    return np.concatenate(parts, axis=1)


@partial(jax.jit, static_argnums=0)
def _log_probs(spec: WeightSpec, weights: jax.Array, images: jax.Array, base: Any) -> jax.Array:
    return jax.nn.log_softmax(network_logits(spec, weights, images, base))


@dataclass(frozen=True, eq=False)
class Yard:
    """Of one data set, computed once: units of distance and what its zoo gets wrong.

    Attributes:
      unit: distances of held-out and training networks.
      originals: accuracies of the training networks, of each its last state.
      errors: (N, n) bool, of the training networks on the test images.
      among: (K, K) matched distances of the first K of these, those of the unit.
      held_out: (H, N) matched distances of the held-out networks to them.
      directions: mean distance of two of the first K networks' directions.
      length: mean length of these.
    """

    unit: novelty.Yardstick
    originals: np.ndarray
    errors: np.ndarray
    among: np.ndarray
    held_out: np.ndarray
    directions: float
    length: float


def yard(data: SetMeasures, networks: int = 50, last: Sequence[int] | None = None) -> Yard:
    """The units of a data set's measures.

    Args:
      networks: training networks whose distances among themselves are the unit; the first so many.
      last: rows of the training networks that are independent of each other, such as the last
        state of each; None for all.
    """
    own = np.arange(len(data.train)) if last is None else np.asarray(last)
    log_probs = log_probabilities(data.spec, data.train, data.images)
    errors = novelty.error_sets(classes(log_probs), data.labels)
    first = data.train[own[:networks]]
    among = matched_distances(data.spec, first, first, data.matching)
    held_out = matched_distances(data.spec, data.held_out, data.train, data.matching)
    pairwise, _ = novelty.pairwise(among)
    unit = novelty.Yardstick(float(novelty.nearest(held_out).mean()), pairwise)
    lengths = _lengths(data.spec, first)
    directions, _ = novelty.pairwise(novelty.direction_distances(among, lengths))
    originals = 1 - errors[own].mean(1)
    return Yard(unit, originals, errors, among, held_out, float(directions), float(lengths.mean()))


def measure(
    data: SetMeasures, scale: Yard, weights: np.ndarray, *, itself: bool = False
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Metric -> {"value", "ci95", "n"} of generated networks (S, D), and their accuracies (S,).

    Accuracies: mean of all with its 95 % interval over samples, standard deviation, smallest, mean
    of the best five (the paper's Table 2), of the averaged probabilities of ten, and the difference
    to the originals' mean (Welch's interval: networks of both are drawn). The best five of many lie
    above the mean of the same networks: they are compared with the best five of as many originals
    (`accuracy_top5_minus_originals`), of samples and originals the fewer number. Novelty as
    `evaluation.novelty.report`, by matched distances; distance can be bought with length, so beside
    `diversity` stand `direction_diversity`, of directions alone, and `length`, in mean lengths of
    the zoo's networks. Networks with weights that are not finite are
    wrong about every image; they are counted (`not_finite`) and have no distances.

    Args:
      itself: the networks are all training networks in their order, none its own nearest.
    """
    count = len(weights)
    log_probs = log_probabilities(data.spec, weights, data.images)
    errors = novelty.error_sets(classes(log_probs), data.labels)
    accuracy = 1 - errors.mean(1)
    averaged = classes(np.exp(log_probs[:MEMBERS]).mean(0))
    drawn = min(count, len(scale.originals))
    best, best_originals = (best_of(of, drawn) for of in (accuracy, scale.originals))
    minus, both = difference_interval(accuracy, scale.originals)
    found: dict[str, tuple[float | None, float | None, int]] = {
        "accuracy": (*interval(accuracy), count),
        # Those of the zoo are compared with themselves.
        "accuracy_minus_originals": (minus, None if itself else both, count),
        "accuracy_std": (float(accuracy.std(ddof=1)) if count > 1 else None, None, count),
        "accuracy_min": (float(accuracy.min()), None, count),
        "accuracy_top5": (float(np.sort(accuracy)[-TOP:].mean()), None, min(count, TOP)),
        "accuracy_top5_minus_originals": (best - best_originals, None, drawn),
        "accuracy_ensemble": (
            float((averaged == data.labels).mean()),
            None,
            min(count, MEMBERS),
        ),
    }
    finite = np.isfinite(weights).all(1)
    if not finite.all():
        found["not_finite"] = (float((~finite).sum()), None, count)
    if finite.any():
        weights, errors = weights[finite], errors[finite]
        to_train = matched_distances(data.spec, weights, data.train, data.matching)
        among = matched_distances(data.spec, weights, weights, data.matching)
        report = novelty.report(
            to_train, among, scale.unit, errors=errors, train_errors=scale.errors, itself=itself
        )
        found |= {name: (f.value, f.ci95, f.n) for name, f in report.items()}
        lengths = _lengths(data.spec, weights)
        if len(weights) > 1:
            apart = novelty.direction_distances(among, lengths) / scale.directions
            found["direction_diversity"] = (*novelty.pairwise(apart), len(weights))
        found["length"] = (*interval(lengths / scale.length), len(weights))
    metrics = {
        name: {"value": value, "ci95": ci95, "n": n} for name, (value, ci95, n) in found.items()
    }
    return metrics, accuracy


def _lengths(spec: WeightSpec, weights: np.ndarray) -> np.ndarray:
    """Of networks (N, D) in the coordinates of matched distances, (N,)."""
    return np.linalg.norm(canonical(spec, np.asarray(weights)).astype(np.float64), axis=1)


def classes(scores: np.ndarray) -> np.ndarray:
    """The class (...) of the largest of scores (..., n); -1, which is none, where one is NaN."""
    return np.where(np.isnan(scores).any(-1), -1, scores.argmax(-1))


def best_of(accuracies: np.ndarray, drawn: int, best: int = TOP) -> float:
    """The mean of the best few of so many networks, in expectation over which are drawn.

    Args:
      accuracies: (N,). drawn: networks of these, without replacement, from 1 to N.
      best: of the drawn ones, at most all.
    """
    ordered, total = np.sort(np.asarray(accuracies, np.float64)), len(accuracies)
    below, best = np.arange(total), min(best, drawn)
    means = []
    for rank in range(best):  # with so many drawn ones above
        ways = _log_comb(total - 1 - below, rank) + _log_comb(below, drawn - 1 - rank)
        means.append(ordered @ special.softmax(ways))
    return float(np.mean(means))


def _log_comb(n: np.ndarray, k: int) -> np.ndarray:
    from_enough = -np.log1p(n) - special.betaln(np.maximum(n - k, 0) + 1, k + 1)
    return np.where(n < k, -np.inf, from_enough)


def rows_of(
    table: str, method: str, name: str, metrics: Mapping[str, Mapping[str, Any]], unit: str
) -> list[dict[str, Any]]:
    """Tidy rows over networks of `measure`'s metrics; what is not defined is left out.

    Args:
      unit: fingerprint of the zoo, the images and the draws behind them.
    """
    sample = Sample("networks", unit)
    return [
        sample.row(table, method, name, metric, **values)
        for metric, values in metrics.items()
        if values["value"] is not None
    ]
