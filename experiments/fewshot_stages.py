"""The first stages of the few-shot experiment: images, features, tasks, target heads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.fewshot_settings import Setting, settings
from experiments.stages import Stages
from flown_jax.data import datasets
from flown_jax.data.datasets import ClassImages, FewShotData
from flown_jax.errors import UserError
from flown_jax.few_shot import training
from flown_jax.few_shot.selection import choose_baselines
from flown_jax.few_shot.space import HeadSpace, fit_head_space
from flown_jax.few_shot.tasks import TaskTable, draw_tasks
from flown_jax.few_shot.training import Examples
from flown_jax.image_encoders import encoder as image_encoder
from flown_jax.image_encoders.backbone import resized, train_backbone
from flown_jax.image_encoders.encoder import ImageEncoder
from flown_jax.models.heads import FeatureTransform
from flown_jax.models.resnet12 import ResNet12
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult, fingerprint
from flown_jax.training.workdir import Workdir

PROBE = ("steps", "learning_rate", "weight_decay", "use_bias")
IN_DISTRIBUTION = "in_distribution"


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tasks of a run.

    Attributes:
      transform: of the features.
      train: for each trained number of support images a class.
      held_out: of validation classes, with the ways and shots of the training tasks.
      validation: for each setting.
      test: set name -> for each setting.
      learned_from: fingerprint of training and validation tasks and their features.
      fingerprint: of the test tasks and their features.
    """

    transform: FeatureTransform
    train: dict[int, TaskTable]
    held_out: dict[int, TaskTable]
    validation: dict[Setting, TaskTable]
    test: dict[str, dict[Setting, TaskTable]]
    learned_from: str
    fingerprint: str


