"""The stages of a trajectory: a network trained, its states saved and judged, a zoo on disk."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.trajectory_record import described, smaller, state_rows
from experiments.trajectory_start import start_values
from experiments.zoo_stages import preprocessing
from flown_jax.data import image_sets
from flown_jax.errors import UserError
from flown_jax.evaluation.vectors import measure
from flown_jax.models import registry
from flown_jax.models.subsets import last_norms
from flown_jax.training.augmentation import augmentation
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult, stage
from flown_jax.training.trajectory import Examples, train_base, train_states
from flown_jax.training.workdir import Workdir
from flown_jax.weights import zoo
from flown_jax.weights.spec import WeightSpec

PARTS = ("all", "last_norms")


class TrajectoryTraining:
    """The stages of one run; a stage is computed once and then kept.

    Args:
      config: as `configs/trajectory.py` makes it.
      workdir: of the run.
    Raises:
      UserError: what the config asks for cannot be trained.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir) -> None:
        self.config, self.workdir = config, workdir
        self.inputs = preprocessing(config)
        self._check()
        self.train_set = image_sets.load(config.data.name, "train", config.data.dir)
        rows = chosen(len(self.train_set.labels), config.data.train_images, "data.train_images")
        channels = self.inputs.channels
        black = np.broadcast_to(-np.divide(self.inputs.mean, self.inputs.std), channels)
        self.examples = Examples(
            self.train_set.images[rows],
            self.train_set.labels[rows],
            self.inputs.apply,
            augmentation(config.augmentation, tuple(black.tolist())),
        )
        classes = len(self.train_set.class_names)
        sizes = {**config.network.sizes.to_dict(), "num_classes": classes}
        self.module = registry.build(config.network.name, sizes)
        self.input_shape = (self.inputs.size, self.inputs.size, channels)
        shapes = jax.eval_shape(self._initial, jax.random.key(0))
        whole = WeightSpec.from_module(self.module, shapes, inputs=self.inputs.to_dict())
        self.network, self.spec, self.buffers_spec = whole, whole, None
        if config.network.part == "last_norms":
            names = set(last_norms(config.network.name, self.module))
            self.spec = whole.subset(names.__contains__)
        self._has_statistics = "batch_stats" in shapes
        if config.network.part == "all" and self._has_statistics:
            self.buffers_spec = WeightSpec.from_module(
                self.module, shapes, inputs=self.inputs.to_dict(), collections=("batch_stats",)
            )
        self._base_recipe, self._states_recipe, self.every = self._recipes()

    def train(self) -> StageResult:
        """The variables of the network at the end of its training."""
        config = self.config
        start, mark = start_values(config.network, self.module, self.input_shape)
        inputs = {
            "network": self.network.to_json(),
            "start": mark,
            "seed": config.seed,
            "recipe": config.base,
            "augmentation": config.augmentation,
            "train_images": len(self.examples.labels),
            "images": self.train_set.fingerprint(),
        }

        def function(context: StageContext) -> dict[str, Any]:
            variables = jax.jit(self._initial)(jax.random.key(config.seed))
            if start is not None:
                variables = start(variables)
            return train_base(
                context, self._base_recipe, self.module, variables, self.examples, seed=config.seed
            )

        return stage(self.workdir, "base", inputs, function)

    def save_states(self, base: StageResult) -> StageResult:
        """The vectors of the states, and what the training saw of them."""
        config = self.config
        inputs = {
            "base": base,
            "part": config.network.part,
            "count": config.states.count,
            "every": self.every,
            "recipe": config.states.recipe,
        }

        def function(context: StageContext) -> dict[str, Any]:
            return train_states(
                context,
                self._states_recipe,
                self.module,
                self.spec,
                _variables(base),
                self.examples,
                every=self.every,
                seed=config.seed,
                buffers_spec=self.buffers_spec,
            )

        return stage(self.workdir, "states", inputs, function)

    def evaluate(self, base: StageResult, states: StageResult) -> StageResult:
        """Accuracy and loss on test images: of the base network, and of every state."""
        config, host = self.config, _variables(base)
        test_set = image_sets.load(config.data.name, "test", config.data.dir)
        rows = chosen(len(test_set.labels), config.data.test_images, "data.test_images")
        images, labels = test_set.images[rows], test_set.labels[rows]

        def function(context: StageContext) -> dict[str, Any]:
            weights = np.stack([np.asarray(self.spec.flatten(host)), *states.values["weights"]])
            buffers = None
            if self.buffers_spec is not None:
                own = np.asarray(self.buffers_spec.flatten(host))
                buffers = np.stack([own, *states.values["buffers"]])
            with context.records.progress("evaluation", len(labels)) as update:
                found = measure(
                    self.spec,
                    weights,
                    images,
                    labels,
                    self.inputs.apply,
                    host=host,
                    buffers_spec=self.buffers_spec,
                    buffers=buffers,
                    update=update,
                )
            return {
                "base": {name: float(values[0]) for name, values in found.items()},
                "test_accuracy": found["accuracy"][1:],
                "test_loss": found["loss"][1:],
            }

        inputs = {"states": states, "test_images": len(rows), "images": test_set.fingerprint()}
        return stage(self.workdir, "evaluation", inputs, function)

    def write(self, base: StageResult, states: StageResult, measured: StageResult) -> pathlib.Path:
        """The zoo's folder; a folder of an earlier run of the same stages stays."""
        folder = self.workdir.path / "zoo"
        if (folder / "manifest.json").exists():
            return folder
        config, values = self.config, {**states.values, **measured.values}
        making = folder.with_name("zoo.making")
        shutil.rmtree(making, ignore_errors=True)
        zoo.create(
            making,
            self.spec,
            dataset=config.data.name,
            recipe=self._described(measured),
            base=_variables(base) if self.spec.partial else None,
            buffers_spec=self.buffers_spec,
        )
        rows = state_rows(config, values)
        zoo.add(making, values["weights"], rows, values.get("buffers"))
        making.rename(folder)
        return folder

    def smaller(self) -> list[str]:
        """In what the run is less than the published one, in words."""
        images = (len(self.examples.labels), len(self.train_set.labels))
        epoch = self.examples.steps_per_epoch(self.config.states.recipe.batch)
        return smaller(self.config, self.module, images, self.every, epoch)

    def _initial(self, key: jax.Array) -> Any:
        return self.module.init(key, jnp.zeros((1, *self.input_shape), jnp.float32))

    def _recipes(self) -> tuple[Recipe, Recipe, int]:
        """Of both trainings, and the steps between two states."""
        base, states = self.config.base, self.config.states
        steps = base.epochs * self.examples.steps_per_epoch(base.batch)
        every = states.every or self.examples.steps_per_epoch(states.recipe.batch)
        first = recipe(base, steps, save_every=base.save_every)
        second = recipe(states.recipe, every * states.count)
        for part in (first, second):
            if part.steps:
                part.chain()
        return first, second, every

    def _described(self, measured: StageResult) -> dict[str, Any]:
        """The recipe of the zoo's manifest."""
        statistics = "of the base network" if self._has_statistics else None
        return {
            **described(self.config, self.every),
            "smaller_than_published": self.smaller() or None,
            "running_statistics": "of each state" if self.buffers_spec else statistics,
            "train_images": len(self.examples.labels),
            "base_test_accuracy": measured.values["base"]["accuracy"],
            "images_fingerprint": self.train_set.fingerprint(),
            "stage_fingerprint": measured.fingerprint,
        }

    def _check(self) -> None:
        network, states = self.config.network, self.config.states
        if network.name == "resnet12":
            raise UserError("network.name is resnet12, a backbone without a classifier of its own.")
        if network.part not in PARTS:
            raise UserError(f"network.part is {network.part!r}; it is one of {', '.join(PARTS)}.")
        if states.count < 1 or states.every < 0 or self.config.base.epochs < 0:
            raise UserError(
                "states.count is a whole number from 1, states.every and base.epochs from 0."
            )
        if not 0 <= states.held_out < 1:
            raise UserError(f"states.held_out is {states.held_out}; it is a share from 0 below 1.")


def recipe(config: ConfigDict, steps: int, **more: Any) -> Recipe:
    """A training's recipe, in steps."""
    own = ("epochs", "save_every")
    values = {name: value for name, value in config.items() if name not in own}
    return Recipe(steps=steps, nesterov=False, **values, **more)


def chosen(count: int, wanted: int, field: str) -> np.ndarray:
    """Indices of as many of `count` images as wanted, drawn once and for all; 0 means all.

    Raises:
      UserError: there are not that many; `field` is named.
    """
    if not 0 <= wanted <= count:
        raise UserError(f"{field} is {wanted}; there are {count} images (0 takes all).")
    rows = np.random.default_rng(0).permutation(count)[: wanted or count]
    return np.sort(rows)


def _variables(base: StageResult) -> Any:
    return jax.tree.map(jnp.asarray, base.values)
