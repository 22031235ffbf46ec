"""The images of the run's data sets as their networks see them."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flown_jax.data import image_sets, splits
from flown_jax.data.pictures import Images, Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.weights.zoo import Zoo


def read_images(
    name: str,
    zoo: Zoo,
    data: ConfigDict,
    *,
    foreign: bool = False,
    test_images: int = 0,
    margin: int = 0,
) -> tuple[str, Images]:
    """What is not known of the images that networks saw, a sentence or "", and all images.

    Args:
      zoo: whose networks shall see them.
      data: `dir`, `validation_share` and `split_seed` of the config: the split of a foreign set,
        and of one whose zoo does not say which images its networks saw.
      foreign: the zoo is of another set; none of its networks was trained on these images.
      test_images: the first so many; 0 for all. margin: pixels of black around the images.
    Raises:
      UserError: a zoo that does not tell its preprocessing, was trained on other images, or left
        none.
    """
    if not zoo.spec.inputs_dict:
        raise UserError(
            f"the zoo of {name} does not say how its images were preprocessed: import it with "
            "--inputs."
        )
    preprocessing = Preprocessing.from_dict(zoo.spec.inputs_dict)
    train = image_sets.load(name, "train", data.dir)
    test = image_sets.load(name, "test", data.dir)
    parted = divided(name, None if foreign else zoo.recipe, train, data)
    if not len(parted.unseen):
        raise UserError(
            f"the networks of {name} saw all of its training images: none are left for choices and "
            "support images."
        )

    def part(found: image_sets.ImageSet, chosen: Any) -> Pictures:
        return Pictures(_framed(found.images[chosen], margin), found.labels[chosen], preprocessing)

    limit = slice(0, test_images or None)
    parts = part(train, parted.train), part(train, parted.unseen), part(test, limit)
    return parted.remark, Images(*parts, train.class_names)


def divided(
    name: str, recipe: dict[str, Any] | None, train: image_sets.ImageSet, data: ConfigDict
) -> splits.Split:
    """The training images that networks of a zoo saw, and the others.

    Args:
      recipe: of the zoo; None for a set that no networks were trained on.
    """
    zoo, count = f"the zoo of {name}", len(train.labels)
    drawn = splits.Split(*splits.shares(count, data.validation_share, data.split_seed))
    if recipe is None:
        return drawn
    if (seen := splits.seen(zoo, recipe, train)) is not None:
        drawn = splits.Split(*splits.rows(count, seen, data.split_seed))
    return splits.recorded(zoo, recipe, train, drawn)


def copies(images: Images) -> list[str]:
    """Sentences on unseen and test images that are training images all the same."""
    found = []
    for kind, own in (("unseen", images.validation), ("test", images.test)):
        if count := splits.copies(own.images, images.train.images):
            found.append(
                f"{count} of the {len(own.labels)} {kind} images are pixel for pixel among those "
                "that the networks were trained on."
            )
    return found


def _framed(images: np.ndarray, margin: int) -> np.ndarray:
    """Images with a black margin of so many pixels."""
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
