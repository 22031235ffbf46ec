"""Image sets as sheets of JPEG tiles in a .npz.

`blob` holds JPEG files end to end, sheet s at offsets[s] to offsets[s + 1]; a sheet has `cols`
square tiles of side `tile` a row; image i is the i-th tile, sheets in order, row by row. `labels`
and `split` (0 train, 1 test; mini-ImageNet 0 train, 1 validation, 2 test) have one entry an image.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np

from flown_jax.data.formats import Raw, RawSplit, npz, picture_files, shift_labels
from flown_jax.errors import UserError

_SPLITS = {"mini_imagenet": ("train", "validation", "test")}
_KEYS = ("blob", "offsets", "tile", "cols", "labels", "split")


def find(name: str, folder: Path) -> Raw | None:
    """The sheets of NAME.npz."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        return None
    keys = npz.members(path)
    if "blob" not in keys:
        return None
    if missing := [key for key in _KEYS if key not in keys]:
        raise UserError(f"{path} has sheets of tiles but no array {missing[0]!r}.")
    npz.check_class_names(name, path)
    names = _SPLITS.get(name, ("train", "test"))
    # All splits are on the same sheets, which are decoded once.
    whole = functools.cache(lambda: _decode(path, len(names)))

    def part(number: int) -> RawSplit:
        images, labels, split = whole()
        chosen = split == number
        return RawSplit(images[chosen], labels[chosen])

    splits = {split: functools.partial(part, number) for number, split in enumerate(names)}
    note = "the images went through JPEG and are not those of the official files bit for bit"
    return Raw("sheets of JPEG tiles in a .npz", (path,), splits, notes=(note,))


def _decode(path: Path, splits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, t, t, 3), labels (N,) and split numbers (N,)."""
    arrays = {key: npz.member(path, key) for key in _KEYS}
    for key, dimensions in (("blob", 1), ("offsets", 1), ("tile", 0), ("cols", 0), ("split", 1)):
        array = arrays[key]
        fits = array.ndim == dimensions or (dimensions == 0 and array.size == 1)
        if not fits or array.dtype.kind not in "iu" or (key == "blob" and array.itemsize != 1):
            raise UserError(f"{path} has an array {key} of {array.dtype} {array.shape}.")
    blob, offsets, labels, split = (arrays[key] for key in ("blob", "offsets", "labels", "split"))
    tile, cols = arrays["tile"].item(), arrays["cols"].item()
    if tile < 1 or cols < 1:
        raise UserError(f"{path} has {cols} tiles of side {tile} a row; both start at 1.")
    offsets = offsets.astype(np.int64)
    if (
        len(offsets) < 2
        or offsets[0] < 0
        or (np.diff(offsets) <= 0).any()
        or offsets[-1] > len(blob)
    ):
        raise UserError(
            f"{path} is damaged: its offsets do not cut its blob of {len(blob):,} bytes."
        )
    images = np.concatenate(
        [
            _tiles(blob[start:end].tobytes(), tile, cols, path, sheet)
            for sheet, (start, end) in enumerate(itertools.pairwise(offsets))
        ]
    )
    if not len(images) == len(labels) == len(split):
        raise UserError(
            f"{path} has {len(images):,} tiles, {len(labels):,} labels and {len(split):,} splits."
        )
    if (wrong := split[(split < 0) | (split >= splits)]).size:
        raise UserError(f"{path} has a split number {wrong[0]}; 0 to {splits - 1} are known.")
    return images, shift_labels(labels, 0, 255, str(path)), split


def _tiles(data: bytes, tile: int, cols: int, path: Path, sheet: int) -> np.ndarray:
    picture = np.asarray(picture_files.read(data, 3, Path(f"{path}, sheet {sheet}")))
    height, width, _ = picture.shape
    if width != cols * tile or height % tile:
        raise UserError(
            f"{path}, sheet {sheet}, is {width} x {height} pixels; {cols} tiles of {tile} x {tile} "
            "a row are expected."
        )
    rows = height // tile
    return (
        picture.reshape(rows, tile, cols, tile, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(rows * cols, tile, tile, 3)
    )
