"""The zoos that networks are generated like: their networks, in one order, and their images."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import one_zoo
from experiments.own_zoos import seeds_zoo, trajectory, trajectory_zoo
from experiments.pictures import divided
from experiments.stages import Stages
from flown_jax.data import image_sets
from flown_jax.data.pictures import Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.evaluation.vectors import predictions
from flown_jax.models.cnn import CNN
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training.fingerprints import digest
from flown_jax.training.stages import StageContext
from flown_jax.weights.alignment import Reference, align, apply_reference
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec

ZOO = OfSet("zoo")
STATES, SEEDS = "states", "seeds"
KINDS = (STATES, SEEDS)
_ALIGNED_ON = 200  # images
_ROUNDS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """One zoo, as everything that generates and measures takes it.

    Attributes:
      name: of the target. kind: `states` of one network, or networks of several `seeds`.
      spec: of the weights. base: variables around weights that are a part of a network; else None.
      train, held_out: (N, D) and (H, D).
      images: that the networks saw. choice: to choose by. test: of the test split.
      class_names: in the order of the outputs.
      remarks: sentences on these.
    """

    name: str
    kind: str
    spec: WeightSpec
    base: Any
    train: np.ndarray
    held_out: np.ndarray
    images: Pictures
    choice: Pictures
    test: Pictures
    class_names: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def cnn(self) -> bool:
        """Whether the vectors are whole CNNs, whose units can be matched."""
        return not self.spec.partial and isinstance(self.spec.module(), CNN)

    @functools.cached_property
    def unit(self) -> str:
        """Fingerprint of what the rows of this target share: its zoo and the test images."""
        return digest({"train": self.train, "held_out": self.held_out, "images": self.test})

    def space(self) -> NetworkSpace:
        """The weights, standardised."""
        bases = None if self.base is None else {ZOO.name: self.base}
        return NetworkSpace.fit(self.joint, {ZOO.name: self.train}, bases)

    @property
    def joint(self) -> JointSpace:
        """The spec, as spaces of networks take it."""
        return JointSpace.of({ZOO.name: self.spec})


def read(stages: Stages, config: ConfigDict, name: str) -> Target:
    """A target of a config; a zoo without a folder is trained first.

    Raises:
      UserError: what `one_zoo.read` refuses, or a zoo of the other kind.
    """
    part = config.targets[name]
    found = one_zoo.read(part.zoo or trained(stages, config, name), config.held_out_every)
    kind = STATES if found.single else SEEDS
    train_set = image_sets.load(found.dataset, "train", config.data.dir)
    test_set = image_sets.load(found.dataset, "test", config.data.dir)
    split = divided(found.dataset, found.zoo.recipe, train_set, config.data)
    prepare = Preprocessing.from_dict(found.spec.inputs_dict)

    def pictures(images: image_sets.ImageSet, rows: Any) -> Pictures:
        return Pictures(images.images[rows], images.labels[rows], prepare)

    remarks = [split.remark] if split.remark else []
    unseen = split.unseen
    if not len(unseen):
        unseen = split.train
        remarks.append(
            "The networks saw all training images: what is chosen is chosen on images that they "
            "were trained on."
        )
    judged = config.evaluation.choice_images
    images = pictures(train_set, split.train)
    choice = pictures(train_set, unseen[: judged or None])
    train, held_out = found.train, found.held_out
    if part.align:
        inputs = {
            "spec": found.spec,
            "train": train,
            "held_out": held_out,
            "images": pictures(train_set, split.train[:_ALIGNED_ON]),
            "choice": choice,
        }
        aligned = stages.common(f"{name}-aligned", inputs, _align)
        train, held_out = aligned.values["train"], aligned.values["held_out"]
    limit = slice(0, config.evaluation.test_images[kind] or None)
    test = pictures(test_set, limit)
    base = found.base if found.spec.partial else None
    return Target(
        name,
        kind,
        found.spec,
        base,
        train,
        held_out,
        images,
        choice,
        test,
        tuple(test_set.class_names),
        tuple(remarks),
    )


def trained(stages: Stages, config: ConfigDict, name: str) -> Any:
    """The folder of a target's zoo that is trained here."""
    part = config.targets[name]
    if part.kind == SEEDS:
        return seeds_zoo(stages, part.variant, config.data.dir, config.trained)
    return trajectory_zoo(stages, trajectory_of(config, name))


def trajectory_of(config: ConfigDict, name: str) -> ConfigDict:
    """The config of a target's trajectory; zeros take the variant's own."""
    own, part = config.trajectory, config.targets[name]
    changes: dict[str, Any] = {"seed": own.seed}
    if own.epochs:
        changes["base"] = {"epochs": own.epochs}
    if states := {field: own[field] for field in ("count", "every") if own[field]}:
        changes["states"] = states
    if own.test_images:
        changes["data"] = {"test_images": own.test_images}
    return trajectory(part.variant, config.data.dir, changes)


def _align(context: StageContext) -> dict[str, Any]:
    """Units in the order of the network that is best on the images to choose by."""
    given = context.inputs
    apply = given.choice.preprocessing.apply
    found = predictions(given.spec, given.train, given.choice.images, apply)
    best = int((found == given.choice.labels).mean(1).argmax())
    aligned = align(
        given.spec, given.train, given.images.inputs, reference=given.train[best], rounds=_ROUNDS
    )
    reference = Reference(aligned.reference.images, aligned.reference.activations)
    others = apply_reference(given.spec, given.held_out, reference)
    return {"train": aligned.weights, "held_out": others.weights}
