"""The stages of a trajectory: a network trained, its states saved and judged, a zoo on disk."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.trajectory_network import SPLIT_SEED, build, chosen, examples
from experiments.trajectory_record import described, smaller, state_rows
from experiments.trajectory_start import Start, start_values
from flown_jax.data import image_sets, splits
from flown_jax.evaluation.vectors import measure
from flown_jax.training.parallel import lead
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext, StageResult, stage
from flown_jax.training.trajectory import train_base, train_states
from flown_jax.training.workdir import Workdir
from flown_jax.training.zoo_folder import write_once


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
        self.train_set = image_sets.load(config.data.name, "train", config.data.dir)
        sizes = config.network.sizes.to_dict() | {"num_classes": len(self.train_set.class_names)}
        # What the network of a stage is made of.
        self.made_of: dict[str, Any] = {
            "network": {"name": config.network.name, "sizes": sizes},
            "inputs": config.inputs,
        }
        self.network = build(**self.made_of, part=config.network.part)
        self.examples = examples(
            self.train_set, config.data.train_images, config.augmentation, self.network.inputs
        )
        # What both trainings depend on.
        self.common: dict[str, Any] = {
            **self.made_of,
            "seed": config.seed,
            "augmentation": config.augmentation,
            "train_images": len(self.examples.labels),
            "images": self.train_set,
        }
        epoch, states = self.examples.steps_per_epoch, config.states
        self.every = states.every or epoch(states.recipe.batch)
        lengths = (config.base.epochs * epoch(config.base.batch), self.every * states.count)
        for part, steps in zip((config.base, states.recipe), lengths, strict=True):
            if steps:  # an unknown recipe is refused before anything is begun
                recipe(part, steps).chain()

    def train(self) -> StageResult:
        """The variables of the network at the end of its training."""
        inputs = {**self.common, "start": self.start, "recipe": self.config.base}
        return stage(self.workdir, "base", inputs, base_variables)

    @property
    def start(self) -> Start:
        """Where the network begins."""
        return start_values(self.config.network)

    def save_states(self, base: StageResult) -> StageResult:
        """The vectors of the states, and what the training saw of them."""
        states = self.config.states
        inputs = {
            **self.common,
            "base": base,
            "part": self.config.network.part,
            "count": states.count,
            "every": self.every,
            "recipe": states.recipe,
        }
        return stage(self.workdir, "states", inputs, _states)

    def evaluate(self, base: StageResult, states: StageResult) -> StageResult:
        """Accuracy and loss on test images: of the base network, and of every state."""
        data = self.config.data
        test_set = image_sets.load(data.name, "test", data.dir)
        inputs = {
            **self.made_of,
            "base": base,
            "states": states,
            "part": self.config.network.part,
            "rows": chosen(len(test_set.labels), data.test_images, "data.test_images"),
            "images": test_set,
        }
        return stage(self.workdir, "evaluation", inputs, _evaluation)

    def write(self, base: StageResult, states: StageResult, measured: StageResult) -> pathlib.Path:
        """The zoo's folder; one that an earlier run of the same config wrote stays.

        Raises:
          UserError: a zoo is there that was written with another config.
        """
        values = {**states.values, **measured.values}
        rows = state_rows(self.config, values)
        folder, facts = self.workdir.path / "zoo", self._described(measured)

        def write() -> None:
            write_once(
                folder,
                self.network.spec,
                [(values["weights"], rows, values.get("buffers"))],
                recipe=facts,
                dataset=self.config.data.name,
                base=_variables(base) if self.network.spec.partial else None,
                buffers_spec=self.network.buffers_spec,
            )

        lead(write)
        return folder

    def smaller(self) -> list[str]:
        """In what the run is less than the published one, in words."""
        images = (len(self.examples.labels), len(self.train_set.labels))
        epoch = self.examples.steps_per_epoch(self.config.states.recipe.batch)
        return smaller(self.config, self.network.module, images, self.every, epoch)

    def _described(self, measured: StageResult) -> dict[str, Any]:
        """The recipe of the zoo's manifest."""
        statistics = "of the base network" if self.network.has_statistics else None
        return {
            **described(self.config, self.every),
            "smaller_than_published": self.smaller() or None,
            "running_statistics": "of each state" if self.network.buffers_spec else statistics,
            "base_test_accuracy": measured.values["base"]["accuracy"],
            **self._images(),
            "stage_fingerprint": measured.fingerprint,
        }

    def _images(self) -> dict[str, Any]:
        wanted = self.config.data.train_images
        rows = chosen(len(self.train_set.labels), wanted, "data.train_images")
        return splits.record(self.train_set, rows, SPLIT_SEED)


def recipe(config: ConfigDict, steps: int) -> Recipe:
    """A training's recipe, in steps."""
    values = {name: value for name, value in config.items() if name != "epochs"}
    return Recipe(steps=steps, nesterov=False, **values)


def base_variables(context: StageContext) -> dict[str, Any]:
    """A stage: the variables of a network at the end of its training."""
    given = context.inputs
    net = build(given.network, given.inputs, "all")
    learned = examples(given.images, given.train_images, given.augmentation, net.inputs)
    random = jax.jit(net.initial)(jax.random.key(given.seed))
    variables = given.start(net.module, net.input_shape, random)
    steps = given.recipe.epochs * learned.steps_per_epoch(given.recipe.batch)
    how = recipe(given.recipe, steps)
    return train_base(context, how, net.module, variables, learned, seed=given.seed)


def _states(context: StageContext) -> dict[str, Any]:
    return saved_states(context, _variables(context.inputs.base))


def saved_states(context: StageContext, base: Any) -> dict[str, Any]:
    """States of a network's, or its part's, further training.

    Args:
      base: variables of the network.
    """
    given = context.inputs
    net = build(given.network, given.inputs, given.part)
    return train_states(
        context,
        recipe(given.recipe, given.every * given.count),
        net.module,
        net.spec,
        base,
        examples(given.images, given.train_images, given.augmentation, net.inputs),
        every=given.every,
        seed=given.seed,
        buffers_spec=net.buffers_spec,
    )


def _evaluation(context: StageContext) -> dict[str, Any]:
    given, host = context.inputs, _variables(context.inputs.base)
    net = build(given.network, given.inputs, given.part)
    weights = np.stack([np.asarray(net.spec.flatten(host)), *given.states.values["weights"]])
    buffers = None
    if net.buffers_spec is not None:
        own = np.asarray(net.buffers_spec.flatten(host))
        buffers = np.stack([own, *given.states.values["buffers"]])
    with context.records.progress("evaluation", len(given.rows)) as update:
        found = measure(
            net.spec,
            weights,
            given.images.images[given.rows],
            given.images.labels[given.rows],
            net.inputs.apply,
            host=host,
            buffers_spec=net.buffers_spec,
            buffers=buffers,
            update=update,
        )
    return {
        "base": {name: float(values[0]) for name, values in found.items()},
        "test_accuracy": found["accuracy"][1:],
        "test_loss": found["loss"][1:],
    }


def _variables(base: StageResult) -> Any:
    return jax.tree.map(jnp.asarray, base.values)
