"""Small prepared image sets, as `experiments.prepare_data` leaves them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from flown_jax.data import array_record
from flown_jax.data.catalogue import facts
from flown_jax.data.formats import RawSplit
from tests.data import raw_files


def write(folder: pathlib.Path, name: str, side: int, per_class: Mapping[str, int]) -> None:
    """Write a set of random colour images of so many a class and split."""
    official, parts = facts(name), {}
    for seed, (split, count) in enumerate(per_class.items()):
        classes = official.classes_of(split)
        labels = np.repeat(np.arange(classes.start, classes.stop), count).astype(np.int32)
        images = raw_files.pictures(len(labels), side, 3, seed)
        # A class has a brightness of its own: there is something to learn.
        images = (0.5 * images + 120 * (labels % 16)[:, None, None, None] / 15).astype(np.uint8)
        parts[split] = RawSplit(images, labels)
    array_record.write(
        folder,
        official,
        {split: lambda part=part: part for split, part in parts.items()},
        side=side,
        class_names=official.class_names,
        description="test",
    )
