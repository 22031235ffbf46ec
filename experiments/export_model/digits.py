"""A meta-model on the embedded handwritten digits: before it is stored in few bits, and after."""

from __future__ import annotations

import dataclasses

import numpy as np

from flown_jax import MetaModel
from flown_jax.data import image_sets
from flown_jax.errors import UserError

SHOTS, SAMPLES = 5, 20


@dataclasses.dataclass(frozen=True)
class Shown:
    """Accuracies of averaged networks on the test images.

    Attributes:
      run, stored: by the run's meta-model and by the stored one.
      classes, images: how many of them.
    """

    run: float
    stored: float
    classes: int
    images: int


def accuracies(run: MetaModel, stored: MetaModel) -> Shown | None:
    """Both meta-models, shown five images of each class; None where they take no digits."""
    if not run.conditional:
        return None
    classes = 10 if run.any_way or run.way is None else run.way
    test = image_sets.load("digits", "test")
    kept = test.labels < classes
    found = []
    for model in (run, stored):
        try:
            networks = model.generate(*support(classes), samples=SAMPLES)
            answers = networks.predict(test.images[kept]).argmax(-1)
        except UserError:  # images of another size, or no such data set
            return None
        right = np.asarray(networks.classes)[answers] == test.labels[kept]
        found.append(float(right.mean()))
    return Shown(found[0], found[1], classes, int(kept.sum()))


def support(classes: int) -> tuple[np.ndarray, list[int]]:
    """The first five training images of each of the first classes, and their labels."""
    train = image_sets.load("digits", "train")
    rows = np.concatenate([np.flatnonzero(train.labels == c)[:SHOTS] for c in range(classes)])
    return train.images[rows], [int(c) for c in train.labels[rows]]
