"""mini-ImageNet in the three layouts in which it goes about; there is no official archive.

- train.csv, val.csv, test.csv (filename,label; the label is a WordNet id) and the JPEGs in images/
  or beside them;
- mini-imagenet-cache-{train,val,test}.pkl: image_data uint8 (n, 84, 84, 3), class_dict {id: rows};
- class folders {train,val,test}/ID/*.jpg.
Pictures of another size than 84 x 84 are resized to it (bilinear, whole image). Labels 0..63 are
train, 64..79 validation, 80..99 test classes, each part in the order of the ids: of the numbers
where all are numbers, else of the texts.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from flown_jax.data.catalogue import facts
from flown_jax.data.formats import (
    Raw,
    RawSplit,
    class_folders,
    damaged,
    locate_all,
    pickles,
    picture_files,
    read_bytes,
)
from flown_jax.errors import UserError

_SIDE = 84
_SHORT = {"train": "train", "validation": "val", "test": "test"}
_RESIZED = "pictures of another size were resized to 84 x 84 pixels"
_SUBFOLDERS = ("mini_imagenet", "miniImageNet", "mini-imagenet", "miniimagenet")


def find(name: str, folder: Path) -> Raw | None:
    """The first of the three layouts that a folder has."""
    if name != "mini_imagenet":
        return None
    wanted = {split: f"{short}.csv" for split, short in _SHORT.items()}
    if found := locate_all(folder, wanted, _SUBFOLDERS):
        listed = {split: _rows(path) for split, path in found.items()}
        images = {s: _existing(found[s], [file for file, _ in rows]) for s, rows in listed.items()}
        ids = {split: [label for _, label in rows] for split, rows in listed.items()}
        raw = _raw("csv files and JPEGs", tuple(found.values()), images, ids)
        _check_apart({split: {name for name, _ in rows} for split, rows in listed.items()})
        return raw
    wanted = {split: f"mini-imagenet-cache-{short}.pkl" for split, short in _SHORT.items()}
    if found := locate_all(folder, wanted, _SUBFOLDERS):
        return _pickled(found)
    for place in (folder, *(folder / sub for sub in _SUBFOLDERS)):
        folders = class_folders.split_folders(place, tuple(_SHORT))
        if not folders:
            continue
        if missing := [split for split in _SHORT if split not in folders]:
            raise UserError(
                f"{place} has class folders in {next(iter(folders))} but none in {missing[0]}."
            )
        images = {split: class_folders.files_below(path) for split, path in folders.items()}
        ids = {split: [path.parent.name for path in paths] for split, paths in images.items()}
        return _raw("class folders", (), images, ids, class_folders.left_out(folders.values()))
    return None


def _raw(
    what: str,
    lists: tuple[Path, ...],
    images: dict[str, list[Path]],
    ids: dict[str, list[str]],
    notes: tuple[str, ...] = (),
) -> Raw:
    names, labels = _classes({split: _in_order(set(entries)) for split, entries in ids.items()})
    splits = {
        split: partial(_split, paths, [labels[entry] for entry in ids[split]])
        for split, paths in images.items()
    }
    files = (*lists, *(path for paths in images.values() for path in paths))
    return Raw(what, files, splits, names, (_RESIZED, *notes))


def _in_order(ids: Iterable[str]) -> list[str]:
    """Class ids sorted; 2 before 10 where all are numbers."""
    ids = list(ids)
    return sorted(ids, key=int if all(entry.isdecimal() for entry in ids) else None)


def _classes(ids: dict[str, list[str]]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names (empty if they are the usual ones) and the label of each class id.

    Raises:
      UserError: another number of classes than 64, 16 and 20, or a class in two splits.
    """
    official = facts("mini_imagenet")
    everything: list[str] = []
    for split, entries in ids.items():
        expected = len(official.classes_of(split))
        if len(entries) != expected:
            raise UserError(
                f"mini_imagenet's {split} split has {expected} classes; the files have "
                f"{len(entries)}."
            )
        everything += entries
    if len(set(everything)) < len(everything):
        twice = next(entry for entry in everything if everything.count(entry) > 1)
        raise UserError(f"the class {twice} is in two splits of mini_imagenet, which share none.")
    labels = {entry: label for label, entry in enumerate(everything)}
    usual = tuple(everything) == official.class_ids
    return (() if usual else tuple(everything)), labels


