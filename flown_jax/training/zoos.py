"""A zoo from seeds: many networks of one architecture trained side by side, saved at given epochs.

The "Seed" zoos of Schuerholt et al. (Model Zoos, 2022) differ in the seed alone: it draws the
initial weights and the order of the data. A branched zoo is trained from one early network
instead, which all its members share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flown_jax.errors import Stopped, UserError
from flown_jax.models.many import Logits
from flown_jax.training import many, stopping
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.parallel import agree
from flown_jax.training.stages import StageContext

PyTree = Any
_SAVE_SECONDS = 60.0  # between two checkpoints
_SEGMENT_SECONDS = 3.0  # about how long one call of the program takes


@dataclass(frozen=True)
class Plan:
    """Which networks, and for how long.

    Attributes:
      seeds: of the networks, whole numbers from 0, each once.
      epochs: length of the training, the trunk's included.
      save_epochs: epochs at whose end the weights are kept; 0 is the untrained network.
      trunk_epochs: epochs that all networks share as one; 0 for none.
      trunk_seed: of that one.
    """

    seeds: tuple[int, ...]
    epochs: int
    save_epochs: tuple[int, ...]
    trunk_epochs: int = 0
    trunk_seed: int = 0

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError("the seeds of a zoo are different whole numbers from 0, at least one.")
        wrong = [e for e in self.save_epochs if not self.trunk_epochs <= e <= self.epochs]
        if wrong or not self.save_epochs:
            raise UserError(
                f"save_epochs must lie between {self.trunk_epochs} and {self.epochs}, the epochs "
                f"that are trained; {list(self.save_epochs)} does not."
            )
        if not 0 <= self.trunk_epochs < max(self.epochs, 1):
            raise UserError(
                f"trunk_epochs is {self.trunk_epochs}; of {self.epochs} epochs, some must be left."
            )


def train_zoo(
    context: StageContext,
    plan: Plan,
    *,
    initialise: Callable[[jax.Array], PyTree],
    flatten: Callable[[PyTree], jax.Array],
    logits: Logits,
    optimizer: optax.GradientTransformation,
    images: np.ndarray,
    labels: np.ndarray,
    batch: int,
) -> dict[str, Any]:
    """The weights and training measures of every network at every saved epoch.

    A run that was stopped goes on from its last checkpoint in the stage's folder, and ends bit
    for bit where an uninterrupted one ends.

    Args:
      context: of the stage.
      initialise: parameters of one network from a key.
      flatten: parameters of one network to its vector (D,).
      logits: as `models.many.logits` makes it.
      optimizer: of each network.
      images: (n, H, W, C) float32. labels: (n,).
      batch: images a step.
    Returns:
      {"weights" float32 (E, N, D), "train_accuracy" (E, N), "train_loss" (E, N)}, a row for each
      entry of `plan.save_epochs` in rising order. The measures are means over the epoch's steps,
      each taken before its step, as the published zoos have them; NaN at epoch 0.
    Raises:
      UserError: a network's loss is not finite.
    """
    trainer = many.Trainer(logits, optimizer, images, labels, batch=batch)
    vectors = jax.jit(jax.vmap(flatten))
    run = Run(context, trainer)
    seeds = np.asarray(plan.seeds)
    if plan.trunk_epochs:
        trunk = many.create(_initial(initialise, [plan.trunk_seed]), [plan.trunk_seed], optimizer)
        shared, _ = run(trunk, "trunk", 0, plan.trunk_epochs, Snapshots((), trunk, vectors))
        count = len(seeds)
        copies = jax.tree.map(lambda x: np.repeat(np.asarray(x), count, axis=0), shared)
        population = copies.replace(seed=seeds.astype(np.uint32))
    else:
        population = many.create(_initial(initialise, plan.seeds), seeds, optimizer)
    saved = tuple(sorted(set(plan.save_epochs)))
    snapshots = Snapshots(saved, population, vectors)
    _, found = run(population, "networks", plan.trunk_epochs, plan.epochs, snapshots)
    return found


class Run:
    """Trains populations epoch by epoch, with checkpoints, progress and records.

    A run that was stopped goes on from its last checkpoint in the stage's folder.

    Args:
      context: of the stage.
      trainer: of the populations.
      measures: (population, label, step) -> what is shown and recorded; may raise UserError to
        stop the run. None stops it at the first loss that is not finite.
    """

    def __init__(
        self,
        context: StageContext,
        trainer: many.Trainer,
        measures: Callable[[many.Population, str, int], dict[str, float]] | None = None,
    ) -> None:
        self.context, self.trainer, self.measures = context, trainer, measures or _measures

    def __call__(
        self,
        population: many.Population,
        name: str,
        first: int,
        last: int,
        snapshots: Snapshots,
    ) -> tuple[many.Population, dict[str, np.ndarray]]:
        """The population after the epochs first..last - 1, and the tree of its snapshots.

        Args:
          population: before epoch `first`.
          name: of the run in its stage.
          snapshots: are filled.
        """
        per_epoch = self.trainer.steps_per_epoch
        step, end = first * per_epoch, last * per_epoch
        checkpoints = Checkpoints(self.context.directory / name)
        records, label = self.context.records, f"{self.context.name}: {name}"
        like = {"population": population, "snapshots": snapshots.tree}
        if (found := checkpoints.restore_latest(like, records.note)) is not None:
            step, restored = found
            population, snapshots.tree = restored["population"], restored["snapshots"]
        else:
            snapshots.take(first, population)
        records.rewind(label, step)
        placed, told = self.trainer.place(population), time.monotonic()
        length, drawn, orders = 50, None, None
        sizes = {"batch": self.trainer.batch, "parameters": snapshots.parameters}
        shown = records.progress(label, end, step, timed=True, **sizes)
        with shown as update, stopping.saving() as wish:
            while step < end:
                epoch, start = divmod(step, per_epoch)
                stop = min(start + length, per_epoch)
                if epoch != drawn:
                    drawn, orders = epoch, self.trainer.orders(placed, epoch)
                before = time.monotonic()
                placed = jax.block_until_ready(self.trainer.advance(placed, orders, start, stop))
                wish.unsaved = True
                step += stop - start
                # Clocks differ between processes.
                length, late = agree(
                    (
                        _adapted(length, time.monotonic() - before),
                        time.monotonic() - told > _SAVE_SECONDS,
                    )
                )
                ending = wish.due()
                if stop == per_epoch or late or ending:
                    population = self.trainer.collect(placed)
                    measures = self.measures(population, label, step)
                    if stop == per_epoch:
                        snapshots.take(epoch + 1, population)
                        records.log(label, step, {"epoch": epoch + 1, **measures})
                    update(step, measures)
                    if late or ending or step == end:
                        tree = {"population": population, "snapshots": snapshots.tree}
                        checkpoints.save(step, tree)
                        told, wish.unsaved = time.monotonic(), False
                    if ending:
                        raise Stopped
                else:
                    update(step)
        return self.trainer.collect(placed), snapshots.tree


class Snapshots:
    """What is kept of the saved epochs; filled as the training goes.

    Args:
      epochs: at whose end the population is kept, in rising order.
      population: gives the number of models.
      vectors: parameters of the models to their vectors (M, D).
    """

    def __init__(self, epochs: Sequence[int], population: many.Population, vectors: Any) -> None:
        self.epochs, self.vectors = list(epochs), vectors
        models, width = jax.eval_shape(vectors, population.params).shape
        self.parameters = models * width  # of all networks together
        rows = len(self.epochs)
        self.tree = {
            "weights": np.zeros((rows, models, width), np.float32),
            "train_accuracy": np.full((rows, models), np.nan, np.float32),
            "train_loss": np.full((rows, models), np.nan, np.float32),
        }

    def take(self, epoch: int, population: many.Population) -> None:
        """Keep the population if this epoch is to be saved; called at every epoch's end."""
        if epoch not in self.epochs:
            return
        row = self.epochs.index(epoch)
        self.tree["weights"][row] = np.asarray(self.vectors(population.params))
        seen = np.asarray(population.seen)
        if seen.all():
            self.tree["train_accuracy"][row] = np.asarray(population.correct) / seen
            self.tree["train_loss"][row] = np.asarray(population.loss) / seen


def _initial(initialise: Callable[[jax.Array], PyTree], seeds: Sequence[int]) -> PyTree:
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return jax.jit(jax.vmap(initialise))(keys)


def _measures(population: many.Population, label: str, step: int) -> dict[str, float]:
    loss = np.asarray(population.loss) / np.asarray(population.seen)
    if not np.isfinite(loss).all():
        seed = int(np.asarray(population.seed)[np.argmin(np.isfinite(loss))])
        raise UserError(
            f"{label}: the loss of the network with seed {seed} is not finite at step {step}; "
            "a smaller learning rate may help."
        )
    accuracy = np.asarray(population.correct) / np.asarray(population.seen)
    return {"loss": float(loss.mean()), "accuracy": float(accuracy.mean())}


def _adapted(length: int, seconds: float) -> int:
    """Steps of the next call, so that it takes about `_SEGMENT_SECONDS`."""
    wanted = length * _SEGMENT_SECONDS / max(seconds, 1e-3)
    return int(min(max(wanted, length / 2, 1), length * 2, 100_000))