class FewShot(Stages):
    """The stages of one run, each a method; a stage is computed once and then kept.

    Backbones, features, baselines' choices and target heads do not depend on what is learned from
    them: runs beside each other share them.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir) -> None:
        super().__init__(config, workdir)
        self.settings = settings(config)

    @functools.cached_property
    def images(self) -> FewShotData:
        """All images; read when a stage needs them."""
        return datasets.few_shot(**self.config.data)

    def seed(self, part: ConfigDict) -> int:
        """The seed of a part of the config; -1 there is the run's."""
        return self.config.seed if part.seed < 0 else part.seed

    def data(self) -> StageResult:
        """What the images are, without the images."""

        def function(_: StageContext) -> dict[str, Any]:
            images = self.images
            self._check_sizes(images)
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

        tasks = {name: self.config.tasks[name] for name in ("settings", "query", "way", "shots")}
        return self.stage("data", {"data": self.config.data, "tasks": tasks}, function)

    def _check_sizes(self, images: FewShotData) -> None:
        """Every setting finds its classes and images, before anything is trained."""
        parts = {
            f"the {name} classes of {self.config.data.name}": [
                images.classes.images[c] for c in ids
            ]
            for name, ids in images.split.items()
        }
        parts |= {
            f"the classes of {name}": list(part.images) for name, part in images.foreign.items()
        }
        trained = [Setting(self.config.tasks.way, shot) for shot in self.config.tasks.shots]
        for where, classes in parts.items():
            smallest = min(len(part) for part in classes)
            for setting in trained if where.startswith("the train") else self.settings:
                setting.check(where, len(classes), smallest, self.config.tasks.query)

    def _read(self, name: str, data: StageResult) -> ClassImages:
        """The images `classes` or of a foreign set, if they are still those of the stage `data`."""
        every: dict[str, ClassImages] = {"classes": self.images.classes, **self.images.foreign}
        marks = {"classes": data.values["classes"], **data.values["foreign"]}
        if name not in every or every[name].fingerprint() != marks[name]:
            what = self.config.data.name if name == "classes" else name
            raise UserError(
                f"the images of {what} are no longer those that {self.workdir.path} was begun "
                "with: choose a new --workdir."
            )
        return every[name]

    def encoder(self, data: StageResult) -> tuple[ImageEncoder, float | None]:
        """The image encoder, and its accuracy on its training images where it is trained here."""
        config = self.config.encoder
        form = {"side": config.side, "mirror": config.mirror}
        if config.kind == "function":
            return image_encoder.from_function(config.function, **form), None
        form |= {"mean": tuple(config.mean), "std": tuple(config.std)}
        if config.kind != "trained":
            return image_encoder.from_weights(config.kind, config.weights, **form), None
        trained = self._backbone(data)
        module = ResNet12(channels=tuple(self.config.backbone.channels))
        return (
            image_encoder.from_module(module, trained.values["variables"], **form),
            trained.values["train_accuracy"],
        )

    def _backbone(self, data: StageResult) -> StageResult:
        """ResNet-12, trained to tell the meta-train classes apart."""
        config = self.config.backbone
        seed, side = self.seed(config), self.config.encoder.side
        train = data.values["split"]["train"]

        def function(context: StageContext) -> dict[str, Any]:
            module = ResNet12(channels=tuple(config.channels), num_classes=len(train))
            every = self._read("classes", data).images
            classes = [every[c] for c in train]
            count = min(len(part) for part in classes)
            if config.images_per_class:
                count = min(count, config.images_per_class)
            images = np.stack(
                [resized(part[:count], side) if side else part[:count] for part in classes]
            )
            trained = train_backbone(
                context, module, images, recipe(config), seed=seed, augmentation=config.augmentation
            )
            params = dict(trained["variables"]["params"])
            del params["classifier"]
            return {**trained, "variables": {**trained["variables"], "params": params}}

        inputs = {
            "backbone": {k: v for k, v in config.items() if k != "seed"},
            "seed": seed,
            "side": side,
            "classes": data.values["classes"],
            "train": data.values["split"]["train"].tolist(),
        }
        return self.common("backbone", inputs, function)

    def features(self, data: StageResult, encoder: ImageEncoder) -> dict[str, list[np.ndarray]]:
        """Features by class: of all splits' classes and of every foreign set."""
        marks = {"classes": data.values["classes"], **data.values["foreign"]}
        found = {}
        for name, mark in marks.items():

            def function(_: StageContext, name: str = name) -> dict[str, Any]:
                rows = [encoder.features(images) for images in self._read(name, data).images]
                return {"features": np.concatenate(rows), "counts": [len(r) for r in rows]}

            inputs = {"encoder": encoder.fingerprint(), "images": mark}
            values = self.common(f"features-{name}", inputs, function).values
            found[name] = np.split(values["features"], np.cumsum(values["counts"])[:-1])
        return found

    def tables(
        self, data: StageResult, encoder: ImageEncoder, raw: Mapping[str, list[np.ndarray]]
    ) -> Tables:
        """The transform of features and the tasks of every set; recomputed, not stored."""
        config, seed = self.config.tasks, self.seed(self.config.tasks)
        split = {
            name: [raw["classes"][c] for c in ids] for name, ids in data.values["split"].items()
        }
        width = split["train"][0].shape[-1]
        transform = FeatureTransform.fit(
            jnp.asarray(np.concatenate(split["train"])),
            scale=width**0.5,
            unit_first=self.config.transform.unit_first,
        )
        sets = {"train": split["train"], "validation": split["validation"]}
        sets |= {IN_DISTRIBUTION: split["test"]}
        sets |= {name: raw[name] for name in data.values["foreign"]}
        features = {name: _by_class(transform, classes) for name, classes in sets.items()}
        keys = dict(
            zip(features, jax.random.split(jax.random.key(seed), len(features)), strict=True)
        )

        def draw(name: str, index: int, **sizes: Any) -> TaskTable:
            key = jax.random.fold_in(keys[name], index) if index else keys[name]
            classes = features[name]
            return draw_tasks(key, classes, np.arange(len(classes)), query=config.query, **sizes)

        def of(name: str, count: int) -> dict[Setting, TaskTable]:
            return {
                s: draw(name, i, way=s.way, shot=s.shot, count=count)
                for i, s in enumerate(self.settings)
            }

        train = {
            shot: draw(
                "train",
                i,
                way=config.way,
                shot=shot,
                count=config.train // len(config.shots),
                target_shots=max(shot, self.config.targets.shots),
            )
            for i, shot in enumerate(config.shots)
        }
        held_out = {
            shot: draw("validation", 100 + i, way=config.way, shot=shot, count=config.validation)
            for i, shot in enumerate(config.shots)
        }
        counts = ("test", "train_query", "seed")
        known = {
            "seed": seed,
            "tasks": {name: value for name, value in config.items() if name not in counts},
            "encoder": encoder.fingerprint(),
            "transform": self.config.transform,
            "classes": data.values["classes"],
            "split": {name: ids.tolist() for name, ids in data.values["split"].items()},
            "targets": self.config.targets.shots,
        }
        tested = {"test": config.test, "foreign": data.values["foreign"]}
        test = [IN_DISTRIBUTION, *data.values["foreign"]]
        return Tables(
            transform,
            train,
            held_out,
            of("validation", config.validation),
            {name: of(name, config.test) for name in test},
            fingerprint("learned from", known),
            fingerprint("tasks", {**known, **tested}),
        )

    def baselines(self, tables: Tables) -> StageResult:
        """What validation tasks choose for the probe, ridge and logistic regression."""
        config = self.config

        def function(_: StageContext) -> dict[str, Any]:
            probe = {name: config.probe[name] for name in PROBE}
            return {
                setting.name: choose_baselines(
                    table,
                    probe,
                    lengths=config.probe.lengths,
                    l2=config.ridge.l2,
                    inverse_penalties=config.logistic.inverse_penalties,
                )
                for setting, table in tables.validation.items()
            }

        inputs = {
            "probe": config.probe,
            "ridge": config.ridge,
            "logistic": config.logistic,
            "tasks": tables.learned_from,
        }
        return self.common("baselines", inputs, function)

    def heads(self, tables: Tables, chosen: StageResult) -> StageResult:
        """The target heads of all training tasks, and their space."""
        config = self.config.targets
        length = chosen.values[self.settings[0].name]["length"]
        probe = {name: self.config.probe[name] for name in PROBE}

        def function(context: StageContext) -> dict[str, Any]:
            heads: dict[int, np.ndarray] = {}
            temperatures: dict[int, float] = {}
            scales: dict[int, float] = {}
            sharpness: dict[int, float] = {}
            for shot, table in tables.train.items():
                if config.kind == "lda":
                    found = training.fit_lda(table, shrinkage=config.shrinkage)
                else:
                    with context.records.progress(f"heads of {shot} shots", len(table)) as update:
                        found = training.fit_heads(table, length=length, report=update, **probe)
                some = slice(0, 2000)
                query, prototypes = table.query(some), table.prototypes(some)
                temperature = training.best_head_temperature(
                    found[some], query, tuple(config.temperatures)
                )
                grid = tuple(config.base_scales)
                scales[shot] = training.best_base_scale(prototypes, query, grid) if grid else 0.0
                sharpness[shot] = 1.0
                if config.sharpened:
                    held = tables.held_out[shot]
                    sharpness[shot] = training.excess_sharpness(
                        (prototypes, query), (held.prototypes(), held.query())
                    )
                scales[shot] /= sharpness[shot]
                temperatures[shot] = temperature * sharpness[shot]
                heads[shot] = found / temperatures[shot]
            space = fit_head_space(
                [jnp.asarray(found) for found in heads.values()],
                [jnp.asarray(table.prototypes()) for table in tables.train.values()],
                shots=tuple(heads),
                base_scales=tuple(scales.values()),
                centred=config.centred,
                standardise=config.standardised,
                sharpness=tuple(sharpness.values()),
            )
            return {
                "heads": {str(shot): found for shot, found in heads.items()},
                "space": {
                    "base_scales": space.base_scales,
                    "scale": space.scale,
                    "sharpness": space.sharpness,
                },
                "chosen": {
                    "target_temperature": {str(k): v for k, v in temperatures.items()},
                    "base_scale": {str(k): v for k, v in scales.items()},
                    "sharpness": {str(k): v for k, v in sharpness.items()},
                },
            }

        inputs = {"targets": config, "probe": self.config.probe, "length": length}
        return self.common("heads", {**inputs, "tasks": tables.learned_from}, function)

    def space(self, heads: StageResult) -> HeadSpace:
        """The head space of finished target heads."""
        arrays = jax.tree.map(jnp.asarray, heads.values["space"])
        shots = tuple(self.config.tasks.shots)
        return HeadSpace(**arrays, shots=shots, centred=self.config.targets.centred)

    def examples(self, heads: StageResult, tables: Tables) -> list[Examples]:
        """Training tasks with their heads, a table for each number of support images."""
        found = heads.values["heads"]
        return [Examples(table, found[str(shot)]) for shot, table in tables.train.items()]


def _by_class(transform: FeatureTransform, classes: list[np.ndarray]) -> Any:
    """Transformed features, as one array where all classes have equally many images."""
    rows = [np.asarray(transform.apply(jnp.asarray(part))) for part in classes]
    return np.stack(rows) if len({len(part) for part in rows}) == 1 else rows


def recipe(part: ConfigDict) -> Recipe:
    """The recipe of a part of the config; a zero there means none."""
    values = part.recipe.to_dict()
    for name in ("clip", "ema_decay", "validate_every"):
        values[name] = values[name] or None
    return Recipe(**values)