def _rows(path: Path) -> list[tuple[str, str]]:
    text = read_bytes(path).decode("utf-8-sig", "replace").splitlines()
    try:
        table = list(csv.DictReader(text))
    except csv.Error as error:
        raise damaged(path, error) from error
    if not table or not {"filename", "label"} <= set(table[0]):
        raise UserError(f"{path} has no rows under the header 'filename,label'.")
    rows = [(row["filename"], row["label"]) for row in table]
    seen: set[str] = set()
    for number, (name, label) in enumerate(rows, 1):
        if not name or not label:
            raise UserError(f"{path} has no filename or no label in row {number}.")
        if name in seen:
            raise UserError(f"{path} names {name} twice.")
        seen.add(name)
    return rows


def _check_apart(names: dict[str, set[str]]) -> None:
    for one, other in itertools.combinations(names, 2):
        if shared := sorted(names[one] & names[other]):
            raise UserError(f"mini_imagenet's {one} and {other} lists both name {shared[0]}.")


def _existing(table: Path, names: list[str]) -> list[Path]:
    """Paths of the images that a csv file names.

    Raises:
      UserError: one is not there, or outside of the folder, be it by a link.
    """
    places = (table.parent / "images", table.parent)
    place = next((p for p in places if _is_file(p / names[0])), places[0])
    root = place.resolve()
    if not root.is_relative_to(table.parent.resolve()):
        raise UserError(f"{place} is a link to {root}, outside of the folder of {table.name}.")
    for name in names:
        if not _is_file(place / name):
            raise UserError(f"{table} names {name}, which is not in {place}.")
        if not (place / name).resolve().is_relative_to(root):
            raise UserError(f"{table} names {name}, which lies outside of {place}.")
    return [place / name for name in names]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _split(paths: list[Path], labels: list[int]) -> RawSplit:
    from PIL import Image

    images = np.empty((len(paths), _SIDE, _SIDE, 3), np.uint8)
    for image, path in zip(images, paths, strict=True):
        picture = picture_files.read(path, 3)
        if picture.size != (_SIDE, _SIDE):
            picture = picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        image[...] = np.asarray(picture)
    return RawSplit(images, np.asarray(labels, np.int32))


def _pickled(found: dict[str, Path]) -> Raw:
    # Names of all classes are needed before the first label, so each file is read twice.
    ids = {split: _in_order(_cache(path)[1]) for split, path in found.items()}
    names, labels = _classes(ids)
    splits = {split: partial(_from_cache, path, labels) for split, path in found.items()}
    return Raw("pickled caches", tuple(found.values()), splits, names)


def _cache(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    value = pickles.loads(read_bytes(path), path)
    values = {_text(k): v for k, v in value.items()} if isinstance(value, dict) else {}
    if missing := [key for key in ("image_data", "class_dict") if key not in values]:
        raise UserError(f"{path} is no mini-ImageNet cache: it has no field {missing[0]!r}.")
    images, classes = values["image_data"], values["class_dict"]
    if not isinstance(images, np.ndarray) or not isinstance(classes, dict):
        raise UserError(f"{path} is no mini-ImageNet cache: an array and a dict are expected.")
    if images.dtype != np.uint8 or images.shape[1:] != (_SIDE, _SIDE, 3):
        raise UserError(
            f"{path} has images of {images.dtype} {images.shape}; uint8 (N, {_SIDE}, {_SIDE}, 3) "
            "is expected."
        )
    return images, {_text(key): pickles.integers(rows, path) for key, rows in classes.items()}


def _from_cache(path: Path, labels: dict[str, int]) -> RawSplit:
    images, rows_of = _cache(path)
    result = np.full(len(images), -1, np.int32)
    for name, rows in rows_of.items():
        if not all(0 <= row < len(images) for row in rows):
            raise UserError(f"{path}: class {name} has rows beyond the {len(images):,} images.")
        if (result[rows] >= 0).any() or len(np.unique(rows)) < len(rows):
            raise UserError(f"{path}: class {name} has rows that are in a class already.")
        result[rows] = labels[name]
    if (result < 0).any():
        raise damaged(path, ValueError(f"image {int(np.argmax(result < 0))} is in no class"))
    return RawSplit(images, result)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
