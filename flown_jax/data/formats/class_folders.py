"""Image files sorted into folders: SPLIT/CLASS/FILE.png (or another of `picture_files`).

SPLIT is train, test (or training, testing), validation (or val), extra; CLASS is the class's name,
its official id (WordNet) or its number from 0. Images of a class come in the order of their file
names, classes in the order of their labels. All must have one square size. What operating systems
leave in folders is passed over; anything else that is no picture in a class folder is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flown_jax.data.catalogue import Facts, facts
from flown_jax.data.formats import Raw, RawSplit, is_stray, picture_files
from flown_jax.errors import UserError

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "val"),
    "test": ("test", "testing"),
}


def find(name: str, folder: Path) -> Raw | None:
    """The class folders of a folder, or of its subfolder NAME."""
    official = facts(name)
    if official.class_splits:
        return None  # mini-ImageNet's folders are resized: its own format
    for place in (folder, folder / name):
        found = split_folders(place, official.counts)
        if not found:
            continue
        if missing := [s for s in ("train", "test") if s not in found]:
            raise UserError(
                f"{place} has class folders in {next(iter(found))} but none in {missing[0]}."
            )
        splits = {split: partial(_split, path, official) for split, path in found.items()}
        paths = tuple(file for path in found.values() for file in files_below(path))
        return Raw("class folders", paths, splits, notes=left_out(found.values()))
    return None


def split_folders(place: Path, splits: Iterable[str]) -> dict[str, Path]:
    """The folder of each split that has class folders with images in it."""
    found = {}
    for split in splits:
        for alias in ALIASES.get(split, (split,)):
            if (place / alias).is_dir() and files_below(place / alias):
                found[split] = place / alias
                break
    return found


def files_below(folder: Path) -> list[Path]:
    """Image files of the class folders of a folder, sorted."""
    return [path for sub in _entries(folder) if sub.is_dir() for path in _pictures(sub)]


def left_out(folders: Iterable[Path]) -> tuple[str, ...]:
    """A note on what else lies in folders of class folders; none if nothing does."""
    others: list[Path] = []
    for folder in folders:
        for sub in _entries(folder):
            inside = list(_entries(sub)) if sub.is_dir() else [sub]
            used = set(_pictures(sub)) if sub.is_dir() else set()
            others += [path for path in inside if path not in used]
    if not others:
        return ()
    return (f"left out: {len(others):,} that are no pictures in class folders, as {others[0]}",)


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in a folder, sorted, without what operating systems left there."""
    return (path for path in sorted(folder.iterdir()) if not is_stray(path))


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in picture_files.SUFFIXES]


def _split(folder: Path, official: Facts) -> RawSplit:
    images: list[np.ndarray] = []
    labels: list[int] = []
    places: dict[int, Path] = {}
    for sub in _entries(folder):
        if not sub.is_dir() or not _pictures(sub):
            continue
        label = _label(sub, official)
        if label in places:
            raise UserError(f"{places[label]} and {sub} are both class {label} of {official.name}.")
        places[label] = sub
    for label, sub in sorted(places.items()):
        for path in _pictures(sub):
            image = np.asarray(picture_files.read(path, official.channels))
            if images and image.shape != images[0].shape:
                raise UserError(
                    f"{path} is {image.shape[1]} x {image.shape[0]} pixels; the images before it "
                    f"are {images[0].shape[1]} x {images[0].shape[0]}."
                )
            images.append(image)
            labels.append(label)
    array = np.stack(images)
    if official.channels == 1:
        array = array[..., None]
    return RawSplit(array, np.asarray(labels, np.int32))


def _label(folder: Path, official: Facts) -> int:
    """The label that a class folder's name stands for."""
    simple = [_simple(name) for name in official.class_names]
    if _simple(folder.name) in simple:
        return simple.index(_simple(folder.name))
    if folder.name in official.class_ids:
        return official.class_ids.index(folder.name)
    if folder.name.isdecimal() and int(folder.name) < official.classes:
        return int(folder.name)
    raise UserError(
        f"{folder} is no class of {official.name}; name class folders 0 to {official.classes - 1} "
        f"or {official.class_names[0]}, {official.class_names[1]}, ..."
    )


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
