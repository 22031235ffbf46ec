"""Many small models trained as one program, each on its own order of the data.

Models are independent: what becomes of one depends on its seed alone, not on how many are
trained beside it, on how they are grouped, or on a restart. On processors a group of a few models
goes through a whole segment of steps before the next one begins, so that its parameters and
activations stay in a core's cache; on accelerators all models take each step together. Models are
shared among the devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from flown_jax.models.many import Logits, hits
from flown_jax.training.parallel import OverModels, on_cpu

PyTree = Any
_GROUP_ROWS = 20  # examples in flight that stay in a core's cache
_EVALUATED = 200  # images at a time when accuracy is measured
_EVALUATED_MODELS = 50  # models at a time on an accelerator


class Population(struct.PyTreeNode):
    """M models in training; every leaf has a leading axis M.

    Attributes:
      seed: uint32 (M,), of the order of the data.
      params: the networks' parameters.
      opt_state: the optimizer's state.
      loss, correct, seen: sums over the examples of the running epoch, taken before each step.
    """

    seed: Array
    params: PyTree
    opt_state: PyTree
    loss: Array
    correct: Array
    seen: Array


def create(params: PyTree, seeds: Any, optimizer: optax.GradientTransformation) -> Population:
    """A population before its first step.

    Args:
      params: of M models, each leaf with a leading axis M.
      seeds: (M,) whole numbers from 0.
      optimizer: is mapped over the models, so each has its own norms and counters.
    """
    seeds = jnp.asarray(np.asarray(seeds), jnp.uint32)
    zeros = jnp.zeros(seeds.shape, jnp.float32)
    return Population(seeds, params, jax.vmap(optimizer.init)(params), zeros, zeros, zeros)


def steps_per_epoch(examples: int, batch: int) -> int:
    """Steps of an epoch whose last batch may be smaller."""
    return -(-examples // batch)


def epoch_order(seed: Array | int, epoch: Array | int, examples: int, batch: int) -> Array:
    """The order of the examples of a model in an epoch, padded with zeros to whole batches."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), epoch)
    order = jax.random.permutation(key, examples)
    return jnp.pad(order, (0, steps_per_epoch(examples, batch) * batch - examples))


class Trainer:
    """Trains populations of one architecture on one data set.

    Args:
      logits: as `models.many.logits` makes it.
      optimizer: of every model.
      images: (n, H, W, C) float32, the training set, preprocessed.
      labels: (n,).
      batch: examples a step; an epoch's last batch holds what is left.
      devices: how many to use; None for all.
    """

    def __init__(
        self,
        logits: Logits,
        optimizer: optax.GradientTransformation,
        images: Any,
        labels: Any,
        *,
        batch: int,
        devices: int | None = None,
    ) -> None:
        self.batch = batch
        self.steps_per_epoch = steps_per_epoch(len(images), batch)
        group = group_size(batch) if on_cpu() else None
        segment = _segment(logits, optimizer, batch, group)
        self._run = OverModels(segment, multiple=group or 1, devices=devices)
        self._data = self._run.share((jnp.asarray(images), jnp.asarray(labels, jnp.int32)))
        self._draw = OverModels(_orders(len(images), batch), multiple=group or 1, devices=devices)

    def place(self, population: Population) -> Any:
        """The population on the devices, to be given to `advance`."""
        return self._run.place(population)

    def collect(self, placed: Any) -> Population:
        """The population of `place` or `advance`, as arrays with a leading axis M."""
        return self._run.collect(placed)

    def orders(self, placed: Any, epoch: int) -> Any:
        """Each model's order of the data in an epoch, counted from 0, for `advance`."""
        return self._draw(placed.seed, None, np.int32(epoch))

    def advance(self, placed: Any, orders: Any, start: int, stop: int) -> Any:
        """The population after the steps start..stop - 1 of an epoch with these orders.

        Its sums are those of the epoch so far; step 0 sets them to zero.
        """
        return self._run((placed, orders), self._data, np.int32(start), np.int32(stop))


