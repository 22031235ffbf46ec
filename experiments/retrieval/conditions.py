"""The conditions of the data sets: many draws of support images, through a frozen encoder."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.designs import changed
from experiments.features import describe_images, encode, train_encoder
from experiments.retrieval.zoos import Data
from experiments.stages import Stages
from experiments.tasks import caml_stage, conditioner_of, draw_tables
from flown_jax.data.episodes import draw_supports
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.image_encoders import ImageEncoder, encoded
from flown_jax.meta_model.condition import Conditioner
from flown_jax.models.heads import FeatureTransform
from flown_jax.networks.conditions import Conditions, conditions
from flown_jax.training.stages import StageContext, StageResult


@dataclasses.dataclass(frozen=True, eq=False)
class Sight:
    """What makes conditions of images; trained on other images, before everything else.

    Attributes:
      encoder: images to features. transform: of these.
      tasks: training tasks, of CAML and of the statistics of its embeddings.
      caml: finished stage; None where the condition does not have it.
      condition: `entries` and `slot_tasks` of the config.
      image_shape: (H, W, C) of the images that the encoder was trained on.
    """

    encoder: ImageEncoder
    transform: FeatureTransform
    tasks: dict[int, TaskTable]
    caml: StageResult | None
    condition: ConfigDict
    image_shape: tuple[int, ...]

    def conditioner(self) -> Conditioner:
        """Support features to the condition; made again, not stored."""
        return conditioner_of(self.condition, self.tasks, self.caml)


def learn_to_see(stages: Stages, features: ConfigDict, condition: ConfigDict) -> Sight:
    """The image encoder and CAML, all of which runs share.

    Args:
      features, condition: of the config.
    """
    shared = stages.all_common()
    data = describe_images(shared, features.data, features.tasks)
    encoder, _ = train_encoder(shared, features, data)
    raw = encode(shared, features.data, data, encoder)
    tables = draw_tables(features, data, raw)
    caml = caml_stage(shared, features, tables) if "caml" in condition.entries else None
    used = ConfigDict({name: condition[name] for name in ("entries", "slot_tasks")})
    shape = tuple(data.values["image_shape"])
    return Sight(encoder, tables.transform, tables.train, caml, used, shape)


def show_beside(
    stages: Stages, config: ConfigDict, data: Data, known: StageResult, name: str
) -> StageResult:
    """The stage of `show` for a design beside: the main one's where it is shown the same.

    Args:
      known: of the main design. name: of the changes in the config's `beside`.
    """
    other = changed(config, config.beside[name].to_dict())
    if other.condition.to_dict() == config.condition.to_dict():
        return known
    sight = learn_to_see(stages, other.features, other.condition)
    return show(stages, other, data, sight, f"conditions-{name}")


def show(
    stages: Stages, config: ConfigDict, data: Data, sight: Sight, name: str = "conditions"
) -> StageResult:
    """A stage: of every set the conditions of draws of `train` and of `validation` images.

    Of a foreign set there are those of validation images alone: nothing is learned from it.

    Args:
      name: of the stage.
    """
    networks = {name: data.zoos[data.unseen.get(name, name)] for name in data.images}
    inputs = {
        "shown": {name: config.condition[name] for name in ("shot", "pool")},
        "draws": {
            "train": config.condition.draws,
            "validation": max(config.evaluation.draws, config.sampling.samples),
        },
        "sight": sight,
        "sets": list(data.images),
        "classes": {name: n.spec.sizes_dict["num_classes"] for name, n in networks.items()},
        "train": data.pictures("train"),
        "validation": {name: images.validation for name, images in data.images.items()},
    }
    return stages.common(name, inputs, _show)


def _show(context: StageContext) -> dict[str, Any]:
    given, sight = context.inputs, context.inputs.sight
    conditioner = sight.conditioner()
    found: dict[str, dict[str, Conditions]] = {"train": {}, "validation": {}}
    for number, name in enumerate(given.sets):
        for kind in found:
            if name not in getattr(given, kind):
                continue
            pictures = getattr(given, kind)[name]
            supports = draw_supports(
                2 * number + (kind == "train"),
                pictures.labels,
                given.classes[name],
                draws=given.draws[kind],
                **given.shown,
            )
            used, index = np.unique(supports, return_inverse=True)
            images, channels = pictures.images[used], sight.image_shape[-1]
            features = encoded(sight.encoder, sight.transform, images, channels)
            own = conditions(conditioner, features, index.reshape(supports.shape))
            found[kind][name] = own
    return found
