"""Does a generator make new networks, or copies: one row of numbers of its samples.

    scale = yard(distances_of(spec, images), train, predictions, labels)
    zoo = measure(scale, train, predictions, itself=True)
    made = measure(scale, samples, predictions_of_samples)

Arrays in, numbers out; no network is run here but for the matching of units. The unit of nearest
distances is tau, the median distance of a training network to the nearest other one; of pairwise
distances the zoo's own.

Traps. Error similarity grows with the number of training networks, with errors and with fewer
images: compare at equal K and n and at like accuracy, beside networks of the zoo's recipe that are
not in it. Networks with hardly an error share none: those with fewer than 20 are left out. A lossy
decoder adds its error to every distance and looks new: put decode(encode(zoo)) beside it. Distance
can be bought with length: read `length` and `direction_diversity` with it. States of one run are
near-copies of each other: tau is small, and so is the zoo's own diversity. The best of many grows
with their number: compared are best ones of as many.
Source: Zeng et al., 2025, and later reports (novel and performant; disagreement; votes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.evaluation import novelty
from flown_jax.evaluation.classification import difference_interval, interval
from flown_jax.evaluation.functional import disagreement, error_sets, majority_vote
from flown_jax.evaluation.networks import best_of
from flown_jax.weights import matching, statistics
from flown_jax.weights.canonical import canonical
from flown_jax.weights.spec import WeightSpec

MULTIPLES = (1, 2, 3, 4, 6)  # of tau, for "novel and performant"
VOTERS = 16
FEWEST_ERRORS = 20


@dataclass(frozen=True, eq=False)
class Distances:
    """How weights of one kind are compared.

    Attributes:
      between: (N, D), (M, D) -> (N, M) float64.
      lengths: (N, D) -> (N,), in the coordinates of the distances.
      kind: "matched" (units of every pair are matched), or "as they are".
    """

    between: Callable[[np.ndarray, np.ndarray], np.ndarray]
    lengths: Callable[[np.ndarray], np.ndarray]
    kind: str


def distances_of(spec: WeightSpec, images: np.ndarray | None = None) -> Distances:
    """Matched distances of a whole CNN; of all else, those of the vectors as they are.

    Args:
      images: (B, H, W, C), preprocessed, on which units are matched; None matches none.
    """
    if images is None or spec.partial or spec.model != "cnn":
        return Distances(statistics.distances, _lengths, "as they are")
    return Distances(
        partial(_matched, spec, images), lambda w: _lengths(canonical(spec, w)), "matched"
    )


@dataclass(frozen=True, eq=False)
class Yard:
    """Of one zoo, computed once: what its samples are compared with.

    Attributes:
      train: (N, D) training networks. own: indices of those that are independent of each other.
      tau: median over own networks of the distance to the nearest other own one.
      pairwise, direction_pairwise: mean distance of two own networks, and of their directions.
      length: mean length of own networks.
      accuracies: (N,). errors: (N, n) bool. predictions: (N, n). labels: (n,).
      least: the accuracy of a "performant" network.
    """

    distances: Distances
    train: np.ndarray
    own: np.ndarray
    tau: float
    pairwise: float
    direction_pairwise: float
    length: float
    accuracies: np.ndarray
    errors: np.ndarray
    predictions: np.ndarray
    labels: np.ndarray
    least: float


@dataclass(frozen=True, eq=False)
class Audit:
    """Of S samples.

    Attributes:
      metrics: name -> {"value", "ci95", "n"}; a value is None where it is not defined.
      samples: name -> (S,): "accuracy", "nearest" (in tau), "diversity" (mean distance to the other
        samples, over the zoo's), "similarity" (largest error IoU with a training network), NaN
        where it is not defined, and "copy", bool.
    """

    metrics: dict[str, dict[str, Any]]
    samples: dict[str, np.ndarray]


def yard(
    distances: Distances,
    train: np.ndarray,
    predictions: np.ndarray,
    labels: np.ndarray,
    *,
    own: Sequence[int] | np.ndarray | None = None,
    networks: int = 0,
    performant: float = 0.918,
) -> Yard:
    """The units of a zoo's audit.

    Args:
      train: (N, D) training networks. predictions: (N, n) their classes, of labels (n,).
      own: rows that are independent networks, such as the last states; None for all.
      networks: of these, the first so many for the units of pairwise distances; 0 for all.
      performant: share of the own networks' median accuracy that makes a network "performant".
    Raises:
      UserError: weights that are not finite, predictions of others, fewer than two own networks, or
        distances of zero.
    """
    own = np.arange(len(train)) if own is None else np.asarray(own, int)
    if len(own) < 2:
        raise UserError(f"the zoo has {len(own)} networks to compare with, and 2 are needed.")
    broken = np.flatnonzero(~np.isfinite(train).all(1))
    if len(broken):
        raise UserError(f"training network {broken[0]} has weights that are not finite.")
    errors = _errors(predictions, labels, len(train))
    among, lengths = distances.between(train[own], train[own]), distances.lengths(train[own])
    few = slice(networks or None)
    pairwise, _ = novelty.pairwise(among[few, few])
    directions = novelty.direction_distances(among, lengths)[few, few]
    tau = novelty.leave_one_out(among)
    # Rounding leaves equal networks a little apart.
    if tau <= 1e-6 * lengths.mean():
        raise UserError("at least half of the training networks are equal to another one.")
    accuracies = 1 - errors.mean(1)
    return Yard(
        distances=distances,
        train=train,
        own=own,
        tau=tau,
        pairwise=pairwise,
        direction_pairwise=novelty.pairwise(directions)[0],
        length=float(lengths.mean()),
        accuracies=accuracies,
        errors=errors,
        predictions=np.asarray(predictions),
        labels=np.asarray(labels),
        least=performant * float(np.median(accuracies[own])),
    )


def measure(
    scale: Yard, weights: np.ndarray, predictions: np.ndarray, *, itself: bool = False
) -> Audit:
    """The numbers of S samples; metrics by name:

    - `accuracy` with `_std`, `_min`, `_max`; `accuracy_minus_originals` (Welch's interval) and
      `accuracy_max_minus_originals` (best of as many), of the own training networks;
      `accuracy_vote`: majority vote of the first 16.
    - `nearest` (mean, in tau), `nearest_smallest`, `copies` (nearest below .5), `copies_at_most`
      (95 %), `accuracy_copies`, `accuracy_others` (absent where there are none).
    - `diversity`, `direction_diversity` (mean distance of two samples over that of two training
      networks), `length` (mean, over theirs), `duplicates` (closer than .1 tau to others).
    - `error_iou_train` (largest of each sample), `error_iou_among`, `disagreement_nearest` (with
      the nearest training network), `disagreement_among`.
    - `novel_performant_m`: share with accuracy >= least and nearest >= m tau, of all samples.
    - `not_finite`, where there are any: these are wrong about every image and have no distances.

    Intervals are over samples of one generator and one zoo.

    Args:
      weights: (S, D). predictions: (S, n) int; -1 is no class.
      itself: the samples are all training networks in their order, none its own nearest.
    Raises:
      UserError: predictions of other networks or images, or `itself` with others.
    """
    count = len(weights)
    errors = _errors(predictions, scale.labels, count)
    finite = np.isfinite(weights).all(1)
    predictions = np.where(finite[:, None], predictions, -1)
    errors = errors | ~finite[:, None]
    if itself and not (count == len(scale.train) and finite.all()):
        raise UserError(
            f"{count} networks are not the {len(scale.train)} training networks themselves."
        )
    accuracy = 1 - errors.mean(1)
    samples = {"accuracy": accuracy, "copy": np.zeros(count, bool)}
    samples |= {name: np.full(count, np.nan) for name in ("nearest", "diversity", "similarity")}
    found = _accuracies(scale, accuracy, itself)
    vote = majority_vote(predictions[:VOTERS]) == scale.labels
    found["accuracy_vote"] = (float(vote.mean()), None, min(count, VOTERS))
    if not finite.all():
        found["not_finite"] = (float((~finite).sum()), None, count)
    if finite.any():
        found |= _distances(
            scale, samples, weights[finite], predictions[finite], errors[finite], finite, itself
        )
    for multiple in MULTIPLES:
        both = novelty.novel_performant(samples["nearest"], accuracy, scale.least, multiple)
        found[f"novel_performant_{multiple}"] = (float(both.mean()), None, count)
    metrics = {
        name: {"value": value, "ci95": ci95, "n": n} for name, (value, ci95, n) in found.items()
    }
    return Audit(metrics, samples)


_Numbers = dict[str, tuple[float | None, float | None, int]]


def _accuracies(scale: Yard, accuracy: np.ndarray, itself: bool) -> _Numbers:
    count, originals = len(accuracy), scale.accuracies[scale.own]
    minus, half = difference_interval(accuracy, originals)
    drawn = min(count, len(originals))
    best = best_of(accuracy, drawn, 1) - best_of(originals, drawn, 1)
    return {
        "accuracy": (*interval(accuracy), count),
        "accuracy_std": (float(accuracy.std(ddof=1)) if count > 1 else None, None, count),
        "accuracy_min": (float(accuracy.min()), None, count),
        "accuracy_max": (float(accuracy.max()), None, count),
        # Those of the zoo are compared with themselves.
        "accuracy_minus_originals": (minus, None if itself else half, count),
        "accuracy_max_minus_originals": (best, None, drawn),
    }


def _distances(
    scale: Yard,
    samples: dict[str, np.ndarray],
    weights: np.ndarray,
    predictions: np.ndarray,
    errors: np.ndarray,
    finite: np.ndarray,
    itself: bool,
) -> _Numbers:
    """What finite networks add to the metrics; `samples` are filled in."""
    count, accuracy = len(weights), samples["accuracy"][finite]
    to_train = scale.distances.between(weights, scale.train)
    among = to_train if itself else scale.distances.between(weights, weights)
    lengths = scale.distances.lengths(weights)
    unit = novelty.Yardstick(scale.tau, scale.pairwise)
    report = novelty.report(
        to_train,
        among,
        unit,
        errors=errors,
        train_errors=scale.errors,
        itself=itself,
        fewest_errors=FEWEST_ERRORS,
    )
    names = {"nn": "nearest", "nn_smallest": "nearest_smallest"}
    found: _Numbers = {names.get(k, k): (f.value, f.ci95, f.n) for k, f in report.items()}

    ratios = novelty.nearest_ratio(to_train, unit, itself=itself)
    copy = novelty.copies(ratios)
    for name, some in (("accuracy_copies", copy), ("accuracy_others", ~copy)):
        if some.any():
            found[name] = (*interval(accuracy[some]), int(some.sum()))
    directions = novelty.direction_distances(among, lengths)
    found["direction_diversity"] = _pairs(directions / scale.direction_pairwise)
    mean, half = interval(lengths / scale.length)
    found["length"] = (mean, half, count)

    without = np.where(np.eye(count, dtype=bool), np.inf, to_train) if itself else to_train
    own = scale.predictions[without.argmin(1)]
    mean, half = interval((predictions != own).mean(1))
    found["disagreement_nearest"] = (mean, None if itself else half, count)
    found["disagreement_among"] = _pairs(disagreement(predictions))

    shared = novelty.error_iou(errors, scale.errors)
    shared = np.where(np.eye(count, dtype=bool), -np.inf, shared) if itself else shared
    # A network that makes errors has a similarity with all.
    enough = errors.sum(1) >= FEWEST_ERRORS
    samples["similarity"][np.flatnonzero(finite)[enough]] = shared[enough].max(1)
    samples["nearest"][finite], samples["copy"][finite] = ratios, copy
    if count > 1:
        total = among.sum(1) - among.diagonal()
        samples["diversity"][finite] = total / (count - 1) / scale.pairwise
    return found


def _pairs(matrix: np.ndarray) -> tuple[float | None, float | None, int]:
    if len(matrix) < 2:
        return None, None, len(matrix)
    return (*novelty.pairwise(matrix), len(matrix))


def _errors(predictions: np.ndarray, labels: np.ndarray, networks: int) -> np.ndarray:
    if len(predictions) != networks or not networks:
        raise UserError(f"{networks} networks have predictions of {len(predictions)}.")
    return error_sets(predictions, labels)


def _matched(spec: WeightSpec, images: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return matching.matched_distances(spec, a, b, images)


def _lengths(weights: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(weights, np.float64), axis=1)
