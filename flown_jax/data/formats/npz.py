"""Image sets as plain arrays in a .npz.

- NAME.npz with train_images, train_labels, test_images, test_labels, or Keras's x_train, y_train,
  x_test, y_test, and `class_names` if wanted; or with images and labels only (no splits), which
  are cut at four fifths: the first part is train;
- kmnist-{train,test}-{imgs,labels}.npz, KMNIST's own.
"""

from __future__ import annotations

import math
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from flown_jax.data.catalogue import facts
from flown_jax.data.formats import (
    Raw,
    RawSplit,
    check_unpacked,
    damaged,
    locate_all,
    shift_labels,
)
from flown_jax.errors import UserError

_MOST_CLASSES = 10**5
_KEYS = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "validation": (("validation_images", "validation_labels"),),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


def find(name: str, folder: Path) -> Raw | None:
    """The arrays of NAME.npz, or KMNIST's four files."""
    path = folder / f"{name}.npz"
    if path.is_file() and (raw := _one_file(name, path)) is not None:
        return raw
    return _kmnist(folder) if name == "kmnist" else None


def member(path: Path, key: str) -> np.ndarray:
    """One array of a .npz.

    Raises:
      UserError: damaged, an array of Python objects, or of another size than its bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(archive, key, path)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]
    except UserError:
        raise
    except Exception as error:  # zip, zlib and NumPy each raise their own
        raise damaged(path, error) from error


def members(path: Path) -> list[str]:
    """Names of the arrays of a .npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception as error:  # zipfile raises nearly anything for a damaged file
        raise damaged(path, error) from error


def class_names(path: Path) -> tuple[str, ...]:
    """The array `class_names` of a .npz; empty if it has none.

    Raises:
      UserError: it is no list of texts, or has one twice.
    """
    if "class_names" not in members(path):
        return ()
    array = member(path, "class_names")
    if array.ndim != 1 or array.dtype.kind not in "USiu" or array.size > _MOST_CLASSES:
        raise UserError(
            f"class_names of {path} must be texts (classes,), not {array.dtype} {array.shape}."
        )
    names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in array]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"class_names of {path} has {twice!r} twice.")
    return tuple(names)


def check_levels(images: np.ndarray, where: str) -> None:
    """Raises UserError if images of whole numbers are in 0..1, as binary images may be."""
    if images.size and images.max() == 1:
        raise UserError(f"{where} has no value above 1; grey levels from 0 to 255 are expected.")


def check_class_names(name: str, path: Path) -> None:
    """Raises UserError if a file's `class_names` are not those of the set."""
    names, official = class_names(path), facts(name).class_names
    if not names or names == official:
        return
    if len(names) != len(official):
        raise UserError(f"{path} has {len(names)} classes; {name} has {len(official)}.")
    index = next(i for i, (a, b) in enumerate(zip(names, official, strict=True)) if a != b)
    raise UserError(
        f"{path} calls class {index} {names[index]!r}; in {name} it is {official[index]!r}."
    )


def _check_size(archive: zipfile.ZipFile, key: str, path: Path) -> None:
    """Hold an array's header against its bytes; NumPy would make room for what it promises."""
    names = archive.namelist()
    info = archive.getinfo(f"{key}.npy" if f"{key}.npy" in names else key)
    check_unpacked(info.file_size, info.compress_size, f"{key} of {path}")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_2_0
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0
        shape, _, dtype = header(file)
        size = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and (
            min(shape, default=0) < 0 or size != info.file_size - file.tell()
        ):
            raise ValueError(f"{key} has {info.file_size:,} bytes for {dtype} {shape}")


def _one_file(name: str, path: Path) -> Raw | None:
    keys = set(members(path))
    splits = {
        split: partial(_split, path, images, labels)
        for split, pairs in _KEYS.items()
        for images, labels in pairs
        if {images, labels} <= keys
    }
    notes: tuple[str, ...] = ()
    if not splits and {"images", "labels"} <= keys:
        splits = {part: partial(_part, path, part) for part in ("train", "test")}
        total = member(path, "labels").size
        cut = total * 4 // 5
        notes = (
            f"{path.name} has no splits: the first {cut:,} images are train, the last "
            f"{total - cut:,} test",
        )
    if not splits:
        return None
    check_class_names(name, path)
    return Raw("arrays in a .npz", (path,), splits, notes=notes)


def _kmnist(folder: Path) -> Raw | None:
    wanted = {
        f"{split} {part}": f"kmnist-{split}-{part}.npz"
        for split in ("train", "test")
        for part in ("imgs", "labels")
    }
    found = locate_all(folder, wanted, ("kmnist",))
    if not found:
        return None
    splits = {
        split: partial(_pair, found[f"{split} imgs"], found[f"{split} labels"])
        for split in ("train", "test")
    }
    return Raw("KMNIST's .npz files", tuple(found.values()), splits)


def _split(path: Path, images: str, labels: str) -> RawSplit:
    return _checked(member(path, images), member(path, labels), path)


def _part(path: Path, part: str) -> RawSplit:
    whole = _split(path, "images", "labels")
    cut = len(whole.labels) * 4 // 5
    chosen = slice(None, cut) if part == "train" else slice(cut, None)
    return RawSplit(whole.images[chosen], whole.labels[chosen])


def _pair(images: Path, labels: Path) -> RawSplit:
    return _checked(member(images, "arr_0"), member(labels, "arr_0"), images)


def _checked(images: np.ndarray, labels: np.ndarray, path: Path) -> RawSplit:
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{path} has images of {images.dtype} {images.shape}; uint8 (N, H, W) or (N, H, W, C) "
            "is expected."
        )
    check_levels(images, str(path))
    if labels.size != len(images):
        raise UserError(f"{path} has {len(images):,} images and {labels.size:,} labels.")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{path} has labels of {labels.dtype}; whole numbers are expected.")
    highest = int(np.iinfo(np.int32).max)
    return RawSplit(images, shift_labels(labels, 0, highest, str(path)))
