"""Few-shot data sets by name: classes that the splits do not share, and foreign sets of images."""

from __future__ import annotations

import hashlib
import inspect
import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.data import image_sets
from flown_jax.data.glyphs import Jitter, draw_glyphs, glyph_classes, handwritten_digits
from flown_jax.errors import UserError

SPLITS = ("train", "validation", "test")
_MINI = "mini_imagenet"
_TITLES = {
    "svhn_cropped": "SVHN",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "stl10": "STL-10",
    "colour_symbols": "coloured symbols",
}


@dataclass(frozen=True, eq=False)
class ClassImages:
    """Images by class.

    Attributes:
      images: of class c, uint8 (m_c, H, W, C), C = 1 or 3; H, W and C are those of all classes.
      names: of each class.
    """

    images: tuple[np.ndarray, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        shapes = {part.shape[1:] for part in self.images}
        if len(shapes) != 1 or len(self.images) != len(self.names):
            raise ValueError(
                f"classes of {len(self.images)} arrays and {len(self.names)} names need images of "
                f"one shape, not {sorted(shapes)}"
            )
        shape = shapes.pop()
        if len(shape) != 3 or shape[-1] not in (1, 3):
            raise ValueError(f"images are (H, W, 1) or (H, W, 3), not {shape}")
        if any(part.dtype != np.uint8 for part in self.images):
            raise ValueError("images are uint8")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.images[0].shape[-1]

    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of shapes and bytes, in the order of the classes."""
        digest = hashlib.sha256()
        for part in self.images:
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class FewShotData:
    """Classes to learn from and to be tested on.

    Attributes:
      classes: of all splits.
      split: the class ids of `train`, `validation` and `test`; no class is in two of them.
      foreign: name -> images out of distribution.
      titles: of `in_distribution` and of every foreign set, for tables.
      absent: foreign sets that were asked for and are not on the disk.
    """

    classes: ClassImages
    split: dict[str, np.ndarray]
    foreign: dict[str, ClassImages]
    titles: dict[str, str]
    absent: tuple[str, ...] = ()


def few_shot(name: str, **settings: Any) -> FewShotData:
    """Images of meta-train, meta-validation and meta-test classes, and foreign sets.

    Args:
      name: `glyphs` or `mini_imagenet`.
      settings: the arguments of the function of that name in this module, every one of them.
    Raises:
      UserError: an unknown set, a setting that it does not have or that is missing or wrong,
        an image set that was not prepared.
    """
    if name not in FEW_SHOT:
        raise UserError(
            f"data.name is {name!r}; the few-shot data sets at hand are {', '.join(FEW_SHOT)}."
        )
    known = list(inspect.signature(FEW_SHOT[name]).parameters)
    for setting in settings:
        if setting not in known:
            raise UserError(
                f"data.{setting} is no setting of {name}; its settings are {', '.join(known)}."
            )
    for setting in known:
        if setting not in settings:
            raise UserError(f"data.{setting} is missing; {name} needs {', '.join(known)}.")
    return FEW_SHOT[name](**settings)


def glyphs(
    *,
    seed: int,
    alike: float,
    train_classes: int,
    validation_classes: int,
    images_per_class: int,
    jitter: float,
) -> FewShotData:
    """Characters drawn from matplotlib's fonts; foreign to them, handwritten digits. All grey.

    Args:
      seed: of the images and of the random split.
      alike: see `glyphs.glyph_classes`.
      train_classes, validation_classes: how many; the rest is meta-test.
      images_per_class: m.
      jitter: strength, see `glyphs.Jitter`.
    Raises:
      UserError: fewer classes than the split needs, a number out of range.
    """
    for name, value, lowest in (
        ("seed", seed, 0),
        ("train_classes", train_classes, 1),
        ("validation_classes", validation_classes, 1),
        ("images_per_class", images_per_class, 1),
    ):
        _require_whole(name, value, lowest)
    for name, factor in (("alike", alike), ("jitter", jitter)):
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not 0 <= factor < math.inf:
            raise UserError(f"data.{name} is {factor!r}; a number from 0 is needed.")
    classes = glyph_classes(alike)
    count = len(classes.characters)
    if count <= train_classes + validation_classes:
        raise UserError(
            f"data.alike = {alike} leaves {count} characters, too few for {train_classes} "
            f"training and {validation_classes} validation classes and a test class."
        )
    order = np.random.default_rng(seed).permutation(count)
    parts = np.split(order, [train_classes, train_classes + validation_classes])
    images = draw_glyphs(classes, seed, images_per_class, Jitter(strength=jitter))[..., None]
    digits, labels = handwritten_digits()
    by_digit = tuple(digits[labels == digit][..., None] for digit in range(10))
    return FewShotData(
        ClassImages(tuple(images), tuple(unicodedata.name(c).lower() for c in classes.characters)),
        dict(zip(SPLITS, parts, strict=True)),
        {"out_of_distribution": ClassImages(by_digit, tuple(f"digit {d}" for d in range(10)))},
        {
            "in_distribution": "In distribution: characters of the meta-test classes",
            "out_of_distribution": "Out of distribution: handwritten digits",
        },
    )


def mini_imagenet(
    *,
    data_dir: str | Path,
    foreign: Sequence[str],
    train_classes: int,
    images_per_class: int,
) -> FewShotData:
    """mini-ImageNet's 64 / 16 / 20 classes; foreign to them, the test images of other sets.

    Args:
      data_dir: folder of prepared image sets, see `image_sets`.
      foreign: names of colour image sets; one that was not prepared is left out.
      train_classes: how many of the training classes, the first ones; 0 all.
      images_per_class: at most so many of every class, foreign ones too, the first ones; 0 all.
    Raises:
      UserError: mini-ImageNet was not prepared, a file is damaged, `foreign` names what is no
        colour image set, or a number is out of range.
    """
    names = _foreign_names(foreign)
    _require_whole("images_per_class", images_per_class, 0)
    _require_whole("train_classes", train_classes, 0)
    parts = {
        name: _by_class(image_sets.load(_MINI, name, data_dir), images_per_class) for name in SPLITS
    }
    available = len(parts["train"])
    if not 0 <= train_classes <= available:
        raise UserError(
            f"data.train_classes is {train_classes}; {_MINI} has {available} training classes, "
            "and 0 takes all."
        )
    keep = train_classes or available
    parts["train"] = ClassImages(parts["train"].images[:keep], parts["train"].names[:keep])
    ends = np.cumsum([len(part) for part in parts.values()])
    present = [name for name in names if image_sets.at_hand(name, data_dir)]
    titles = {
        "in_distribution": f"In distribution: mini-ImageNet, the {len(parts['test'])} test classes"
    }
    titles |= {name: f"Out of distribution: {_TITLES.get(name, name)}" for name in present}
    return FewShotData(
        ClassImages(
            tuple(images for part in parts.values() for images in part.images),
            tuple(name for part in parts.values() for name in part.names),
        ),
        dict(zip(SPLITS, np.split(np.arange(ends[-1]), ends[:-1]), strict=True)),
        {
            name: _by_class(image_sets.load(name, "test", data_dir), images_per_class)
            for name in present
        },
        titles,
        tuple(name for name in names if name not in present),
    )


FEW_SHOT: dict[str, Callable[..., FewShotData]] = {"glyphs": glyphs, _MINI: mini_imagenet}


def _require_whole(name: str, value: Any, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise UserError(f"data.{name} is {value!r}; {lowest} or a greater whole number is needed.")


def _foreign_names(foreign: Sequence[str]) -> tuple[str, ...]:
    """The names, each of a colour image set other than mini-ImageNet, none twice."""
    catalogue = image_sets.CATALOGUE
    colour = [s for s, facts in catalogue.items() if facts.channels == 3 and s != _MINI]
    if isinstance(foreign, str):
        raise UserError(f"data.foreign is {foreign!r}; a tuple of names is needed: ({foreign!r},).")
    for name in foreign:
        if name in catalogue and catalogue[name].channels == 1:
            raise UserError(
                f"{name} has grey images and {_MINI} colour ones: data.foreign takes "
                f"{', '.join(colour)}."
            )
        if name not in colour:
            raise UserError(
                f"data.foreign has {name!r}; beside {_MINI} it takes {', '.join(colour)}."
            )
    if len(set(foreign)) != len(foreign):
        raise UserError(f"data.foreign names a set twice: {', '.join(foreign)}.")
    return tuple(foreign)


def _by_class(part: image_sets.ImageSet, limit: int) -> ClassImages:
    """The images of each class that has any, in the order of the labels; at most `limit` if > 0."""
    labels = np.unique(part.labels)
    rows = [np.flatnonzero(part.labels == label)[: limit or None] for label in labels]
    return ClassImages(
        tuple(part.images[row] for row in rows), tuple(part.class_names[c] for c in labels)
    )
