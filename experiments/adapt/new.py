"""The data set that a generator is adapted to."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.pictures import divided
from experiments.zoo_targets import Target
from flown_jax.data import image_sets
from flown_jax.data.pictures import Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.networks.class_order import ClassOrder, by_name, by_number


@dataclasses.dataclass(frozen=True, eq=False)
class New:
    """A new data set, whose labels are numbers of classes.

    Attributes:
      name: of the set. class_names: in the order of its labels.
      train: to adapt to. validation: to choose by. test: of the test split.
      order: which output of the networks stands for which class.
      remarks: sentences on these.
    """

    name: str
    class_names: tuple[str, ...]
    train: Pictures
    validation: Pictures
    test: Pictures
    order: ClassOrder
    remarks: tuple[str, ...]

    @property
    def way(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def outputs(self, pictures: Pictures, order: ClassOrder | None = None) -> Pictures:
        """The pictures with numbers of outputs as labels."""
        used = self.order if order is None else order
        return dataclasses.replace(pictures, labels=used.outputs(pictures.labels))


def read(config: ConfigDict, target: Target) -> New:
    """The new set of a target.

    Raises:
      UserError: what cannot be read.
    """
    part, spec = config.targets[target.name], target.spec
    train = image_sets.load(part.new, "train", config.data.dir)
    test = image_sets.load(part.new, "test", config.data.dir)
    split = divided(part.new, None, train, config.data)
    prepare = Preprocessing.from_dict(spec.inputs_dict)

    def pictures(found: image_sets.ImageSet, rows: Any) -> Pictures:
        images = np.pad(found.images[rows], ((0, 0), *((part.margin, part.margin),) * 2, (0, 0)))
        return Pictures(images, found.labels[rows], prepare)

    order, remarks = by_number(len(train.class_names)), []
    if config.adapt.match_names:
        order = by_name(target.class_names, train.class_names)
    if order.matched:
        left = "".join(f"; {new} takes the output of {old}" for old, new in order.left)
        remarks.append(
            f"{len(order.matched)} of {len(train.class_names)} classes of {part.new} have the "
            f"name of one that the networks were made for and its output{left}."
        )
    remarks += _seen(part.new, part.margin, train.images.shape, prepare)
    evaluation = config.evaluation
    limit = slice(0, evaluation.test_images[target.kind] or None)
    return New(
        part.new,
        tuple(train.class_names),
        pictures(train, split.train[: config.data.new_images or None]),
        pictures(train, split.unseen[: evaluation.choice_images or None]),
        pictures(test, limit),
        order,
        tuple(remarks),
    )


def _seen(name: str, margin: int, shape: tuple[int, ...], prepare: Preprocessing) -> list[str]:
    """What the networks' preprocessing makes of images of another size or kind."""
    side, size, found = shape[1] + 2 * margin, prepare.crop or prepare.size, []
    if side != size:
        found.append(f"Images of {name} have {side} x {side} pixels and become {size} x {size}.")
    if shape[-1] > prepare.channels:
        found.append(f"Images of {name} are in colour and become grey.")
    return found
