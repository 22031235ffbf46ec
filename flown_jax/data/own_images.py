"""Image sets of a user's own: one file DATA/NAME.npz.

Its arrays are `train_images`, `test_images`, uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3), and
`train_labels`, `test_labels`, whole numbers (n,) from 0; `class_names` may be there.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from flown_jax.errors import UserError

SPLITS = ("train", "test")


def read(path: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images uint8 (n, H, W, C), labels int32 (n,) and class names of a split.

    Raises:
      UserError: another split, a damaged file, an array that is missing or of another form.
    """
    if split not in SPLITS:
        raise UserError(f"{path} has no split {split!r}; its splits are {', '.join(SPLITS)}.")
    found: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in ("images", "labels"):
                name = f"{split}_{key}"
                if name not in file:
                    raise UserError(f"{path} has no array {name}.")
                found[key] = file[name]
            # Classes are those of both splits: a test split may lack one.
            every = [file[f"{s}_labels"] for s in SPLITS if f"{s}_labels" in file]
            names = tuple(map(str, file["class_names"])) if "class_names" in file else ()
    except UserError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no .npz file of plain arrays, or it is damaged.") from error
    images, labels = found["images"], found["labels"]
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{split}_images of {path} must be uint8 (n, H, W), (n, H, W, 1) or (n, H, W, 3), not "
            f"{found['images'].dtype} {found['images'].shape}."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{split}_labels of {path} must be whole numbers ({len(images)},), not {labels.dtype} "
            f"{labels.shape}."
        )
    if not len(labels) or labels.min() < 0:
        raise UserError(f"{split}_labels of {path} must be numbers from 0, at least one.")
    classes = 1 + max(int(part.max()) for part in every if part.size)
    if names and len(names) < classes:
        raise UserError(f"{path} has labels up to {classes - 1}, and {len(names)} class_names.")
    return images, labels.astype(np.int32), names or tuple(map(str, range(classes)))
