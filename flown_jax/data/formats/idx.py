"""The idx files of MNIST, Fashion-MNIST and KMNIST, packed (.gz) or not.

The three sets have the same file names, so each needs a folder of its own. Layout: two zero bytes,
the type (8 is uint8), the number of dimensions, each dimension as a big-endian int32, then the
values row by row.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from flown_jax.data.formats import Raw, RawSplit, locate_all, read_bytes, shift_labels
from flown_jax.errors import UserError

SETS = ("mnist", "fashion_mnist", "kmnist")
_PREFIXES = {"train": "train", "test": "t10k"}
# Where torchvision puts its downloads, below the folder that it was given.
_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_SIDE = 28


def find(name: str, folder: Path) -> Raw | None:
    """The idx files `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` of a folder."""
    if name not in SETS:
        return None
    wanted = {
        f"{split} {part}": (f"{prefix}-{part}-{kind}-ubyte", f"{prefix}-{part}.{kind}-ubyte")
        for split, prefix in _PREFIXES.items()
        for part, kind in (("images", "idx3"), ("labels", "idx1"))
    }
    subfolders = (name, "raw", f"{_TORCHVISION[name]}/raw")
    found = locate_all(folder, wanted, subfolders)
    if not found:
        return None
    splits = {
        split: partial(_split, found[f"{split} images"], found[f"{split} labels"])
        for split in _PREFIXES
    }
    return Raw("idx files", tuple(found.values()), splits)


def read(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an idx file, with that number of dimensions.

    Raises:
      UserError: another magic number, or a length that is not the one the header promises.
    """
    data = read_bytes(path)
    start = 4 + 4 * dimensions
    magic = int.from_bytes(data[:4], "big")
    wanted = 0x0800 + dimensions
    if len(data) < start or magic != wanted:
        raise UserError(
            f"{path} is no idx file of {dimensions} dimensions: it begins with the magic number "
            f"{magic}, not {wanted}."
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">i4", dimensions, 4))
    size = math.prod(shape)
    if min(shape) < 0 or len(data) - start != size:
        raise UserError(
            f"{path} is truncated or damaged: its header promises {size:,} bytes of {shape}, "
            f"there are {len(data) - start:,}."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _split(images_path: Path, labels_path: Path) -> RawSplit:
    images, labels = read(images_path, 3), read(labels_path, 1)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise UserError(
            f"{images_path} has images of {images.shape[1]} x {images.shape[2]} pixels; "
            f"{_SIDE} x {_SIDE} are expected."
        )
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} has {len(images):,} images and {labels_path.name} {len(labels):,} "
            "labels."
        )
    return RawSplit(images[..., None], shift_labels(labels, 0, 9, str(labels_path)))
