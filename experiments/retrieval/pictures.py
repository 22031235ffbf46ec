"""The images of the run's data sets as their networks see them."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.zoo_training import split
from flown_jax.data import image_sets
from flown_jax.data.pictures import Images, Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.weights.spec import WeightSpec


def read_images(
    name: str,
    spec: WeightSpec,
    data: ConfigDict,
    *,
    seen: int | None = None,
    test_images: int = 0,
    margin: int = 0,
) -> Images:
    """The images of a data set.

    Args:
      spec: of the networks that shall see them.
      data: `dir`, `validation_share` and `split_seed` of the config.
      seen: images that its networks were trained on; None takes the config's share.
      test_images: the first so many; 0 for all. margin: pixels of black around the images.
    Raises:
      UserError: a zoo that does not tell its preprocessing or left no images.
    """
    if not spec.inputs_dict:
        raise UserError(
            f"the zoo of {name} does not say how its images were preprocessed: import it with "
            "--inputs."
        )
    preprocessing = Preprocessing.from_dict(spec.inputs_dict)
    train = image_sets.load(name, "train", data.dir)
    test = image_sets.load(name, "test", data.dir)
    count = len(train.labels)
    share = 1 - seen / count if seen else data.validation_share
    rows, rest = split(
        count, ConfigDict({"validation_share": share, "split_seed": data.split_seed})
    )
    if not len(rest):
        raise UserError(
            f"the networks of {name} saw all of its training images: none are left for choices and "
            "support images."
        )

    def part(found: image_sets.ImageSet, chosen: Any) -> Pictures:
        return Pictures(_framed(found.images[chosen], margin), found.labels[chosen], preprocessing)

    limit = slice(0, test_images or None)
    return Images(part(train, rows), part(train, rest), part(test, limit), train.class_names)


def _framed(images: np.ndarray, margin: int) -> np.ndarray:
    """Images with a black margin of so many pixels."""
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
