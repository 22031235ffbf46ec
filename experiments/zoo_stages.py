"""The stages of a zoo's training: config in, a zoo on disk out."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from flown_jax.data import image_sets
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.models import many, registry
from flown_jax.models.initialise import initialise_cnn
from flown_jax.training.many import Evaluator
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult, plain_values, stage
from flown_jax.training.workdir import Workdir
from flown_jax.training.zoos import Plan, train_zoo
from flown_jax.weights import zoo
from flown_jax.weights.spec import WeightSpec


class ZooTraining:
    """The stages of one run; a stage is computed once and then kept.

    Args:
      config: as `configs/zoo.py` makes it.
      workdir: of the run.
    Raises:
      UserError: what the config asks for cannot be trained.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir) -> None:
        self.config, self.workdir = config, workdir
        self.inputs = preprocessing(config)
        self.plan = plan(config)
        self.train_set = image_sets.load(config.data.name, "train", config.data.dir)
        classes = len(self.train_set.class_names)
        sizes = {**config.network.sizes.to_dict(), "num_classes": classes}
        self.module = registry.build(config.network.name, sizes)
        self.input_shape = (self.inputs.size, self.inputs.size, self.inputs.channels)
        params = jax.eval_shape(self._initialise, jax.random.key(0))
        self.spec = WeightSpec.from_module(
            self.module, {"params": params}, inputs=self.inputs.to_dict()
        )
        self._logits = many.logits(self.module)
        self._split = split(len(self.train_set.labels), config.data)

    def train(self) -> StageResult:
        """The weights of all networks at the saved epochs."""
        config = self.config
        inputs = {
            "network": self.spec.to_json(),
            "initialisation": config.initialisation,
            "networks": config.networks,
            "recipe": config.recipe,
            "split": {k: config.data[k] for k in ("validation_share", "split_seed")},
            "images": self.train_set.fingerprint(),
        }
        batch = config.recipe.batch
        train, _ = self._split
        length = -(-len(train) // batch) * config.recipe.epochs
        optimizer = recipe(config.recipe, length).chain()

        def function(context: StageContext) -> dict[str, Any]:
            images, labels = self.train_set.images[train], self.train_set.labels[train]
            return train_zoo(
                context,
                self.plan,
                initialise=self._initialise,
                flatten=self._flatten,
                logits=self._logits,
                optimizer=optimizer,
                images=self.inputs.apply(images),
                labels=labels,
                batch=batch,
            )

        return stage(self.workdir, "training", inputs, function)

    def evaluate(self, trained: StageResult) -> StageResult:
        """Accuracy of every network at every saved epoch, on validation and test images."""
        test_set = image_sets.load(self.config.data.name, "test", self.config.data.dir)
        _, validation = self._split
        sets = {"test": (test_set.images, test_set.labels)}
        if len(validation):
            images, labels = self.train_set.images, self.train_set.labels
            sets["validation"] = (images[validation], labels[validation])

        def function(context: StageContext) -> dict[str, Any]:
            weights = trained.values["weights"]
            found: dict[str, Any] = {}
            with context.records.progress("evaluation", len(sets) * len(weights)) as update:
                for i, (name, (images, labels)) in enumerate(sets.items()):
                    evaluator = Evaluator(self._logits, self.inputs.apply(images), labels)
                    measures = []
                    for j, vectors in enumerate(weights):
                        measures.append(evaluator(jax.vmap(self._params)(vectors)))
                        update(i * len(weights) + j + 1)
                    for key in ("accuracy", "loss"):
                        found[f"{name}_{key}"] = np.stack([m[key] for m in measures])
            return found

        fingerprint = test_set.fingerprint()
        return stage(
            self.workdir, "evaluation", {"training": trained, "test_images": fingerprint}, function
        )

    def write(self, trained: StageResult, measured: StageResult) -> pathlib.Path:
        """The zoo's folder; a folder of an earlier run of the same stages stays."""
        folder = self.workdir.path / "zoo"
        if (folder / "manifest.json").exists():
            return folder
        recipe = {
            "initialisation": self.config.initialisation,
            **plain_values(self.config.recipe),
            "trunk_epochs": self.plan.trunk_epochs,
            "trunk_seed": self.plan.trunk_seed,
            "train_images": len(self._split[0]),
            "images_fingerprint": self.train_set.fingerprint(),
            "stage_fingerprint": measured.fingerprint,
        }
        making = folder.with_name("zoo.making")
        shutil.rmtree(making, ignore_errors=True)
        zoo.create(making, self.spec, dataset=self.config.data.name, recipe=recipe)
        weights = trained.values["weights"]
        held_out = held_out_seeds(self.plan.seeds, self.config.networks.held_out)
        columns = {**trained.values, **measured.values}
        del columns["weights"]
        for i, epoch in enumerate(sorted(set(self.plan.save_epochs))):
            rows = [
                {
                    "seed": seed,
                    "epoch": epoch,
                    "split": "held_out" if seed in held_out else "train",
                    **{name: _number(values[i][j]) for name, values in columns.items()},
                }
                for j, seed in enumerate(self.plan.seeds)
            ]
            zoo.add(making, weights[i], rows)
        making.rename(folder)
        return folder

    def _initialise(self, key: jax.Array) -> Any:
        return initialise_cnn(key, self.module, self.input_shape, self.config.initialisation)

    def _flatten(self, params: Any) -> jax.Array:
        return self.spec.flatten({"params": params})

    def _params(self, vector: jax.Array) -> Any:
        return self.spec.unflatten(vector)["params"]


def preprocessing(config: ConfigDict) -> Preprocessing:
    """From images to the networks' input."""
    inputs = config.inputs
    return Preprocessing(
        size=inputs.size,
        channels=inputs.channels,
        mean=tuple(inputs.mean),
        std=tuple(inputs.std),
        crop=inputs.crop or None,
    )


def plan(config: ConfigDict) -> Plan:
    """Which networks, and for how long."""
    networks = config.networks
    seeds = range(networks.first_seed, networks.first_seed + networks.count)
    if not 0 <= networks.held_out < 1:
        raise UserError(f"networks.held_out is {networks.held_out}; it is a share from 0 below 1.")
    return Plan(
        seeds=tuple(seeds),
        epochs=config.recipe.epochs,
        save_epochs=tuple(config.recipe.save_epochs),
        trunk_epochs=networks.trunk_epochs,
        trunk_seed=networks.trunk_seed,
    )


def recipe(config: ConfigDict, steps: int) -> Recipe:
    """The networks' recipe, in steps."""
    names = ("optimizer", "learning_rate", "weight_decay", "schedule", "momentum", "batch")
    return Recipe(steps=steps, nesterov=False, **{name: config[name] for name in names})


def split(count: int, config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and validation images, drawn once from all training images.

    Raises:
      UserError: a share that leaves no images to train on.
    """
    if not 0 <= config.validation_share < 1:
        raise UserError(
            f"data.validation_share is {config.validation_share}; it is a share from 0 below 1."
        )
    order = np.random.default_rng(config.split_seed).permutation(count)
    cut = count - round(count * config.validation_share)
    return np.sort(order[:cut]), np.sort(order[cut:])


def held_out_seeds(seeds: tuple[int, ...], share: float) -> set[int]:
    """The last seeds, that share of them, rounded."""
    count = round(share * len(seeds))
    return set(sorted(seeds)[len(seeds) - count :])


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
