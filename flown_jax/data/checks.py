"""What raw files must be to become an image set, and how a set differs from the official one."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from flown_jax.data.catalogue import Facts
from flown_jax.data.formats import Raw, RawSplit
from flown_jax.errors import UserError

# The first labels of the test files of the three sets whose files have the same names.
_FIRST_TEST_LABELS = {
    "mnist": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6],
    "fashion_mnist": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 4, 5],
    "kmnist": [2, 9, 3, 8, 3, 3, 8, 3, 2, 5, 6, 3],
}


def check_split(
    official: Facts, split: str, part: RawSplit, shapes: dict[str, tuple[int, int]]
) -> None:
    """Raises UserError if decoded images are not what the set has; notes count and side."""
    name = f"{official.name}'s {split} split"
    count, height, width, channels = part.images.shape
    if count == 0 or count != len(part.labels):
        raise UserError(f"{name} has {count:,} images and {len(part.labels):,} labels.")
    if channels != official.channels or height != width:
        raise UserError(
            f"{name} has images of {height} x {width} x {channels}; squares of "
            f"{official.channels} channel{'s' if official.channels > 1 else ''} are expected."
        )
    for other, (_, side) in shapes.items():
        if side != height:
            raise UserError(f"{name} has images of side {height}, the {other} split of {side}.")
    shapes[split] = (count, height)
    if split in official.unlabelled:
        return
    classes = official.classes_of(split)
    outside = (part.labels < classes.start) | (part.labels >= classes.stop)
    if outside.any():
        index = int(np.argmax(outside))
        raise UserError(
            f"{name} has the label {part.labels[index]} at image {index}; its labels are "
            f"{classes.start} to {classes.stop - 1}."
        )
    present = len(np.unique(part.labels))
    if present != len(classes):
        raise UserError(f"{name} has images of {present} classes; {len(classes)} are expected.")


def refuse_another_set(name: str, raw: Raw) -> None:
    """Raises UserError if the test labels begin as those of a set with the same file names."""
    if name not in _FIRST_TEST_LABELS:
        return
    labels = raw.splits["test"]().labels
    for other, first in _FIRST_TEST_LABELS.items():
        if other != name and labels[: len(first)].tolist() == first:
            raise UserError(
                f"{raw.files[0]} belongs to {other}, not to {name}: its test labels begin with "
                f"{' '.join(str(label) for label in first)}."
            )


def require_splits(official: Facts, raw: Raw) -> None:
    """Raises UserError if a split is missing that is not optional."""
    for split in official.counts:
        if split not in raw.splits and split not in official.optional:
            raise UserError(f"{raw.files[0]} has no {split} images.")


def differences(official: Facts, raw: Raw, splits: Collection[str], side: int) -> list[str]:
    """What the set is not, compared to the official one, besides its counts."""
    notes = []
    if side != official.side:
        notes.append(
            f"the images are {side} x {side}; the official ones are {official.side} x "
            f"{official.side}"
        )
    for split in official.counts:
        if split not in splits:
            notes.append(f"there is no {split} split")
    if raw.class_names:
        notes.append("the classes are not the usual ones")
    return notes
