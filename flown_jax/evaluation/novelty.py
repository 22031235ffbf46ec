"""Are generated networks new: copies of training networks, diversity, shared errors.

    unit = yardstick(distances(held_out, train), distances(train))
    row = report(distances(made, train), distances(made), unit)
    zoo = report(distances(train), distances(train), unit, itself=True)

Distances are given as matrices: `weights.matching.matched_distances` of whole CNNs, which finds
copies whose units are in another order, of other signs (tanh, sigmoid) or in another scale (ReLU,
leaky ReLU) and whose logits differ by a constant, or `weights.statistics.distances` of the vectors
as they are, which finds none of these: all that there is for other networks, such as ResNets, where
BatchNorm also allows every scale of the convolution before it. Neither sees the same function with
other, idle or split units. All matrices of a comparison must be of the same kind.

How to read the numbers. For a zoo of 50 small CNNs, noise of a tenth of a weight's deviation gives
nn .08, averages of two networks .55, the mean of all .7, an untrained network 1: nn says what is no
copy, not what is good. A method that prints one new network again and again has no copies: look at
diversity. Shared errors depend on accuracy and on the number of images and of training networks, so
compare them at equal numbers, and beside networks of the zoo's recipe with other seeds.
Source: Zeng et al., "Generative Modeling of Weights: Generalization or Memorization?", 2025
(distances, error sets); the units and thresholds are this library's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flown_jax.errors import UserError
from flown_jax.evaluation.classification import interval, t_quantile
from flown_jax.evaluation.functional import error_iou, error_sets

__all__ = [
    "Figure",
    "Yardstick",
    "copies",
    "direction_distances",
    "diversity",
    "duplicates",
    "error_iou",
    "error_sets",
    "leave_one_out",
    "nearest",
    "nearest_ratio",
    "novel_performant",
    "pairwise",
    "report",
    "yardstick",
]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Yardstick:
    """The zoo's own distances, the units of the others.

    Attributes:
      nearest: mean distance of held-out networks to their nearest training network.
      pairwise: mean distance of two training networks.
    """

    nearest: float
    pairwise: float


@dataclass(frozen=True)
class Figure:
    """A number of a report.

    Attributes:
      value: None where it is not defined, such as the diversity of a single network.
      ci95: half width of its 95 % confidence interval over samples; None where there is none.
      n: how many samples it is of.
    """

    value: float | None
    ci95: float | None
    n: int


def yardstick(held_out_to_train: ArrayLike, train: ArrayLike) -> Yardstick:
    """The units of `nearest_ratio` and `diversity`.

    Args:
      held_out_to_train: (H, N) distances of networks of the same recipe that were not trained on.
      train: (N, N) distances of training networks among themselves.
    Raises:
      UserError: no distances, other shapes, or units of zero.
    """
    to_train = _distances(held_out_to_train, "held_out_to_train")
    among = _square(train, "train")
    if to_train.shape[1] != len(among) or len(among) < 2:
        raise UserError(
            f"a yardstick needs distances (H, N) and (N, N) with N >= 2, not {to_train.shape} "
            f"and {among.shape}."
        )
    found = Yardstick(float(nearest(to_train).mean()), pairwise(among)[0])
    if not (found.nearest > 0 and found.pairwise > 0):
        raise UserError("a yardstick of length zero: held-out or training networks are all equal.")
    return found


def nearest(to_train: ArrayLike, *, itself: bool = False) -> np.ndarray:
    """Distance of each sample to its nearest training network, (S,).

    Args:
      to_train: (S, N) distances.
      itself: the samples are the training networks, in their order; none is its own nearest.
    Raises:
      UserError: no distances, or not square with `itself`.
    """
    matrix = _distances(to_train, "to_train")
    return (_without_own(matrix, np.inf) if itself else matrix).min(1)


def nearest_ratio(to_train: ArrayLike, unit: Yardstick, *, itself: bool = False) -> np.ndarray:
    """nn of each sample, (S,): its `nearest` in units of that of held-out networks."""
    return nearest(to_train, itself=itself) / unit.nearest


def copies(ratios: ArrayLike, threshold: float = 0.5) -> np.ndarray:
    """Which samples are copies, (S,) bool: nn below the threshold.

    Args:
      ratios: (S,), of `nearest_ratio`.
    """
    return np.asarray(ratios, np.float64) < threshold


def pairwise(among: ArrayLike) -> tuple[float, float | None]:
    """Mean over all pairs, and the half width of its interval over samples.

    Pairs share samples, so that the interval is the jackknife's: samples are left out one by one.
    None for fewer than three samples.

    Args:
      among: (S, S), S >= 2; the diagonal does not count.
    Raises:
      UserError: not square, or a single sample.
    """
    matrix = np.array(among, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise UserError(f"pairs need a matrix (S, S) of two samples or more, not {matrix.shape}.")
    np.fill_diagonal(matrix, 0.0)
    count, total = len(matrix), matrix.sum()
    mean = float(total / (count * (count - 1)))
    if count < 3:
        return mean, None
    left = (total - matrix.sum(0) - matrix.sum(1)) / ((count - 1) * (count - 2))
    error = np.sqrt((count - 1) / count * np.sum((left - left.mean()) ** 2))
    return mean, float(t_quantile(count - 1, CONFIDENCE) * error)


def diversity(among: ArrayLike, unit: Yardstick) -> float:
    """Mean distance of two samples in units of that of two training networks.

    Args:
      among: (S, S) distances of the samples among themselves, S >= 2.
    """
    return pairwise(_square(among, "among"))[0] / unit.pairwise


def duplicates(among: ArrayLike, distance: float) -> int:
    """How many samples repeat others: samples minus groups.

    Samples nearer to each other than the distance, directly or over others, are one group.

    Args:
      among: (S, S) distances of the samples among themselves.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    near = _square(among, "among") < distance
    groups, _ = connected_components(coo_array(near), directed=False)
    return len(near) - int(groups)


