"""CIFAR-10 and CIFAR-100 as distributed: Python pickles or binary records, folder or .tar.gz.

An image is its red, green and blue plane, each row by row. Binary records begin with the label
(CIFAR-100: the coarse, then the fine label).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.data.catalogue import facts
from flown_jax.data.formats import (
    Raw,
    RawSplit,
    pickles,
    read_bytes,
    read_members,
    records,
    shift_labels,
)
from flown_jax.errors import UserError

_BATCHES = tuple(f"data_batch_{index}" for index in range(1, 6))
# Split -> files, of each set and kind; folder and archive of that kind.
_FILES: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "cifar10": {
        "python": {"train": _BATCHES, "test": ("test_batch",)},
        "binary": {
            "train": tuple(f"{name}.bin" for name in _BATCHES),
            "test": ("test_batch.bin",),
        },
    },
    "cifar100": {
        "python": {"train": ("train",), "test": ("test",)},
        "binary": {"train": ("train.bin",), "test": ("test.bin",)},
    },
}
_PLACES = {
    ("cifar10", "python"): ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ("cifar10", "binary"): ("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    ("cifar100", "python"): ("cifar-100-python", "cifar-100-python.tar.gz"),
    ("cifar100", "binary"): ("cifar-100-binary", "cifar-100-binary.tar.gz"),
}
_PIXELS = 3 * 32 * 32


def find(name: str, folder: Path) -> Raw | None:
    """The official files of a folder: extracted ones first, then the archive."""
    if name not in _FILES:
        return None
    for kind, files in _FILES[name].items():
        subfolder, archive = _PLACES[name, kind]
        what = f"{kind} files"
        everything = [file for split in files.values() for file in split]
        for place in (folder, folder / subfolder):
            # CIFAR-100's names are those of any folder with class folders.
            present = [file for file in everything if (place / file).is_file()]
            if not present:
                continue
            if missing := [file for file in everything if file not in present]:
                raise UserError(f"{place} has {present[0]} but lacks {missing[0]}.")
            paths = tuple(place / file for file in everything)
            return Raw(what, paths, _splits(name, kind, files, place))
        if (path := folder / archive).is_file():
            return Raw(f"{what} in an archive", (path,), _splits(name, kind, files, path))
    return None


def _splits(name: str, kind: str, files: dict[str, tuple[str, ...]], place: Path) -> dict[str, Any]:
    decode = _from_pickles if kind == "python" else _from_records
    return {split: partial(decode, name, place, names) for split, names in files.items()}


def _read(place: Path, names: Collection[str]) -> dict[str, bytes]:
    if place.is_dir():
        return {name: read_bytes(place / name) for name in names}
    return read_members(place, names)


def _from_records(name: str, place: Path, names: tuple[str, ...]) -> RawSplit:
    coarse_classes = facts(name).coarse
    head = 2 if coarse_classes else 1
    contents = _read(place, names)
    parts = [records(contents[file], head + _PIXELS, f"{place}/{file}") for file in names]
    everything = np.concatenate(parts)
    labels = shift_labels(everything[:, head - 1], 0, facts(name).classes - 1, str(place))
    coarse = (
        shift_labels(everything[:, 0], 0, coarse_classes - 1, str(place)) if head == 2 else None
    )
    return RawSplit(_images(everything[:, head:]), labels, coarse)


def _from_pickles(name: str, place: Path, names: tuple[str, ...]) -> RawSplit:
    fine = "fine_labels" if facts(name).coarse else "labels"
    contents = _read(place, names)
    batches = [_batch(contents[file], place / file, fine) for file in names]
    images = np.concatenate([data for data, _, _ in batches])
    labels = np.concatenate([labels for _, labels, _ in batches])
    labels = shift_labels(labels, 0, facts(name).classes - 1, str(place))
    coarse = None
    if facts(name).coarse and all(part is not None for _, _, part in batches):
        coarse = np.concatenate([part for _, _, part in batches if part is not None])
        coarse = shift_labels(coarse, 0, facts(name).coarse - 1, str(place))
    return RawSplit(_images(images), labels, coarse)


def _batch(
    content: bytes, path: Path, fine: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Pixels (n, 3072), labels (n,) and coarse labels of one pickle."""
    value = pickles.loads(content, path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is no CIFAR batch: it holds a {type(value).__name__}, not a dict.")
    values = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in value.items()}
    if missing := [key for key in ("data", fine) if key not in values]:
        raise UserError(f"{path} is no CIFAR batch: it has no field {missing[0]!r}.")
    data, labels = values["data"], pickles.integers(values[fine], path)
    if not isinstance(data, np.ndarray):
        raise UserError(f"{path} has data that are a {type(data).__name__}, not an array.")
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise UserError(
            f"{path} has data of {data.dtype} {data.shape}; uint8 (images, {_PIXELS}) is expected."
        )
    if labels.shape != (len(data),):
        raise UserError(f"{path} has {len(data):,} images and {labels.size:,} labels.")
    coarse = values.get("coarse_labels")
    return data, labels, None if coarse is None else _coarse(coarse, len(data), path)


def _coarse(values: Any, count: int, path: Path) -> np.ndarray:
    labels = pickles.integers(values, path)
    if len(labels) != count:
        raise UserError(f"{path} has {count:,} images and {len(labels):,} coarse labels.")
    return labels


def _images(planes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
