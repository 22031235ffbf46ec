"""Stages that experiments with images share: class images, a frozen encoder, its features.

Backbones and features do not depend on what is learned from them: runs beside each other share
them.
"""

from __future__ import annotations

import functools
import json
from importlib.metadata import version
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.settings import check_sizes
from experiments.stages import Stages, recipe
from flown_jax import image_encoders
from flown_jax.data import datasets, image_sets
from flown_jax.data.datasets import ClassImages, FewShotData
from flown_jax.image_encoders import ImageEncoder
from flown_jax.image_encoders.backbone import resized, train_backbone
from flown_jax.models.resnet12 import ResNet12
from flown_jax.training.fingerprints import Deferred
from flown_jax.training.stages import StageContext, StageResult


def encoder_sentence(encoder: ConfigDict, shown: str) -> str:
    """What is not known of a frozen encoder that was not trained here; else ""."""
    if encoder.kind == "trained":
        return ""
    return (
        f" Which images the encoder ({encoder.kind}) was trained on is not known here: {shown} may "
        "be among them."
    )


def images_of(data: ConfigDict) -> FewShotData:
    """All images of a config's `data`; read once."""
    return _read(data.to_json_best_effort())


@functools.lru_cache(maxsize=1)
def _read(data: str) -> FewShotData:
    return datasets.few_shot(**json.loads(data))


def describe_images(stages: Stages, data: ConfigDict, tasks: ConfigDict) -> StageResult:
    """What the images are, without the images; sets that are too small for the tasks are refused.

    They are read again where their files have changed: other images are another input of the
    stage `data`.

    Args:
      data: where they come from. tasks: `settings`, `query`, `way` and `shots` of the config.
    """
    needed = {name: tasks[name] for name in ("settings", "query", "way", "shots")}
    inputs = {"data": data, "tasks": needed}
    looked = {**inputs, "files": image_files(data), "versions": _versions()}
    found = stages.each("images", looked, _describe)
    return stages("data", {**inputs, "images": found.values}, _kept)


def image_files(data: ConfigDict) -> list[list[Any]]:
    """Path, size and times of every file of the image sets that a config's `data` names."""
    if "data_dir" not in data:
        return []  # drawn here
    root, found = image_sets.local_folder(data.data_dir), []
    for name in (data.name, *data.foreign):
        for path in sorted((root / name).rglob("*")):
            if path.is_file():
                of = path.stat()
                times = [of.st_mtime_ns, of.st_ctime_ns]
                found.append([str(path.relative_to(root)), of.st_size, *times])
    return found


def _versions() -> list[str]:
    """Of the packages that draw or hold images."""
    return [f"{name} {version(name)}" for name in ("matplotlib", "numpy", "scikit-learn")]


def _kept(context: StageContext) -> dict[str, Any]:
    return dict(context.inputs.images)


def _describe(context: StageContext) -> dict[str, Any]:
    given = context.inputs
    images = images_of(given.data)
    check_sizes(images, given.data.name, given.tasks)
    for name in images.absent:
        print(f"{name} is not on this disk and is left out", flush=True)
    return {
        "classes": images.classes.fingerprint(),
        "class_names": list(images.classes.names),
        "image_shape": list(images.classes.images[0].shape[1:]),
        "split": images.split,
        "foreign": {name: part.fingerprint() for name, part in images.foreign.items()},
        "titles": images.titles,
        "absent": list(images.absent),
    }


def marks(found: StageResult) -> dict[str, str]:
    """Fingerprints of the images: `classes`, and every foreign set."""
    return {"classes": found.values["classes"], **found.values["foreign"]}


def _deferred(data: ConfigDict, found: StageResult, name: str) -> Deferred:
    """The images `classes` or of a foreign set, if they are still those of the stage `data`."""

    def make() -> ClassImages | None:
        images = images_of(data)
        return images.classes if name == "classes" else images.foreign.get(name)

    what = data.name if name == "classes" else name
    return Deferred(marks(found)[name], make, f"the images of {what}")


def train_encoder(
    stages: Stages, config: ConfigDict, found: StageResult
) -> tuple[ImageEncoder, float | None]:
    """The image encoder, and its accuracy on its training images where it is trained here.

    Args:
      config: with `encoder`, `backbone`, `data` and `seed`.
    """
    encoder, backbone = config.encoder, config.backbone
    form = {"side": encoder.side, "mirror": encoder.mirror}
    if encoder.kind == "function":
        return image_encoders.from_function(encoder.function, **form), None
    form |= {"mean": tuple(encoder.mean), "std": tuple(encoder.std)}
    if encoder.kind != "trained":
        return image_encoders.from_weights(encoder.kind, encoder.weights, **form), None
    inputs = {
        "backbone": ConfigDict({k: v for k, v in backbone.items() if k != "seed"}),
        "seed": seed_of(backbone, config.seed),
        "side": encoder.side,
        "classes": _deferred(config.data, found, "classes"),
        "train": found.values["split"]["train"],
    }
    trained = stages.common("backbone", inputs, _train_backbone)
    module = ResNet12(channels=tuple(backbone.channels))
    return (
        image_encoders.from_module(module, trained.values["variables"], **form),
        trained.values["train_accuracy"],
    )


def _train_backbone(context: StageContext) -> dict[str, Any]:
    """ResNet-12, trained to tell the meta-train classes apart."""
    given, config = context.inputs, context.inputs.backbone
    module = ResNet12(channels=tuple(config.channels), num_classes=len(given.train))
    every = given.classes().images
    classes = [every[c] for c in given.train]
    count = min(len(part) for part in classes)
    if config.images_per_class:
        count = min(count, config.images_per_class)
    parts = [part[:count] for part in classes]
    images = np.stack([resized(part, given.side) if given.side else part for part in parts])
    trained = train_backbone(
        context, module, images, recipe(config), seed=given.seed, augmentation=config.augmentation
    )
    params = dict(trained["variables"]["params"])
    del params["classifier"]
    return {**trained, "variables": {**trained["variables"], "params": params}}


def encode(
    stages: Stages, data: ConfigDict, found: StageResult, encoder: ImageEncoder
) -> dict[str, list[np.ndarray]]:
    """Features by class: of all splits' classes and of every foreign set."""
    features = {}
    for name in marks(found):
        inputs = {"encoder": encoder, "images": _deferred(data, found, name)}
        values = stages.common(f"features-{name}", inputs, _encode).values
        features[name] = np.split(values["features"], np.cumsum(values["counts"])[:-1])
    return features


def _encode(context: StageContext) -> dict[str, Any]:
    encoder = context.inputs.encoder
    rows = [encoder.features(images) for images in context.inputs.images().images]
    return {"features": np.concatenate(rows), "counts": [len(r) for r in rows]}


def seed_of(part: ConfigDict, seed: int) -> int:
    """The seed of a part of a config; -1 there is the run's."""
    return seed if part.seed < 0 else part.seed
