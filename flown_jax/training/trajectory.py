"""A trajectory of one network: trained whole, then states of it saved while a part goes on.

The zoos of Neural Network Diffusion (Wang et al., 2024) and of the paper's table 8: the second
training moves the chosen tensors alone, and its vector is kept every so many steps. Neighbours
in a trajectory are near-duplicates of each other.

While it goes on, BatchNorm normalises by the batch and its running statistics change further.
These later statistics are not saved, as published: a vector of a part is judged, and to be used,
in its host network, with the running statistics of the end of the first training. A vector of a
whole network with BatchNorm has the statistics of its own moment, kept beside it as `buffers`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from flown_jax.errors import Stopped, UserError
from flown_jax.models import layout, many
from flown_jax.models.cnn import CNN
from flown_jax.training import stopping
from flown_jax.training.augmentation import Augment
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.parallel import agree, compile_step, shares
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import TrainState
from flown_jax.training.step import Loss
from flown_jax.weights.spec import WeightSpec

Variables = Mapping[str, Any]
_SAVE_SECONDS = 60.0  # between two checkpoints
_BLOCK = 50  # steps between two looks at the clock and the losses


@dataclass(frozen=True, eq=False)
class Examples:
    """Images of a training and what becomes of them.

    Attributes:
      images: uint8 (n, H, W, C). labels: (n,).
      prepare: images of a batch -> the network's input, float32.
      augment: as `augmentation.augmentation` makes it.
    """

    images: np.ndarray
    labels: np.ndarray
    prepare: Callable[[np.ndarray], np.ndarray]
    augment: Augment

    def steps_per_epoch(self, batch: int) -> int:
        """Steps of an epoch; what does not fill a batch is left out, other images each time.

        Raises:
          UserError: there are fewer images than one batch.
        """
        if not 1 <= batch <= len(self.labels):
            raise UserError(f"a batch of {batch} cannot be drawn from {len(self.labels)} images.")
        return len(self.labels) // batch

    def batches(self, seed: int, batch: int) -> Callable[[int], dict[str, np.ndarray]]:
        """The batch of step i as a function of i (and the seed) alone."""
        per_epoch = self.steps_per_epoch(batch)

        @functools.lru_cache(maxsize=1)
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng((seed, epoch)).permutation(len(self.labels))

        def batch_at(step: int) -> dict[str, np.ndarray]:
            epoch, place = divmod(step, per_epoch)
            chosen = order(epoch)[place * batch : (place + 1) * batch]
            return {"images": self.prepare(self.images[chosen]), "labels": self.labels[chosen]}

        return batch_at


def train_base(
    context: StageContext,
    recipe: Recipe,
    module: nn.Module,
    start: Variables,
    examples: Examples,
    *,
    seed: int,
) -> dict[str, Any]:
    """The variables of a network at the end of its training; `start` after no steps.

    Args:
      context: of the stage; a run that was stopped goes on from its checkpoints.
      module: a network whose call gives logits. start: its variables.
      examples: to learn from.
      seed: of the order of the images, and of what is random in a step.
    """
    if not recipe.steps:
        return dict(start)
    state = train(
        context,
        recipe,
        start["params"],
        _loss(module, examples.augment),
        examples.batches(seed, recipe.batch),
        seed=seed,
        extra=start.get("batch_stats"),
        frozen={},
    )
    trained = {"params": state.params}
    return trained if state.extra is None else {**trained, "batch_stats": state.extra}


def train_states(
    context: StageContext,
    recipe: Recipe,
    module: nn.Module,
    spec: WeightSpec,
    host: Variables,
    examples: Examples,
    *,
    every: int,
    seed: int,
    buffers_spec: WeightSpec | None = None,
) -> dict[str, Any]:
    """Vectors of the states of a network, of which the tensors of a spec go on training.

    A run that was stopped goes on from its last checkpoint and ends bit for bit where an
    uninterrupted one ends.

    Args:
      context: of the stage.
      recipe: its `steps` are a multiple of `every`; it always begins with a new optimizer.
      module, spec: the network, and the tensors that are trained; the others stay as they are.
      host: the network's variables at the beginning.
      every: steps between two states; the first state is that after `every` steps.
      seed: of the order of the images, and of what is random in a step.
      buffers_spec: of the running statistics, if each state is to have its own.
    Returns:
      {"weights" float32 (K, D), "train_accuracy" (K,), "train_loss" (K,)} and "buffers" (K, B) if
      asked for. The measures are means over the steps since the state before, each taken before
      its step, on what the training sees: augmented images, normalised by the batch.
    Raises:
      UserError: the loss or a state is not finite.
    """
    if every < 1 or recipe.steps < every or recipe.steps % every:
        raise ValueError(f"{recipe.steps} steps are no multiple of {every}, a state's steps.")
    trained = {entry.path for entry in spec.entries}
    flat = dict(layout.leaves({"params": host["params"]}))
    params = layout.nested({path: flat[path] for path in flat if path in trained})["params"]
    frozen = layout.nested({path: flat[path] for path in flat if path not in trained})
    # Other draws than the first training's with the same seed.
    seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])
    shares(recipe.batch, what=context.name)
    optimizer = recipe.chain()
    run = _Run(
        context,
        compile_step(
            _loss(module, examples.augment),
            optimizer,
            seed=seed,
            frozen=frozen,
        ),
        examples.batches(seed, recipe.batch),
        _Snapshots(recipe.steps // every, spec, buffers_spec),
        every,
        {"batch": recipe.batch, "parameters": spec.size},
    )
    return run(TrainState.create(params, optimizer, extra=host.get("batch_stats")))


class _Run:
    """The second training, with checkpoints, progress and records."""

    def __init__(
        self,
        context: StageContext,
        step: Any,
        batch_at: Any,
        snapshots: _Snapshots,
        every: int,
        sizes: Mapping[str, Any],
    ) -> None:
        self.context, self.step, self.batch_at, self.sizes = context, step, batch_at, sizes
        self.snapshots, self.every = snapshots, every
        self.checkpoints = Checkpoints(context.directory / "states")

    def __call__(self, state: TrainState) -> dict[str, np.ndarray]:
        snapshots, name, records = self.snapshots, self.context.name, self.context.records
        done, end = 0, self.every * snapshots.count
        sums = np.zeros(3)  # loss, accuracy and number of the steps since the last state
        like = {"state": state, "snapshots": snapshots.tree, "sums": sums}
        if (found := self.checkpoints.restore_latest(like, records.note)) is not None:
            done, tree = found
            state, snapshots.tree, sums = (tree[key] for key in like)
        records.rewind(name, done)
        current, told = self.step.place(state), time.monotonic()
        shown = records.progress(name, end, done, timed=True, **self.sizes)
        with shown as update, stopping.saving() as wish:
            while done < end:
                stop = min(done + _BLOCK, done + self.every - done % self.every)
                current, block = self._block(current, done, stop)
                done, sums = stop, np.stack([sums, *block]).sum(axis=0)
                means = {"loss": sums[0] / sums[2], "accuracy": sums[1] / sums[2]}
                if done % self.every == 0:
                    snapshots.take(done // self.every - 1, self.step.collect(current), means)
                    if not snapshots.finite():
                        raise _broken(name, done, "the weights are not finite")
                    records.log(name, done, means)
                    sums = np.zeros(3)
                update(done, means)
                wish.unsaved, ending = True, wish.due()
                if agree(time.monotonic() - told > _SAVE_SECONDS) or done == end or ending:
                    state = self.step.collect(current)
                    tree = {"state": state, "snapshots": snapshots.tree, "sums": sums}
                    self.checkpoints.save(done, tree)
                    told, wish.unsaved = time.monotonic(), False
                if ending:
                    raise Stopped
        return snapshots.tree

    def _block(self, current: Any, start: int, stop: int) -> tuple[Any, list[np.ndarray]]:
        """What comes after some steps, and (loss, accuracy, 1) of each of them."""
        pending = []
        for index in range(start, stop):
            current, metrics = self.step(current, self.batch_at(index))
            pending.append((metrics["loss"], metrics["accuracy"]))
        seen = jax.device_get(pending)
        for index, (loss, _) in enumerate(seen, start=start + 1):
            if not np.isfinite(loss):
                raise _broken(self.context.name, index, f"the loss is {float(loss)}")
        return current, [np.asarray([*pair, 1.0], np.float64) for pair in seen]


class _Snapshots:
    """What is kept of each state; filled as the training goes."""

    def __init__(self, count: int, spec: WeightSpec, buffers_spec: WeightSpec | None) -> None:
        self.count, self._specs = count, {"weights": spec}
        if buffers_spec is not None:
            self._specs["buffers"] = buffers_spec
        shapes: dict[str, tuple[int, ...]] = {
            name: (count, part.size) for name, part in self._specs.items()
        }
        shapes |= dict.fromkeys(("train_accuracy", "train_loss"), (count,))
        self.tree = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def take(self, row: int, state: TrainState, means: Mapping[str, float]) -> None:
        """Keep the state, and the means since the one before."""
        variables = {"params": state.params, "batch_stats": state.extra}
        for name, part in self._specs.items():
            self.tree[name][row] = np.asarray(part.flatten(variables))
        for name, value in means.items():
            self.tree[f"train_{name}"][row] = value

    def finite(self) -> bool:
        """Whether all numbers kept so far are."""
        return all(np.isfinite(values).all() for values in self.tree.values())


def _loss(module: nn.Module, augment: Augment) -> Loss:
    """Cross-entropy of the network made of the trained tensors and the frozen ones."""
    forward = _forward(module)

    def loss_fn(params: Any, key: jax.Array, batch: Any, batch_stats: Any) -> Any:
        key_images, key_dropout = jax.random.split(key)
        flat = {**dict(layout.leaves(batch["frozen"])), **dict(layout.leaves({"params": params}))}
        variables = layout.nested(flat)
        if batch_stats is not None:
            variables["batch_stats"] = batch_stats
        images = augment(key_images, batch["images"])
        logits, batch_stats = forward(variables, images, key_dropout)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["labels"])
        return jnp.mean(nll), ({"accuracy": accuracy}, batch_stats)

    return loss_fn


def _forward(module: nn.Module) -> Callable[..., tuple[jax.Array, Any]]:
    """(variables, images, key) -> logits and running statistics, in training mode."""
    if isinstance(module, CNN) and not module.dropout:
        logits = many.logits(module)

        def alone(variables: Any, images: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
            del key
            params = jax.tree.map(lambda leaf: leaf[None], variables["params"])
            return logits(params, images[None])[0], None

        return alone

    def forward(variables: Any, images: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        logits, updated = module.apply(
            variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats")

    return forward


def _broken(name: str, step: int, reason: str) -> UserError:
    return UserError(f"{name} stopped at step {step}: {reason}; a smaller learning rate may help.")
