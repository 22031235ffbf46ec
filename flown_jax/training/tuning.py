"""Starts of training with a learning rate of their own, chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flown_jax.training.fine_tuning import accuracy, fine_tune
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from flown_jax.weights.spec import WeightSpec


@dataclass(frozen=True, eq=False)
class Training:
    """Images of a data set, preprocessed for its networks.

    Attributes:
      images, labels: (n, H, W, C) float32 and (n,), to train on.
      validation_images, validation_labels: to choose by.
    """

    images: np.ndarray
    labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray


def train_with_rates(
    context: StageContext,
    spec: WeightSpec,
    starts: Mapping[str, np.ndarray],
    tried: Mapping[str, np.ndarray],
    rates: Sequence[float],
    data: Training,
    *,
    seeds: tuple[Sequence[int], Sequence[int]],
    epochs: Sequence[int],
    tuned_at: int,
    names: tuple[str, str],
    **recipe: Any,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The rate (K,) of each kind of start, and what `fine_tune` returns for all starts with it.

    Args:
      starts: kind -> (S, D). tried: kind -> (T, D), networks that are there for the choice alone.
      rates: R of them; a single one is not tried.
      data: images to train on, and to choose by.
      seeds: of the orders of the data, in the run that chooses (K R T of them) and in the starts'
        own. names: of these runs in the stage.
      epochs: as in `fine_tune`. tuned_at: epoch after which rates are compared.
      recipe: `optimizer` and `batch`, as in `fine_tune`.
    """
    first, second = seeds
    chosen = _chosen(
        context, spec, tried, rates, data, seeds=first, epoch=tuned_at, name=names[0], **recipe
    )
    return chosen, fine_tune(
        context,
        spec,
        np.concatenate(list(starts.values())),
        seeds=second,
        learning_rates=np.repeat(chosen, [len(weights) for weights in starts.values()]),
        epochs=epochs,
        name=names[1],
        images=data.images,
        labels=data.labels,
        **recipe,
    )


def train_starts(
    context: StageContext,
    spec: WeightSpec,
    starts: Mapping[str, np.ndarray],
    data: Training,
    *,
    name: str,
    seed: int,
    steps: int,
    batch: int,
    rates: Sequence[float],
    tuned_on: int,
) -> dict[str, np.ndarray]:
    """The same starts after some steps of training with Adam, by name.

    The learning rate of each kind of start is chosen on validation images.

    Args:
      starts: kind -> (S, D). data: the set's images.
      name: of the set; runs of a stage differ in it.
      seed: of the order of the images.
      rates: learning rates. tuned_on: starts of a kind that choose among them.
    """
    order = np.random.default_rng((seed, 3)).permutation(len(data.labels))
    # One epoch of as many images as the steps take.
    rows = np.resize(order, steps * batch)
    counts = [len(weights) for weights in starts.values()]
    # A kind with fewer starts tries its own again, with other orders of the images.
    tried = {kind: w[np.arange(tuned_on) % len(w)] for kind, w in starts.items()}
    _, found = train_with_rates(
        context,
        spec,
        starts,
        tried,
        rates,
        replace(data, images=data.images[rows], labels=data.labels[rows]),
        seeds=(range(len(rates) * sum(map(len, tried.values()))), range(sum(counts))),
        epochs=(1,),
        tuned_at=1,
        names=(f"{name}-rates", name),
        optimizer=Recipe(steps=steps, batch=batch, learning_rate=1.0, optimizer="adam"),
        batch=batch,
    )
    return dict(zip(starts, np.split(found["weights"][0], np.cumsum(counts)[:-1]), strict=True))


def tuned_accuracy(
    spec: WeightSpec,
    tuned: Mapping[str, np.ndarray],
    epochs: Sequence[int],
    images: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """Accuracy (E, N) of networks that were trained on; chance where they are no longer finite.

    Args:
      tuned: what `fine_tune` returns. epochs: that it was given.
      images: (n, H, W, C) float32, preprocessed. labels: (n,).
    """
    found = accuracy(spec, tuned["weights"], images, labels)
    trained = np.asarray(epochs)[:, None] > 0
    classes = spec.sizes_dict.get("num_classes") or int(np.max(labels)) + 1
    return np.where(trained & ~np.isfinite(tuned["train_loss"]), 1 / classes, found)


def best(rates: Sequence[float], accuracies: np.ndarray) -> np.ndarray:
    """The rate (S,) with the best of a start's accuracies (S, R); the first of equals."""
    return np.asarray(rates, np.float64)[np.argmax(accuracies, axis=1)]


def _chosen(
    context: StageContext,
    spec: WeightSpec,
    tried: Mapping[str, np.ndarray],
    rates: Sequence[float],
    data: Training,
    *,
    seeds: Sequence[int],
    epoch: int,
    name: str,
    **recipe: Any,
) -> np.ndarray:
    """The rate (K,) of each kind that does best on validation images; a single one is not tried."""
    if len(rates) == 1:
        return np.full(len(tried), rates[0], np.float64)
    count = len(next(iter(tried.values())))
    tuned = fine_tune(
        context,
        spec,
        np.concatenate([weights for weights in tried.values() for _ in rates]),
        seeds=seeds,
        learning_rates=np.repeat(np.tile(np.asarray(rates, np.float64), len(tried)), count),
        epochs=(epoch,),
        name=name,
        images=data.images,
        labels=data.labels,
        **recipe,
    )
    measured = tuned_accuracy(spec, tuned, (epoch,), data.validation_images, data.validation_labels)
    return best(rates, measured.reshape(len(tried), len(rates), count).mean(-1))
