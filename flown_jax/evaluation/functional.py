"""Measures of what networks predict on the same images: shared errors, disagreement, votes.

Predictions are classes (K, n); -1 is no class, which is an error on every image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flown_jax.errors import UserError


def error_sets(predictions: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Which images each network gets wrong, (K, n) bool.

    Args:
      predictions: (K, n) predicted classes, of the same images for all. labels: (n,).
    Raises:
      UserError: other shapes.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 2 or labels.shape != predictions.shape[1:] or not labels.size:
        raise UserError(
            f"predictions must be classes (K, n) with labels (n,), not {predictions.shape} with "
            f"{labels.shape}."
        )
    return predictions != labels


def error_iou(errors: ArrayLike, others: ArrayLike | None = None) -> np.ndarray:
    """Images that both networks get wrong / images that either does, (K, M).

    NaN where neither makes an error. Independent errors at rates a and b give ab / (a + b - ab).

    Args:
      errors: (K, n), of `error_sets`. others: (M, n); None for the same networks.
    Raises:
      UserError: not bool, or of different images.
    """
    errors = np.asarray(errors)
    others = errors if others is None else np.asarray(others)
    if errors.ndim != 2 or others.ndim != 2 or errors.shape[1:] != others.shape[1:]:
        raise UserError(
            f"error sets must be (K, n) and (M, n) of the same images, not {errors.shape} and "
            f"{others.shape}."
        )
    if errors.dtype != bool or others.dtype != bool:
        raise UserError(f"error sets must be bool, not {errors.dtype} and {others.dtype}.")
    both = errors.astype(np.float64) @ others.T.astype(np.float64)
    either = errors.sum(1)[:, None] + others.sum(1)[None] - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def disagreement(predictions: ArrayLike, others: ArrayLike | None = None) -> np.ndarray:
    """Share of images on which two networks predict different classes, (K, M).

    Args:
      predictions: (K, n). others: (M, n) of the same images; None for the same networks.
    Raises:
      UserError: of different images.
    """
    predictions = np.asarray(predictions)
    others = predictions if others is None else np.asarray(others)
    if predictions.ndim != 2 or predictions.shape[1:] != others.shape[1:] or not others.size:
        raise UserError(
            f"predictions must be classes (K, n) and (M, n) of the same images, not "
            f"{predictions.shape} and {others.shape}."
        )
    found = [(row[None] != others).mean(1) for row in predictions]
    return np.stack(found) if found else np.zeros((0, len(others)))


def majority_vote(predictions: ArrayLike) -> np.ndarray:
    """The class that most networks predict for each image, (n,); of equally many the lowest.

    Args:
      predictions: (K, n), K >= 1; -1 is no vote, and the vote of none is -1.
    Raises:
      UserError: other shapes.
    """
    predictions = np.asarray(predictions)
    if predictions.ndim != 2 or not len(predictions):
        raise UserError(f"a vote needs predictions (K, n), K >= 1, not {predictions.shape}.")
    votes = np.stack([(predictions == c).sum(0) for c in range(max(predictions.max() + 1, 1))])
    return np.where(votes.max(0) > 0, votes.argmax(0), -1)
