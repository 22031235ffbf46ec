"""The training of a zoo, stage by stage: config in, a zoo on disk out."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from flown_jax.data import image_sets, splits
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.models import many, registry
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.many import Evaluator
from flown_jax.training.parallel import lead
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult, fingerprint, stage
from flown_jax.training.workdir import Workdir
from flown_jax.training.zoo_folder import add_to, write_once
from flown_jax.training.zoos import Plan, train_zoo
from flown_jax.weights.spec import WeightSpec


class ZooTraining:
    """The stages of one run; a stage is computed once and then kept.

    Args:
      config: as `configs/zoo.py` makes it.
      workdir: of the run.
      shard: (i, n) trains the i-th of n parts of the seeds, i from 1; None trains all.
    Raises:
      UserError: what the config asks for cannot be trained.
    """

    def __init__(
        self, config: ConfigDict, workdir: Workdir, shard: tuple[int, int] | None = None
    ) -> None:
        self.config, self.workdir = config, workdir
        inputs = preprocessing(config.inputs)
        self.whole = plan(config)
        self.plan = self.whole if shard is None else part_of(self.whole, *shard)
        self.train_set = image_sets.load(config.data.name, "train", config.data.dir)
        classes = len(self.train_set.class_names)
        sizes = {**config.network.sizes.to_dict(), "num_classes": classes}
        module = registry.build(config.network.name, sizes)
        if not isinstance(module, CNN):
            raise UserError(
                f"network.name is {config.network.name!r}; zoos are trained of networks 'cnn'."
            )
        start = functools.partial(_initial, module, inputs, config.initialisation)
        params = jax.eval_shape(start, jax.random.key(0))
        self.spec = WeightSpec.from_module(module, {"params": params}, inputs=inputs.to_dict())
        self._train, self._validation = split(len(self.train_set.labels), config.data)
        recipe(config.recipe, 1).chain()  # an unknown one is refused before anything is begun

    def train(self) -> StageResult:
        """The weights of all networks at the saved epochs."""
        return stage(self.workdir, "training", self._training_inputs(self.plan), _training)

    def _training_inputs(self, plan: Plan) -> dict[str, Any]:
        data = self.config.data
        return {
            # The spec says these two as well; by themselves, what differs has a name.
            "inputs": self.config.inputs,
            "network": self.config.network,
            "spec": self.spec,
            "initialisation": self.config.initialisation,
            "plan": plan,
            "recipe": self.config.recipe,
            "split": ConfigDict({k: data[k] for k in ("validation_share", "split_seed")}),
            "images": self.train_set,
        }

    def evaluate(self, trained: StageResult) -> StageResult:
        """Accuracy of every network at every saved epoch, on validation and test images."""
        return stage(self.workdir, "evaluation", self._evaluation_inputs(trained), _evaluation)

    def _evaluation_inputs(self, trained: StageResult) -> dict[str, Any]:
        data = self.config.data
        sets = {"test": image_sets.load(data.name, "test", data.dir)}
        rows = {"test": np.arange(len(sets["test"].labels))}
        if len(self._validation):
            sets["validation"], rows["validation"] = self.train_set, self._validation
        return {"training": trained, "spec": self.spec, "sets": sets, "rows": rows}

    def write(
        self, trained: StageResult, measured: StageResult, store: pathlib.Path | None = None
    ) -> pathlib.Path:
        """The zoo's folder; one that an earlier run of the same config wrote stays.

        The zoos of all shards have the recipe of the run that trains all networks at once.

        Args:
          store: a zoo that several runs write, which the networks are added to; None has a zoo in
            the workdir.
        Raises:
          UserError: a zoo is there that was written with another config.
        """
        facts = {
            "initialisation": self.config.initialisation,
            **plain_values(self.config.recipe),
            "trunk_epochs": self.plan.trunk_epochs,
            "trunk_seed": self.plan.trunk_seed,
            "held_out": self.config.networks.held_out,
            "validation_share": self.config.data.validation_share,
            **splits.record(self.train_set, self._train, self.config.data.split_seed),
            "stage_fingerprint": self._fingerprint(measured),
        }
        parts = self._epochs({**trained.values, **measured.values})
        name = self.config.data.name
        folder = self.workdir.path / "zoo" if store is None else store
        write = write_once if store is None else add_to
        lead(lambda: str(write(folder, self.spec, parts, recipe=facts, dataset=name)))
        return folder

    def _fingerprint(self, measured: StageResult) -> str:
        """Of the measures of all networks; nothing is trained for it."""
        if self.plan is self.whole:
            return measured.fingerprint
        mark = fingerprint("training", self._training_inputs(self.whole))
        trained = StageResult("training", mark, self.workdir.path, {}, 0.0)
        return fingerprint("evaluation", self._evaluation_inputs(trained))

    def _epochs(self, values: dict[str, Any]) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
        """Vectors and rows of every saved epoch."""
        weights, seeds = values.pop("weights"), self.plan.seeds
        held_out = held_out_seeds(self.whole.seeds, self.config.networks.held_out)
        for i, epoch in enumerate(sorted(set(self.plan.save_epochs))):
            rows = [
                {
                    "seed": seed,
                    "epoch": epoch,
                    "split": "held_out" if seed in held_out else "train",
                    **{name: _number(column[i][j]) for name, column in values.items()},
                }
                for j, seed in enumerate(seeds)
            ]
            yield weights[i], rows


def _training(context: StageContext) -> dict[str, Any]:
    given, spec = context.inputs, context.inputs.spec
    module, inputs = spec.module(), Preprocessing.from_dict(spec.inputs_dict)
    train, _ = split(len(given.images.labels), given.split)
    batch = given.recipe.batch
    steps = -(-len(train) // batch) * given.plan.epochs
    return train_zoo(
        context,
        given.plan,
        initialise=functools.partial(_initial, module, inputs, given.initialisation),
        flatten=lambda params: spec.flatten({"params": params}),
        logits=many.logits(module),
        optimizer=recipe(given.recipe, steps).chain(),
        images=inputs.apply(given.images.images[train]),
        labels=given.images.labels[train],
        batch=batch,
    )


def _evaluation(context: StageContext) -> dict[str, Any]:
    given, spec = context.inputs, context.inputs.spec
    logits, inputs = many.logits(spec.module()), Preprocessing.from_dict(spec.inputs_dict)
    params = jax.vmap(lambda vector: spec.unflatten(vector)["params"])
    weights = given.training.values["weights"]
    found: dict[str, Any] = {}
    with context.records.progress("evaluation", len(given.sets) * len(weights)) as update:
        for i, (name, images) in enumerate(given.sets.items()):
            rows = given.rows[name]
            evaluator = Evaluator(logits, inputs.apply(images.images[rows]), images.labels[rows])
            measures = []
            for j, vectors in enumerate(weights):
                measures.append(evaluator(params(vectors)))
                update(i * len(weights) + j + 1)
            for key in ("accuracy", "loss"):
                found[f"{name}_{key}"] = np.stack([m[key] for m in measures])
    return found


def _initial(module: Any, inputs: Preprocessing, scheme: str, key: jax.Array) -> Any:
    shape = (inputs.size, inputs.size, inputs.channels)
    return initialise_cnn(key, module, shape, scheme)


def preprocessing(inputs: ConfigDict) -> Preprocessing:
    """From images to the networks' input."""
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


