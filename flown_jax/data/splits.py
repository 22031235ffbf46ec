"""Which images of a set networks were trained on, and which of them no network has seen.

What a zoo's recipe says of it, as `record` writes it:

    images_fingerprint    of the whole training split, as `ImageSet.fingerprint`
    train_images          how many of its images the networks saw
    split_seed            by which these were drawn, see `rows`
    rows_fingerprint      of their indices
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.data.image_sets import ImageSet
from flown_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Indices of the training images of a set.

    Attributes:
      train: that networks were trained on. unseen: all others.
      remark: what is not known of this, in a sentence, or "".
    """

    train: np.ndarray
    unseen: np.ndarray
    remark: str = ""


def rows(count: int, seen: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (seen,) and (count - seen,), sorted: the first of a permutation, and the rest."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[:seen]), np.sort(order[seen:])


def shares(count: int, validation_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As `rows`, the second having a share of all images, rounded.

    Raises:
      UserError: a share that leaves no images to train on.
    """
    if not 0 <= validation_share < 1:
        raise UserError(
            f"data.validation_share is {validation_share}; it is a share from 0 below 1."
        )
    return rows(count, count - round(count * validation_share), seed)


def record(images: ImageSet, chosen: np.ndarray, seed: int) -> dict[str, Any]:
    """What the recipe of a zoo says of the images that its networks saw.

    Args:
      images: the training split. chosen: indices of these, as `rows` draws them with `seed`.
    """
    return {
        "images_fingerprint": images.fingerprint(),
        "train_images": len(chosen),
        "split_seed": seed,
        "rows_fingerprint": _mark(chosen),
    }


def recorded(zoo: str, recipe: Mapping[str, Any], images: ImageSet, otherwise: Split) -> Split:
    """The images that the networks of a zoo saw, as its recipe says.

    Args:
      zoo: its name, for sentences. images: the training split on this disk.
      otherwise: a split of as many images as the recipe says (see `seen`); it is taken, with a
        remark, where the recipe does not say which these were.
    Raises:
      UserError: the networks saw other images than these, or the recipe contradicts itself.
    """
    mark = recipe.get("images_fingerprint")
    if mark is not None and mark != images.fingerprint():
        raise UserError(
            f"{zoo} was trained on another set of images of the name {images.name} than the one "
            f"on this disk ({len(images.labels)} training images): which of these its networks "
            "have seen is not known."
        )
    count = seen(zoo, recipe, images)
    seed = recipe.get("split_seed")
    if mark is None or count is None or seed is None:
        remark = (
            f"{zoo} does not say which images of {images.name} its networks were trained on: "
            "images that are called unseen here may be among them."
        )
        return dataclasses.replace(otherwise, remark=remark)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"{zoo} has split_seed {seed!r} in its recipe; it is a number from 0.")
    train, unseen = rows(len(images.labels), count, seed)
    if recipe.get("rows_fingerprint", _mark(train)) != _mark(train):
        raise UserError(
            f"{zoo} says that its networks saw other images than the {count} that split_seed "
            f"{seed} draws of {images.name}: which ones is not known."
        )
    return Split(train, unseen)


def seen(zoo: str, recipe: Mapping[str, Any], images: ImageSet) -> int | None:
    """How many images the networks of a zoo saw; None where its recipe does not say.

    Raises:
      UserError: no such number, or more than there are.
    """
    count, there = recipe.get("train_images"), len(images.labels)
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UserError(f"{zoo} has train_images {count!r} in its recipe; it is a number above 0.")
    if count > there:
        raise UserError(
            f"{zoo} was trained on {count} images of {images.name}; there are {there} on this "
            "disk, so that they are not the same."
        )
    return count


def copies(images: np.ndarray, of: np.ndarray) -> int:
    """How many images (n, H, W, C) are pixel for pixel among others (m, H, W, C)."""
    known = {image.tobytes() for image in np.ascontiguousarray(of)}
    return sum(image.tobytes() in known for image in np.ascontiguousarray(images))


def _mark(chosen: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(chosen, "<i8").tobytes()).hexdigest()
