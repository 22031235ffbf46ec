"""STL-10's binary files, extracted or in stl10_binary.tar.gz.

An image is its red, green and blue plane, each **column** by column; labels are 1 to 10. The
unlabelled images are read where they are there (2.8 GB, all in memory if from the archive).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flown_jax.data.formats import (
    Raw,
    RawSplit,
    locate_all,
    read_bytes,
    read_members,
    records,
    shift_labels,
)
from flown_jax.errors import UserError

_ARCHIVE = "stl10_binary.tar.gz"
_SIDE = 96
_FILES = {
    "train": ("train_X.bin", "train_y.bin"),
    "test": ("test_X.bin", "test_y.bin"),
    "unlabelled": ("unlabeled_X.bin",),
}


def find(name: str, folder: Path) -> Raw | None:
    """The extracted files of a folder, or else the archive."""
    if name != "stl10":
        return None
    wanted = {file: file for files in _FILES.values() for file in files}
    unlabelled = _FILES["unlabelled"]
    found = locate_all(folder, wanted, ("stl10_binary",), optional=unlabelled)
    if found:
        splits = {
            split: partial(_split, tuple(found[file] for file in files))
            for split, files in _FILES.items()
            if all(file in found for file in files)
        }
        return Raw("binary files", tuple(found.values()), splits)
    if (archive := folder / _ARCHIVE).is_file():
        splits = {s: partial(_from_archive, archive, files) for s, files in _FILES.items()}
        return Raw("binary files in an archive", (archive,), splits)
    return None


def _split(paths: tuple[Path, ...]) -> RawSplit:
    labels = read_bytes(paths[1]) if len(paths) > 1 else None
    return _decode(read_bytes(paths[0]), labels, str(paths[0]))


def _from_archive(archive: Path, files: tuple[str, ...]) -> RawSplit:
    contents = read_members(archive, files)
    labels = contents[files[1]] if len(files) > 1 else None
    return _decode(contents[files[0]], labels, f"{archive}/{files[0]}")


def _decode(images: bytes, labels: bytes | None, where: str) -> RawSplit:
    planes = records(images, 3 * _SIDE * _SIDE, where).reshape(-1, 3, _SIDE, _SIDE)
    pictures = planes.transpose(0, 3, 2, 1)
    if labels is None:
        return RawSplit(pictures, np.full(len(pictures), -1, np.int32))
    if len(labels) != len(pictures):
        raise UserError(f"{where} has {len(pictures):,} images; there are {len(labels):,} labels.")
    return RawSplit(pictures, shift_labels(np.frombuffer(labels, np.uint8), 1, 10, where))
