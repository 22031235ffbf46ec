"""Image files sorted into folders: SPLIT/CLASS/FILE.png (or .jpg, .jpeg, .bmp).

SPLIT is train, test, validation (or val), extra; CLASS is the class's name, its official id
(WordNet) or its number from 0. Images of a class come in the order of their file names, classes in
the order of their labels. All must have one square size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from flown_jax.data.catalogue import Facts, facts
from flown_jax.data.formats import Raw, RawSplit, damaged
from flown_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
ALIASES = {"validation": ("validation", "val"), "test": ("test", "testing")}


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
        return Raw("class folders", paths, splits)
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
    return [
        path
        for sub in sorted(folder.iterdir())
        if sub.is_dir()
        for path in sorted(sub.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]


def read_image(path: Path, channels: int):
    """A picture as PIL has it, grey or RGB.

    Raises:
      UserError: it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise damaged(path, error) from error


def _split(folder: Path, official: Facts) -> RawSplit:
    images: list[np.ndarray] = []
    labels: list[int] = []
    by_label = sorted((_label(sub, official), sub) for sub in folder.iterdir() if sub.is_dir())
    for label, sub in by_label:
        for path in sorted(sub.iterdir()):
            if path.suffix.lower() not in SUFFIXES:
                continue
            image = np.asarray(read_image(path, official.channels))
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
    if folder.name.isdigit() and int(folder.name) < official.classes:
        return int(folder.name)
    raise UserError(
        f"{folder} is no class of {official.name}; name class folders 0 to {official.classes - 1} "
        f"or {official.class_names[0]}, {official.class_names[1]}, ..."
    )


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
