"""Many small networks trained on from given weights as one program (paper, Table 3).

Every network has a start, an order of the data and a learning rate of its own, so that starts
with different rates, or a grid of rates, are one batched run; what becomes of a network does not
depend on which others are trained beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from flown_jax.errors import UserError
from flown_jax.models.many import logits
from flown_jax.training import many
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from flown_jax.training.zoos import Run, Snapshots
from flown_jax.weights.spec import WeightSpec

PyTree = Any
Optimizer = Callable[[Any], optax.GradientTransformation]


def fine_tune(
    context: StageContext,
    spec: WeightSpec,
    starts: np.ndarray,
    *,
    seeds: Sequence[int],
    learning_rates: np.ndarray | float,
    optimizer: Optimizer | Recipe,
    images: np.ndarray,
    labels: np.ndarray,
    batch: int,
    epochs: Sequence[int],
    name: str = "networks",
) -> dict[str, Any]:
    """The weights and training measures of networks that are trained on, at the wanted epochs.

    A run that was stopped goes on from its last checkpoint in the stage's folder, and ends bit
    for bit where an uninterrupted one ends.

    A network whose loss or weights are not finite at an epoch's end, as a bad learning rate makes
    them, does not stop the others. From then on it keeps its weights of the last wanted epoch
    before that (the start, if there is none) and has no measures; `finite` marks it, and whoever
    compares accuracies should count its own as chance from there on.

    Args:
      context: of the stage.
      spec: of the weights, whole networks without running statistics.
      starts: (N, D).
      seeds: of the orders of the data, N whole numbers from 0; equal ones give equal orders.
      learning_rates: (N,), or one for all.
      optimizer: from a learning rate, which is traced, to the optimizer; or a recipe, of which
        the optimizer and its schedule (over `steps`) are used, with each network's own rate in
        the place of `learning_rate` and a floor that keeps its share of it.
      images: (n, H, W, C) float32, preprocessed. labels: (n,).
      batch: images a step; an epoch's last batch holds what is left.
      epochs: whole numbers in rising order; 0 is the start itself.
      name: of the run where a stage has several.
    Returns:
      {"weights" float32 (E, N, D), "train_accuracy" (E, N), "train_loss" (E, N), "finite" bool
      (N,)}. The measures are means over the epoch's steps, each taken before its step; NaN at
      epoch 0 and where a network is no longer finite.
    Raises:
      UserError: arguments that do not fit together, or starts that are not finite.
    """
    starts = _vectors(spec, starts, "starts")
    if starts.ndim != 2 or not len(starts):
        raise UserError(f"starts must be (N, {spec.size}) with N >= 1, not {starts.shape}.")
    if not (whole := np.isfinite(starts).all(axis=1)).all():
        raise UserError(f"starts[{np.argmin(whole)}] has values that are not finite.")
    count = len(starts)
    drawn, rates = _seeds(seeds, count), _rates(learning_rates, count)
    wanted = _epochs(epochs)
    _check_data(spec, images, labels)
    if batch < 1:
        raise UserError(f"batch is {batch}; it is at least 1.")
    own = _own_rate(optimizer)
    trainer = many.Trainer(logits(spec.module()), own, images, labels, batch=batch)

    population = many.create(_params(spec, starts), drawn, own)
    population.opt_state.hyperparams["learning_rate"] = jnp.asarray(rates)
    # Epoch 0 is always kept: it is what a network falls back to.
    rows = sorted({0, *wanted})
    snapshots = _FiniteSnapshots(rows, population, jax.jit(jax.vmap(_flatten(spec))))
    _, found = Run(context, trainer, _measures)(population, name, 0, rows[-1], snapshots)
    finite = found.pop("finite")
    places = [rows.index(epoch) for epoch in wanted]
    return {**{key: values[places] for key, values in found.items()}, "finite": finite}


def accuracy(
    spec: WeightSpec, weights: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Share of the images that each network classifies rightly, of the leading axes' shape.

    Args:
      spec: of the weights, whole networks without running statistics.
      weights: (N, D) or (E, N, D).
      images: (n, H, W, C) float32, preprocessed. labels: (n,).
    Raises:
      UserError: weights, images or labels that do not fit.
    """
    weights = _vectors(spec, weights, "weights")
    _check_data(spec, images, labels)
    if not weights.size:
        return np.zeros(weights.shape[:-1])
    evaluator = many.Evaluator(logits(spec.module()), images, labels)
    params = _params(spec, weights.reshape(-1, spec.size))
    return evaluator(params)["accuracy"].reshape(weights.shape[:-1])


class _FiniteSnapshots(Snapshots):
    """Snapshots that keep the last finite weights of a network. The first epoch must be 0."""

    def __init__(self, epochs: Sequence[int], population: many.Population, vectors: Any) -> None:
        super().__init__(epochs, population, vectors)
        self.tree["finite"] = np.ones(self.tree["weights"].shape[1], bool)

    def take(self, epoch: int, population: many.Population) -> None:
        """Note which networks are finite, and keep the population if this epoch is to be saved."""
        weights = np.asarray(self.vectors(population.params))
        finite = np.isfinite(weights).all(axis=1) & np.isfinite(np.asarray(population.loss))
        self.tree["finite"] = self.tree["finite"] & finite
        super().take(epoch, population)
        if epoch in self.epochs:
            row, lost = self.epochs.index(epoch), ~self.tree["finite"]
            self.tree["weights"][row, lost] = self.tree["weights"][row - 1, lost]
            for name in ("train_accuracy", "train_loss"):
                self.tree[name][row, lost] = np.nan