def group_size(batch: int) -> int:
    """Models that go through their steps side by side on one processor core."""
    return max(1, _GROUP_ROWS // batch)


class Evaluator:
    """Accuracy and loss of many networks on the same images.

    Args:
      logits: as `models.many.logits` makes it.
      images: (n, H, W, C) float32. labels: (n,).
      devices: how many to use; None for all.
    """

    def __init__(
        self, logits: Logits, images: Any, labels: Any, *, devices: int | None = None
    ) -> None:
        self._count = len(images)
        blocks = -(-self._count // _EVALUATED)
        padding = blocks * _EVALUATED - self._count

        def blocked(x: Any, fill: int) -> Array:
            x = jnp.asarray(x)
            x = jnp.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1), constant_values=fill)
            return x.reshape(blocks, _EVALUATED, *x.shape[1:])

        # A label of -1 marks an image that is only there to fill its block.
        group = 1 if on_cpu() else _EVALUATED_MODELS
        self._run = OverModels(_evaluation(logits, group), multiple=group, devices=devices)
        self._data = self._run.share((blocked(images, 0), blocked(labels, -1)))

    def __call__(self, params: PyTree) -> dict[str, np.ndarray]:
        """{"accuracy" (M,), "loss" (M,)} of networks whose leaves have a leading axis M."""
        correct, loss = self._run.collect(self._run(self._run.place(params), self._data))
        count = self._count
        return {"accuracy": np.asarray(correct) / count, "loss": np.asarray(loss) / count}


def _segment(
    logits: Logits, optimizer: optax.GradientTransformation, batch: int, group: int | None
) -> Any:
    """(Population, orders), data, start, stop -> population: the steps of a segment, all models.

    Groups of models come one after another; None takes all models at once.
    """

    def loss_fn(params: PyTree, images: Array, labels: Array, weights: Array) -> Any:
        scores = logits(params, images)
        nll = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        correct = hits(scores, labels)
        counted = jnp.sum(weights)
        # A mean within a model and a sum over models: each sees its own loss only.
        mean = jnp.sum(nll * weights, axis=1) / counted
        return jnp.sum(mean), (mean * counted, jnp.sum(correct * weights, axis=1))

    def run_group(
        models: Population, orders: Array, data: tuple[Array, Array], start: Array, stop: Array
    ) -> Population:
        images, labels = data

        def step(i: Array, models: Population) -> Population:
            index = jax.lax.dynamic_slice_in_dim(orders, i * batch, batch, axis=1)
            # The places behind the last example are filled, and do not count.
            weights = (i * batch + jnp.arange(batch) < len(images)).astype(jnp.float32)
            (_, (loss, correct)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
                models.params, images[index], labels[index], weights
            )
            updates, opt_state = jax.vmap(optimizer.update)(
                gradients, models.opt_state, models.params
            )
            return models.replace(
                params=optax.apply_updates(models.params, updates),
                opt_state=opt_state,
                loss=models.loss + loss,
                correct=models.correct + correct,
                seen=models.seen + jnp.sum(weights),
            )

        zero = jnp.where(start == 0, 0.0, 1.0)
        models = models.replace(
            loss=models.loss * zero, correct=models.correct * zero, seen=models.seen * zero
        )
        return jax.lax.fori_loop(start, stop, step, models)

    def run(
        models: tuple[Population, Array], data: tuple[Array, Array], start: Array, stop: Array
    ) -> Population:
        def one_group(part: tuple[Population, Array]) -> Population:
            return run_group(*part, data, start, stop)

        return one_group(models) if group is None else _in_groups(one_group, models, group)

    return run


def _orders(examples: int, batch: int) -> Any:
    """Seeds (M,), nothing, epoch -> orders of the examples (M, steps of an epoch * batch)."""

    def run(seeds: Array, _: None, epoch: Array) -> Array:
        def order(seed: Array) -> Array:
            return epoch_order(seed, epoch, examples, batch)

        return jax.lax.map(order, seeds)

    return run


def _evaluation(logits: Logits, group: int) -> Any:
    """Parameters, blocks of data -> numbers of right answers and sums of losses, (M,) each."""

    def run(params: PyTree, data: tuple[Array, Array]) -> tuple[Array, Array]:
        def one_group(models: PyTree) -> tuple[Array, Array]:
            def block(pair: tuple[Array, Array]) -> tuple[Array, Array]:
                images, labels = pair
                scores = logits(models, images[None])
                safe = jnp.broadcast_to(jnp.maximum(labels, 0), scores.shape[:2])
                nll = optax.softmax_cross_entropy_with_integer_labels(scores, safe)
                correct = hits(scores, labels)
                return jnp.sum(correct, axis=1), jnp.sum(jnp.where(labels < 0, 0.0, nll), axis=1)

            correct, loss = jax.lax.map(block, data)
            return jnp.sum(correct, axis=0), jnp.sum(loss, axis=0)

        return _in_groups(one_group, params, group)

    return run


def _in_groups(function: Callable[[PyTree], PyTree], models: PyTree, group: int) -> PyTree:
    """The function of one group of models after another, put together again."""
    grouped = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), models)
    done = jax.lax.map(function, grouped)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), done)