def leave_one_out(among: ArrayLike) -> float:
    """tau: median over networks of the distance to the nearest other one.

    Args:
      among: (N, N) distances of training networks among themselves, N >= 2.
    """
    return float(np.median(nearest(_square(among, "among"), itself=True)))


def direction_distances(
    matrix: ArrayLike, lengths: ArrayLike, others: ArrayLike | None = None
) -> np.ndarray:
    """Distances of the networks' directions, from 0 to 2, (S, N).

    Those of unit vectors, of distances d and lengths a, b: ((d^2 - (a - b)^2) / ab)^.5; exact also
    for matched distances, since reordering units and changing signs keep lengths. A network of
    length zero has no direction: 1 to all others.

    Args:
      matrix: (S, N) distances. lengths: (S,), in the same coordinates. others: (N,); None for those
        of the same networks.
    Raises:
      UserError: lengths of other networks.
    """
    found = _distances(matrix, "matrix")
    a = np.asarray(lengths, np.float64)
    b = a if others is None else np.asarray(others, np.float64)
    if (a.shape + b.shape) != found.shape:
        raise UserError(
            f"directions of distances {found.shape} need a length of each, not {a.shape} and "
            f"{b.shape}."
        )
    product = a[:, None] * b[None]
    square = np.maximum(found**2 - (a[:, None] - b[None]) ** 2, 0.0)
    alone = (a[:, None] > 0) != (b[None] > 0)
    return np.sqrt(np.where(product > 0, square / np.where(product > 0, product, 1.0), alone))


def novel_performant(
    ratios: ArrayLike, accuracies: ArrayLike, least: float, multiple: float
) -> np.ndarray:
    """Which samples are both new and good, (S,) bool: far from the zoo and accurate enough.

    Args:
      ratios: (S,) nearest distances in tau; NaN is not new. accuracies: (S,).
      least: accuracy to be reached. multiple: of tau to be reached.
    """
    far = np.asarray(ratios, np.float64) >= multiple
    return far & (np.asarray(accuracies, np.float64) >= least)