def _measures(population: many.Population, label: str, step: int) -> dict[str, float]:
    """Means over the networks whose loss is finite, and the number of the others."""
    seen, loss = np.asarray(population.seen), np.asarray(population.loss)
    finite = np.isfinite(loss)
    if not finite.any():
        return {"not_finite": float(len(finite))}
    return {
        "loss": float((loss / seen)[finite].mean()),
        "accuracy": float((np.asarray(population.correct) / seen)[finite].mean()),
        "not_finite": float((~finite).sum()),
    }


def _own_rate(optimizer: Optimizer | Recipe) -> optax.GradientTransformation:
    """The optimizer with its learning rate in its state, where every network has its own."""
    if isinstance(optimizer, Recipe):
        optimizer.chain()  # refuses what cannot be
        share = optimizer.floor / optimizer.learning_rate if optimizer.floor else 0.0
        # A rate of 1 and a factor behind it: a schedule compares its rate, and cannot be traced.
        unit = dataclasses.replace(optimizer, learning_rate=1.0, floor=share).chain()

        def of_rate(learning_rate: Any) -> optax.GradientTransformation:
            return optax.chain(unit, optax.scale(learning_rate))
    else:
        given = optimizer

        def of_rate(learning_rate: Any) -> optax.GradientTransformation:
            return given(learning_rate)

        try:
            jax.eval_shape(lambda rate: given(rate).init(jnp.zeros(1)), jnp.ones(()))
        except jax.errors.ConcretizationTypeError as error:
            raise UserError(
                "optimizer looks at the value of its learning rate, which is traced here: give a "
                "Recipe, or a function that only computes with it."
            ) from error
    return optax.inject_hyperparams(of_rate)(learning_rate=1.0)


def _params(spec: WeightSpec, vectors: np.ndarray) -> PyTree:
    """Parameters of the networks, each leaf with a leading axis N."""

    def one(vector: Array) -> PyTree:
        return spec.unflatten(vector)["params"]

    return jax.jit(jax.vmap(one))(vectors)


def _flatten(spec: WeightSpec) -> Callable[[PyTree], Array]:
    return lambda params: spec.flatten({"params": params})


def _vectors(spec: WeightSpec, vectors: Any, what: str) -> np.ndarray:
    """The vectors as float32, of a spec whose networks are functions of them alone."""
    if spec.partial or any(not entry.path.startswith("params/") for entry in spec.entries):
        raise UserError(
            f"{what} must be the weights of whole networks without running statistics; this "
            "spec's are not."
        )
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim < 1 or vectors.shape[-1] != spec.size:
        raise UserError(
            f"{what} must be (..., {spec.size}), as the spec says, not {vectors.shape}."
        )
    return vectors


def _seeds(seeds: Sequence[int], count: int) -> np.ndarray:
    found = np.asarray(seeds)
    if found.shape != (count,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise UserError(f"seeds must be {count} whole numbers from 0, one for each start.")
    return found


def _rates(learning_rates: Any, count: int) -> np.ndarray:
    found = np.asarray(learning_rates, np.float32)
    if found.shape not in ((), (count,)):
        raise UserError(
            f"learning_rates must be one number or {count}, one for each start, not of shape "
            f"{found.shape}."
        )
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise UserError("learning_rates must be finite numbers from 0.")
    return np.broadcast_to(found, (count,))


def _epochs(epochs: Sequence[int]) -> list[int]:
    found = np.asarray(epochs)
    rising = found.ndim == 1 and found.size and found.dtype.kind in "iu"
    if not rising or found[0] < 0 or (np.diff(found) <= 0).any():
        raise UserError(f"epochs must be whole numbers from 0 in rising order, not {epochs!r:.80}.")
    return [int(epoch) for epoch in found]


def _check_data(spec: WeightSpec, images: np.ndarray, labels: np.ndarray) -> None:
    if np.ndim(images) != 4 or not len(images) or np.shape(labels) != (len(images),):
        raise UserError(
            f"images must be (n, H, W, C) and labels (n,) with n >= 1, not {np.shape(images)} and "
            f"{np.shape(labels)}."
        )
    inputs = spec.inputs_dict
    side, channels = inputs.get("size"), inputs.get("channels")
    if side and channels and np.shape(images)[1:] != (side, side, channels):
        raise UserError(
            f"the networks take images {(side, side, channels)}, as their spec says, and these "
            f"are {np.shape(images)[1:]}."
        )
    classes = spec.sizes_dict.get("num_classes")
    if np.min(labels) < 0 or (classes and np.max(labels) >= classes):
        raise UserError(
            f"labels must lie from 0 below {classes or 'the number of classes'}, the networks' "
            f"classes, and go from {np.min(labels)} to {np.max(labels)}."
        )