def part_of(whole: Plan, index: int, count: int) -> Plan:
    """The plan of one of several runs that train a zoo together.

    Args:
      index: of the part, from 1. count: of parts, in which the seeds are shared as equally as can
        be.
    Raises:
      UserError: there is no such part, or it has no networks.
    """
    if not 1 <= index <= count:
        raise UserError(f"--shard={index}/{count}: of {count} parts there are 1 to {count}.")
    if count > len(whole.seeds):
        raise UserError(
            f"--shard={index}/{count}: {len(whole.seeds)} networks cannot be shared by {count}."
        )
    seeds = np.array_split(np.asarray(whole.seeds), count)[index - 1]
    return dataclasses.replace(whole, seeds=tuple(int(seed) for seed in seeds))


def recipe(config: ConfigDict, steps: int) -> Recipe:
    """The networks' recipe, in steps."""
    names = ("optimizer", "learning_rate", "weight_decay", "schedule", "momentum", "batch")
    return Recipe(steps=steps, nesterov=False, **{name: config[name] for name in names})


def split(count: int, config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and validation images, drawn once from all training images."""
    return splits.shares(count, config.validation_share, config.split_seed)


def held_out_seeds(seeds: tuple[int, ...], share: float) -> set[int]:
    """The last seeds, that share of them, rounded."""
    count = round(share * len(seeds))
    return set(sorted(seeds)[len(seeds) - count :])


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
