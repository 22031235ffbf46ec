"""Image sets of a user's own: one file DATA/NAME.npz.

Its arrays are `train_images`, `test_images`, uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3) of
grey levels 0 to 255, and `train_labels`, `test_labels`, whole numbers (n,) from 0. `class_names`
may be there; without them, every class must have an image in the train split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flown_jax.data.formats import npz
from flown_jax.errors import UserError

SPLITS = ("train", "test")


def read(path: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images uint8 (n, H, W, C), labels int32 (n,) and class names of a split.

    Raises:
      UserError: another split, a damaged file, an array that is missing or of another form.
    """
    if split not in SPLITS:
        raise UserError(f"{path} has no split {split!r}; its splits are {', '.join(SPLITS)}.")
    try:
        keys = npz.members(path)
        wanted = {f"{split}_images"} | {f"{s}_labels" for s in SPLITS}
        found = {key: npz.member(path, key) for key in wanted if key in keys}
    except UserError as error:
        raise UserError(
            f"{path} is no .npz file of plain arrays, or it is damaged: {error}"
        ) from error
    for key in ("images", "labels"):
        if f"{split}_{key}" not in found:
            raise UserError(f"{path} has no array {split}_{key}.")
    images, labels = found[f"{split}_images"], found[f"{split}_labels"]
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{split}_images of {path} must be uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3), not "
            f"{images.dtype} {found[f'{split}_images'].shape}."
        )
    if not images.size:
        raise UserError(f"{split}_images of {path} has no pixels: its shape is {images.shape}.")
    npz.check_levels(images, f"{split}_images of {path}")
    if labels.shape != images.shape[:1]:
        raise UserError(
            f"{split}_labels of {path} must be whole numbers ({len(images)},), not {labels.dtype} "
            f"{labels.shape}."
        )
    # Classes are those of both splits: a test split may lack one.
    every = {s: found[f"{s}_labels"] for s in SPLITS if f"{s}_labels" in found}
    return images, labels.astype(np.int32), _classes(path, every)


def _classes(path: Path, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The class names of labels (n,) by split; their numbers where the file has none."""
    for split, part in labels.items():
        if part.ndim != 1 or not np.issubdtype(part.dtype, np.integer):
            raise UserError(
                f"{split}_labels of {path} must be whole numbers ({len(part) if part.ndim else 0},"
                f"), not {part.dtype} {part.shape}."
            )
        if not len(part) or part.min() < 0:
            raise UserError(f"{split}_labels of {path} must be numbers from 0, at least one.")
    classes = 1 + max(int(part.max()) for part in labels.values())
    if names := npz.class_names(path):
        if len(names) < classes:
            raise UserError(f"{path} has labels up to {classes - 1}, and {len(names)} class_names.")
        return names
    split, part = next(iter(labels.items()))
    present = np.unique(part)
    if len(present) < classes:
        holes = np.flatnonzero(present != np.arange(len(present)))
        raise UserError(
            f"{path} has labels up to {classes - 1}, and no {split} image of class "
            f"{holes[0] if len(holes) else len(present)}; number the classes from 0 without holes, "
            "or give class_names if that is right."
        )
    return tuple(map(str, range(classes)))
