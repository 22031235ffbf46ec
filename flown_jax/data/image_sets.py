"""Image sets by name: decoded once into arrays.

Some are embedded: `digits` (scikit-learn's, 28 x 28) and the characters of `glyph_sets`. The
others are read from folders that `python -m experiments.prepare_data` makes, or TensorFlow
Datasets itself; see `array_record`. A set of your own is a file; see `own_images`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flown_jax.data import array_record, glyph_sets, own_images
from flown_jax.data.catalogue import CATALOGUE, EMBEDDED, Facts, facts
from flown_jax.data.glyphs import handwritten_digits
from flown_jax.errors import UserError

__all__ = ["CATALOGUE", "Facts", "ImageSet", "at_hand", "facts", "finished", "load", "local_folder"]

DATA_DIR = "data"
_BUCKET = re.compile(r"[a-z][a-z0-9+.-]+:/+")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split.

    Attributes:
      name: of the set.
      images: uint8 (N, H, W, C), C = 1 or 3.
      labels: int32 (N,), indices of `class_names`; -1 where there is no label.
      class_names: name of each class.
      split: which part of the set.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    split: str

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of images and labels, to record what a model was trained on."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels.astype("<i4")).data)
        return digest.hexdigest()


def load(name: str, split: str, data_dir: str | Path | None = None) -> ImageSet:
    """The images of one split of an image set.

    Args:
      name: one of CATALOGUE, or of a set of your own.
      split: train, test; mini_imagenet also has validation, svhn_cropped extra, stl10 unlabelled.
      data_dir: folder that holds NAME/VERSION; by default `data`. Embedded sets need none.
    Raises:
      UserError: an unknown set or split, a set that was not prepared, a damaged file.
    """
    if name not in CATALOGUE:
        path = _own_file(name, data_dir)
        if not _exists(path):
            raise UserError(
                f"there is no image set {name!r}; the sets at hand are {', '.join(CATALOGUE)}, and "
                f"one of your own would be {path}."
            )
        return ImageSet(name, *own_images.read(path, split), split)
    official = facts(name)
    if split not in official.counts:
        raise UserError(
            f"{name} has no split {split!r}; its splits are {', '.join(official.counts)}."
        )
    if name in EMBEDDED:
        images, labels = _digits(split) if name == "digits" else glyph_sets.draw(name, split)
        return ImageSet(name, images, labels, official.class_names, split)
    folder = finished(name, data_dir)
    images, labels, class_names = array_record.read(folder, split)
    if images.shape[-1] != official.channels:
        raise UserError(
            f"{folder} has images of {images.shape[-1]} channels; {name} has {official.channels}."
        )
    class_names = class_names or official.class_names
    if len(class_names) != official.classes:
        raise UserError(f"{folder} has {len(class_names)} classes; {name} has {official.classes}.")
    lowest = -1 if split in official.unlabelled else 0
    if ((labels < lowest) | (labels >= len(class_names))).any():
        raise UserError(
            f"{folder} has labels of {labels.min()} to {labels.max()} in {split}, and "
            f"{len(class_names)} classes."
        )
    return ImageSet(name, images, labels, class_names, split)


def at_hand(name: str, data_dir: str | Path | None = None) -> bool:
    """Whether a set is embedded or on the disk, damaged or not."""
    if name in EMBEDDED:
        return True
    if name not in CATALOGUE:
        return _exists(_own_file(name, data_dir))
    try:
        finished(name, data_dir)
    except UserError:
        return False
    return True


def finished(name: str, data_dir: str | Path | None = None) -> Path:
    """The folder NAME/VERSION of a prepared image set; the highest version if there are several.

    Raises:
      UserError: there is none.
    """
    root = local_folder(DATA_DIR if data_dir is None else data_dir)
    try:
        folders = [path.parent for path in (root / name).glob(f"*/{array_record.INFO}")]
    except OSError as error:
        raise UserError(f"cannot read the folder {root}: {error.strerror}.") from error
    folders = [path for path in folders if _VERSION.fullmatch(path.name)]
    if not folders:
        raise UserError(
            f"there is no image set {name} in {root}; prepare it with `python -m "
            f"experiments.prepare_data {name} --from=FOLDER --to={root}`, FOLDER holding its raw "
            "files."
        )
    return max(folders, key=lambda path: [int(part) for part in path.name.split(".")])


def local_folder(folder: str | Path) -> Path:
    """The path of a folder on a local disk.

    Raises:
      UserError: an address of a bucket (gs://...), or a home that is not known.
    """
    if _BUCKET.match(str(folder)):
        raise UserError(
            f"{folder} is not on a local disk, where image sets are read and written; copy the "
            "folder to a local disk first."
        )
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise UserError(f"{folder} begins with a home folder that is not known.") from error


def _own_file(name: str, data_dir: str | Path | None) -> Path:
    if Path(name).name != name:
        raise UserError(f"{name!r} is no name of an image set: it has a folder in it.")
    return local_folder(DATA_DIR if data_dir is None else data_dir) / f"{name}.npz"


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name that is too long, a folder that is forbidden
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = handwritten_digits()
    rows = _digit_rows(labels, CATALOGUE["digits"].counts["train"])
    chosen = rows if split == "train" else np.setdiff1d(np.arange(len(labels)), rows)
    return images[chosen][..., None], labels[chosen].astype(np.int32)


def _digit_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Rows of the training split: as many of each class as its share, drawn once and for all."""
    sizes = np.bincount(labels)
    shares = sizes * count / len(labels)
    quota = np.floor(shares).astype(int)
    # The classes with the largest remainders fill up the count.
    quota[np.argsort(quota - shares, kind="stable")[: count - quota.sum()]] += 1
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.flatnonzero(labels == c))[:q] for c, q in enumerate(quota)]
    return np.sort(np.concatenate(rows))
