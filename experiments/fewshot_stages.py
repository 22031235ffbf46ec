"""The stages of the few-shot experiment: config in, finished results out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flown_jax.conditioning import CAML
from flown_jax.data import datasets
from flown_jax.few_shot import training
from flown_jax.few_shot.backbone import extract_features, train_backbone
from flown_jax.few_shot.codec import Standardiser
from flown_jax.few_shot.generator import Conditioner, LatentSpace
from flown_jax.few_shot.parts import build_codec
from flown_jax.few_shot.selection import choose_lengths
from flown_jax.few_shot.space import HeadSpace, fit_head_space
from flown_jax.few_shot.tasks import TaskTable, draw_tasks
from flown_jax.models.heads import FeatureTransform
from flown_jax.models.resnet12 import ResNet12
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult, stage
from flown_jax.training.workdir import Workdir

CAML_SIZES = ("num_classes", "label_dim", "num_layers", "num_heads", "mlp_dim")
_CODEC_LOSS = ("reconstruction", "kl_weight", "sigma_in", "sigma_lat", "task_weight")


class FewShot:
    """The stages of one run, each a method; a stage is computed once and then kept."""

    def __init__(self, config: ConfigDict, workdir: Workdir) -> None:
        self.config, self.workdir = config, workdir
        self.seconds = 0.0

    def stage(self, name: str, inputs: dict[str, Any], function: Any) -> StageResult:
        """A stage of this run; its time counts."""
        result = stage(self.workdir, name, inputs, function)
        self.seconds += result.seconds
        return result

    def data(self) -> StageResult:
        """Images of all classes, their split, and the images out of distribution."""
        config = self.config.data
        return self.stage("data", {"data": config}, lambda _: datasets.few_shot(**config))

    def backbone(self, data: StageResult) -> StageResult:
        """ResNet-12, trained to tell the meta-train classes apart; and features of all images."""
        config, seed = self.config.backbone, self.config.seed
        train = data.values["split"]["train"]

        def function(context: StageContext) -> dict[str, Any]:
            module = ResNet12(channels=tuple(config.channels), num_classes=len(train))
            images = data.values["images"][train]
            trained = train_backbone(context, module, images, recipe(config), seed=seed)
            variables = trained["variables"]
            features = {
                "classes": extract_features(module, variables, data.values["images"]),
                "foreign": extract_features(module, variables, data.values["foreign_images"]),
            }
            params = {k: v for k, v in variables["params"].items() if k != "classifier"}
            return {
                "variables": {**variables, "params": params},
                "features": features,
                "train_accuracy": trained["train_accuracy"],
            }

        return self.stage("backbone", {"backbone": config, "seed": seed, "data": data}, function)

    def tables(
        self, data: StageResult, backbone: StageResult
    ) -> tuple[FeatureTransform, dict[str, TaskTable]]:
        """The transform of features and the tasks of every set; recomputed, not stored."""
        config, split = self.config.tasks, data.values["split"]
        raw = backbone.values["features"]
        width = raw["classes"].shape[-1]
        transform = FeatureTransform.fit(raw["classes"][split["train"]], scale=width**0.5)
        classes = np.asarray(transform.apply(raw["classes"]))
        foreign = np.asarray(transform.apply(raw["foreign"]))
        labels = data.values["foreign_labels"]
        by_label = [foreign[labels == c] for c in range(labels.max() + 1)]
        keys = jax.random.split(jax.random.key(self.config.seed), 4)
        sizes = {"way": config.way, "shot": config.shot, "query": config.query}
        return transform, {
            "train": draw_tasks(
                keys[0],
                classes,
                split["train"],
                count=config.train,
                target_shots=self.config.targets.shots,
                **sizes,
            ),
            "validation": draw_tasks(
                keys[1], classes, split["validation"], count=config.validation, **sizes
            ),
            "in_distribution": draw_tasks(
                keys[2], classes, split["test"], count=config.test, **sizes
            ),
            "out_of_distribution": draw_tasks(
                keys[3], by_label, np.arange(len(by_label)), count=config.test, **sizes
            ),
        }

    def heads(self, backbone: StageResult, tables: dict[str, TaskTable]) -> StageResult:
        """The probe's feature length and ridge's penalty; the target heads and their space."""
        config = self.config

        def function(context: StageContext) -> dict[str, Any]:
            table, validation = tables["train"], tables["validation"]
            probe = {
                k: config.probe[k] for k in ("steps", "learning_rate", "weight_decay", "use_bias")
            }
            chosen = choose_lengths(validation, probe, config.probe.lengths, config.ridge.l2)
            with context.records.progress("heads", len(table)) as update:
                if config.targets.kind == "lda":
                    heads = training.fit_lda(table, shrinkage=config.targets.shrinkage)
                else:
                    heads = training.fit_heads(
                        table, length=chosen["length"], report=update, **probe
                    )
            some = slice(0, 2000)
            query, prototypes = table.query(some), table.prototypes()
            temperature = training.best_head_temperature(
                heads[some], query, tuple(config.targets.temperatures)
            )
            scales = tuple(config.targets.base_scales)
            base = training.best_base_scale(prototypes[some], query, scales) if scales else 0.0
            heads = heads / temperature
            space = fit_head_space(
                jnp.asarray(heads),
                jnp.asarray(prototypes),
                base_scale=base,
                centred=config.targets.centred,
                standardise=config.targets.standardised,
            )
            return {
                "heads": heads,
                "space": {"base_scale": space.base_scale, "scale": space.scale},
                "chosen": {**chosen, "target_temperature": temperature, "base_scale": base},
            }

        inputs = {
            "tasks": config.tasks,
            "probe": config.probe,
            "ridge": config.ridge,
            "targets": config.targets,
            "seed": config.seed,
            "backbone": backbone,
        }
        return self.stage("heads", inputs, function)

    def space(self, heads: StageResult) -> HeadSpace:
        """The head space of finished target heads."""
        arrays = jax.tree.map(jnp.asarray, heads.values["space"])
        return HeadSpace(**arrays, centred=self.config.targets.centred)

    def codec(self, heads: StageResult, tables: dict[str, TaskTable]) -> StageResult:
        """The weight autoencoder and the statistics of its latents."""
        config, seed = self.config.codec, self.config.seed
        table, space = tables["train"], self.space(heads)
        codec = self.codec_module(tables)

        def function(context: StageContext) -> dict[str, Any]:
            variables = training.train_codec(
                context,
                codec,
                space,
                table,
                heads.values["heads"],
                recipe(config),
                seed=seed,
                query=self.config.tasks.train_query,
                **{
                    k: config[k]
                    for k in ("reconstruction", "kl_weight", "sigma_in", "sigma_lat", "task_weight")
                },
            )
            statistics = training.fit_latent_statistics(
                codec, variables, space, heads.values["heads"], table.prototypes()
            )
            shape = jax.eval_shape(
                lambda h: codec.apply(variables, h, method="encode").mode(),
                jax.ShapeDtypeStruct((1, *heads.values["heads"].shape[1:]), jnp.float32),
            ).shape[1:]
            return {
                "variables": variables,
                "latents": {"mean": statistics.mean, "std": statistics.std},
                "latent_shape": list(shape),
            }

        return self.stage("codec", {"codec": config, "seed": seed, "heads": heads}, function)

    def codec_module(self, tables: dict[str, TaskTable]) -> Any:
        """The codec without its variables."""
        width = tables["train"].features[0].shape[-1]
        codec = self.config.codec.to_dict()
        return build_codec({"way": self.config.tasks.way, "codec": codec}, width)

    def caml_module(self) -> CAML:
        """CAML without its variables."""
        return CAML(**{name: self.config.caml[name] for name in CAML_SIZES})

    def caml(self, backbone: StageResult, tables: dict[str, TaskTable]) -> StageResult:
        """CAML on meta-train episodes; the best checkpoint on validation tasks."""
        config, seed = self.config.caml, self.config.seed

        def function(context: StageContext) -> dict[str, Any]:
            variables = training.train_caml(
                context,
                self.caml_module(),
                tables["train"],
                recipe(config),
                seed=seed,
                query=config.query,
                noise=config.noise,
                validate=tables["validation"],
            )
            return {"variables": variables}

        inputs = {"caml": config, "tasks": self.config.tasks, "seed": seed, "backbone": backbone}
        return self.stage("caml", inputs, function)

    def conditioner(self, caml: StageResult, tables: dict[str, TaskTable]) -> Conditioner:
        """The condition of a task; recomputed, not stored."""
        config = self.config.condition
        module = self.caml_module()
        variables = jax.tree.map(jnp.asarray, caml.values["variables"])
        return training.fit_conditioner(
            tuple(config.entries), tables["train"], module, variables, config.slot_tasks
        )

    def latents(
        self, heads: StageResult, codec: StageResult, tables: dict[str, TaskTable]
    ) -> LatentSpace:
        """The latent space of a finished codec."""
        values = jax.tree.map(jnp.asarray, codec.values)
        return LatentSpace(
            self.space(heads),
            values["variables"],
            Standardiser(**values["latents"]),
            self.codec_module(tables),
        )


def recipe(part: ConfigDict) -> Recipe:
    """The recipe of a part of the config; a zero there means none."""
    values = part.recipe.to_dict()
    for name in ("clip", "ema_decay", "validate_every"):
        values[name] = values[name] or None
    return Recipe(**values)
