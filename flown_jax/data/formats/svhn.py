"""SVHN's cropped digits: {train,test,extra}_32x32.mat, where the digit 0 has the label 10."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flown_jax.data.formats import Raw, RawSplit, damaged, locate_all, shift_labels
from flown_jax.errors import UserError

_SIDE = 32


def find(name: str, folder: Path) -> Raw | None:
    """The .mat files of a folder; `extra` may be missing."""
    if name != "svhn_cropped":
        return None
    wanted = {split: f"{split}_32x32.mat" for split in ("train", "test", "extra")}
    found = locate_all(folder, wanted, ("svhn", "SVHN"), optional=("extra",))
    if not found:
        return None
    splits = {split: partial(_split, path) for split, path in found.items()}
    return Raw("MATLAB files", tuple(found.values()), splits)


def _split(path: Path) -> RawSplit:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # scipy raises nearly anything for a damaged file
        raise damaged(path, error) from error
    if "X" not in content or "y" not in content:
        raise UserError(f"{path} has no arrays X and y, so it is no file of SVHN's cropped digits.")
    images, labels = content["X"], content["y"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (_SIDE, _SIDE, 3):
        raise UserError(
            f"{path} has images of {images.dtype} {images.shape}; uint8 ({_SIDE}, {_SIDE}, 3, N) "
            "is expected."
        )
    if labels.size != images.shape[3]:
        raise UserError(f"{path} has {images.shape[3]:,} images and {labels.size:,} labels.")
    numbers = shift_labels(labels, 1, 10, str(path)) + 1
    return RawSplit(np.ascontiguousarray(np.moveaxis(images, 3, 0)), numbers % 10)