def report(
    to_train: ArrayLike,
    among: ArrayLike,
    unit: Yardstick,
    *,
    errors: ArrayLike | None = None,
    train_errors: ArrayLike | None = None,
    itself: bool = False,
    copy_threshold: float = 0.5,
    duplicate_threshold: float = 0.1,
    fewest_errors: int = 20,
) -> dict[str, Figure]:
    """The numbers of S samples by name.

    - `nn`, `nn_smallest`: mean and minimum of `nearest_ratio`.
    - `copies`: how many; `copies_at_most`: the largest share of copies that this count does not
      rule out (one-sided, 95 %).
    - `diversity`, and `duplicates`: how many samples repeat others.
    - with errors `error_iou_train`: mean of each sample's highest IoU with a training network, and
      `error_iou_among`: mean over pairs of samples. Samples with few errors share none by chance,
      which would look new: they are left out, and `n` says how many were not.

    Intervals are over samples of one generator and one zoo: they do not know that both would be
    others with another seed. With `itself`, nearest networks are each other's, and there is none.

    Args:
      to_train: (S, N) distances. among: (S, S), of the samples among themselves.
      errors, train_errors: (S, n) and (N, n), of `error_sets` on the same images; both or none.
      itself: the samples are the training networks, in their order; none is compared with itself.
      copy_threshold: of nn. duplicate_threshold: of a distance between samples, in nn's units.
      fewest_errors: of a sample that counts in the two IoUs, at least 1.
    Raises:
      UserError: matrices that do not fit together.
    """
    from scipy import stats

    to_train, among = _distances(to_train, "to_train"), _square(among, "among")
    count = len(to_train)
    if len(among) != count:
        raise UserError(f"to_train has {count} samples and among {len(among)}; give the same.")
    ratios = nearest_ratio(to_train, unit, itself=itself)
    number = int(copies(ratios, copy_threshold).sum())
    bound = stats.beta.ppf(CONFIDENCE, number + 1, count - number) if number < count else 1.0
    found = {
        "nn": _mean(ratios, itself),
        "nn_smallest": Figure(float(ratios.min()), None, count),
        "copies": Figure(number, None, count),
        "copies_at_most": Figure(float(bound), None, count),
        "diversity": _mean_of_pairs(among / unit.pairwise),
        "duplicates": Figure(duplicates(among, duplicate_threshold * unit.nearest), None, count),
    }
    if errors is None and train_errors is None:
        return found
    if errors is None or train_errors is None:
        raise UserError("a report needs errors and train_errors, or neither.")
    errors, train_errors = np.asarray(errors), np.asarray(train_errors)
    if errors.shape[:1] != (count,) or train_errors.shape[:1] != to_train.shape[1:]:
        raise UserError(
            f"{count} samples and {to_train.shape[1]} training networks need as many error sets, "
            f"not {errors.shape} and {train_errors.shape}."
        )
    if fewest_errors < 1:
        raise UserError(f"fewest_errors is {fewest_errors}; networks without errors share none.")
    shared, own = error_iou(errors, train_errors), error_iou(errors)
    counted = errors.sum(1) >= fewest_errors
    # A sample that counts has errors, so that its row holds no NaN.
    highest = (_without_own(shared, -np.inf) if itself else shared)[counted].max(1)
    found["error_iou_train"] = _mean(highest, itself)
    found["error_iou_among"] = _mean_of_pairs(own[np.ix_(counted, counted)])
    return found


def _mean(values: np.ndarray, dependent: bool) -> Figure:
    """Networks that are each other's neighbours are no independent numbers: no interval."""
    if not len(values):
        return Figure(None, None, 0)
    mean, half = interval(values, CONFIDENCE)
    return Figure(mean, None if dependent else half, len(values))


def _mean_of_pairs(matrix: np.ndarray) -> Figure:
    value, half = pairwise(matrix) if len(matrix) > 1 else (None, None)
    return Figure(value, half, len(matrix))


def _without_own(matrix: np.ndarray, value: float) -> np.ndarray:
    if matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise UserError(
            f"training networks against themselves are (N, N) with N >= 2, not {matrix.shape}."
        )
    return np.where(np.eye(len(matrix), dtype=bool), value, matrix)


def _square(matrix: ArrayLike, name: str) -> np.ndarray:
    found = _distances(matrix, name)
    if found.shape[0] != found.shape[1]:
        raise UserError(
            f"{name} must be distances (N, N) of networks among themselves, not {found.shape}."
        )
    return found


def _distances(matrix: ArrayLike, name: str) -> np.ndarray:
    found = np.asarray(matrix, np.float64)
    if found.ndim != 2 or not found.size:
        raise UserError(f"{name} must be a matrix of distances, not {found.shape}.")
    # NaN is below no threshold: a network that is no network would pass for a new one.
    if not np.isfinite(found).all() or found.min() < 0:
        raise UserError(f"{name} holds distances that are negative or not finite.")
    return found
