"""USPS digits, 16 x 16, in the three forms in which they go about.

- usps[.bz2] and usps.t[.bz2]: libsvm's text, "label index:value ...", label = digit + 1, values
  in [-1, 1], absent indices 0;
- zip.train[.gz] and zip.test[.gz]: the digit and 256 values in [-1, 1] a line;
- usps.h5: groups train and test with data (n, 256) in [0, 1] and target; needs h5py.
Grey levels are the value on 0..255, cut to whole numbers, as torchvision has them, but for the few
values that are whole there and that its float32 puts one level lower.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.data.formats import (
    Raw,
    RawSplit,
    check_unpacked,
    damaged,
    locate,
    locate_all,
    read_bytes,
    shift_labels,
)
from flown_jax.errors import UserError

_PIXELS = 256


def find(name: str, folder: Path) -> Raw | None:
    """The first of the three forms that a folder has."""
    if name != "usps":
        return None
    subfolders = ("usps", "USPS")
    if found := locate_all(folder, {"train": "usps", "test": "usps.t"}, subfolders):
        splits = {split: partial(_libsvm, path) for split, path in found.items()}
        return Raw("libsvm text files", tuple(found.values()), splits)
    if found := locate_all(folder, {"train": "zip.train", "test": "zip.test"}, subfolders):
        splits = {split: partial(_numbers, path) for split, path in found.items()}
        return Raw("zip.train and zip.test", tuple(found.values()), splits)
    if (path := locate(folder, "usps.h5", subfolders)) is not None:
        splits = {split: partial(_hdf5, path, split) for split in ("train", "test")}
        return Raw("HDF5 file", (path,), splits)
    return None


def _libsvm(path: Path) -> RawSplit:
    rows = read_bytes(path).decode("ascii", "replace").split("\n")
    rows = [row for row in rows if row.strip()]
    # The format leaves zeros out.
    values = np.zeros((len(rows), _PIXELS))
    labels = np.zeros(len(rows))
    for line, row in enumerate(rows):
        try:
            label, *pairs = row.split()
            labels[line] = float(label)
            for pair in pairs:
                index, value = pair.split(":")
                if not 1 <= int(index) <= _PIXELS:
                    raise ValueError(f"index {index} is outside 1..{_PIXELS}")
                values[line, int(index) - 1] = float(value)
        except ValueError as error:
            raise UserError(f"{path}, line {line + 1}, is no libsvm text: {error}.") from error
    return _split(_from_signed(values, path), labels, 1, path)


def _numbers(path: Path) -> RawSplit:
    rows = read_bytes(path).decode("ascii", "replace").split("\n")
    rows = [row for row in rows if row.strip()]
    table = np.zeros((len(rows), _PIXELS + 1))
    for line, row in enumerate(rows):
        try:
            numbers = [float(number) for number in row.split()]
        except ValueError as error:
            raise UserError(f"{path}, line {line + 1}: {error}.") from error
        if len(numbers) != _PIXELS + 1:
            raise UserError(
                f"{path}, line {line + 1}, has {len(numbers)} numbers; the digit and {_PIXELS} "
                "pixels are expected."
            )
        table[line] = numbers
    return _split(_from_signed(table[:, 1:], path), table[:, 0], 0, path)


def _from_signed(values: np.ndarray, path: Path) -> np.ndarray:
    """Values of [-1, 1] in [0, 1]; refused where ten digits have no paper, whose value is -1."""
    if len(values) >= 10 and values.min() >= 0:
        raise UserError(f"{path} has no pixel below 0; values in [-1, 1] are expected.")
    return (values + 1) / 2


def _hdf5(path: Path, split: str) -> RawSplit:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{path} needs h5py (pip install h5py); or give usps.bz2 and usps.t.bz2."
        ) from error
    try:
        with h5py.File(path, "r") as file:
            values, labels = (_dataset(file, f"{split}/{key}", path) for key in ("data", "target"))
    except UserError:
        raise
    except Exception as error:  # HDF5 raises nearly anything for a damaged file
        raise damaged(path, error) from error
    if values.ndim < 2 or values[0].size != _PIXELS:
        raise UserError(f"{path} has images of shape {values.shape[1:]}; 16 x 16 are expected.")
    return _split(values.reshape(-1, _PIXELS).astype(np.float64), labels, 0, path)


def _dataset(file: Any, name: str, path: Path) -> np.ndarray:
    """An array of an HDF5 file, which may neither lie in other files nor outgrow its own."""
    import h5py

    place = file
    for part in name.split("/"):
        if part in place and not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"{path} has a link {name}, and not an array of its own.")
        place = place[part]
    if place.external or place.is_virtual:
        raise UserError(f"{path} keeps {name} in another file, which is not read.")
    check_unpacked(place.nbytes, path.stat().st_size, f"{name} of {path}")
    return place[:]


def _split(values: np.ndarray, labels: np.ndarray, lowest: int, path: Path) -> RawSplit:
    """Images of values in [0, 1], (N, 256)."""
    if labels.shape != values.shape[:1] or len(values) == 0:
        raise UserError(f"{path} has {len(values):,} images and {len(labels):,} labels.")
    if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
        raise UserError(f"{path} has pixels outside its range; it is damaged or another file.")
    # Rounding first: 0.2 * 255 may fall below 51 in the last bit.
    levels = np.floor(np.round(values * 255, 3)).astype(np.uint8)
    images = levels.reshape(-1, 16, 16, 1)
    return RawSplit(images, shift_labels(labels, lowest, lowest + 9, str(path)))
