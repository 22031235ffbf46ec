"""Starts of training that generated weights are compared with (paper, Table 3).

A start that is random or a network of a zoo differs from run to run; a mean of a zoo is one
network, and its runs differ in the order of the data alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flown_jax.data import image_sets
from flown_jax.evaluation.classification import interval
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.networks.conditions import Conditions, nearest_set
from flown_jax.training.recipe import Recipe
from flown_jax.weights.spec import WeightSpec

TABLE = "initialise"
# Field of a recipe -> what the published zoos call it, and what is taken where neither is there.
_FIELDS: dict[str, tuple[str, Any]] = {
    "optimizer": ("optim::optimizer", "adam"),
    "learning_rate": ("optim::lr", 1e-3),
    "weight_decay": ("optim::wd", 0.0),
    "schedule": ("", "constant"),
    "momentum": ("optim::momentum", 0.9),
    "batch": ("training::batchsize", 10),
}
_SCHEMES = ("uniform", "normal", "kaiming_uniform", "kaiming_normal")
_SILENT = ("schedule", "momentum", "weight_decay")  # whose absence needs no remark


@dataclass(frozen=True)
class ZooRecipe:
    """How the networks of a zoo were trained, and so how others are compared with them.

    Attributes:
      optimizer, learning_rate, weight_decay, schedule, momentum, batch: as in a `Recipe`.
      initialisation: as in `initialise_cnn`, or "" where the zoo says none of these.
      remarks: sentences on what the zoo does not say.
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    schedule: str
    momentum: float
    batch: int
    initialisation: str
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, recipe: Mapping[str, Any]) -> ZooRecipe:
        """The recipe of a zoo, trained here or imported.

        What is missing, or cannot be trained with here, is that of Adam at 1e-3 in batches of 10,
        with a remark.

        Args:
          name: of the data set. recipe: of its zoo.
        """
        found: dict[str, Any] = {}
        missing = []
        for field, (alias, default) in _FIELDS.items():
            value = recipe.get(field, recipe.get(alias))
            if not _usable(field, value):
                if value is not None or field not in _SILENT:
                    missing.append(f"{field} {default}")
                value = default
            found[field] = type(default)(value)
        start = recipe.get("initialisation", recipe.get("model::init_type"))
        remarks = []
        if start not in _SCHEMES:
            remarks.append(
                f"The zoo of {name} does not say how its networks began: there is no zoo_start."
            )
            start = ""
        if missing:
            remarks.append(
                f"The zoo of {name} does not say all of its recipe: {', '.join(missing)} instead."
            )
        return cls(**found, initialisation=start, remarks=tuple(remarks))

    def in_steps(self, steps: int) -> Recipe:
        """The recipe of a run of so many steps."""
        return Recipe(
            steps=steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            optimizer=self.optimizer,
            momentum=self.momentum,
            nesterov=False,
        )


def on_disk(names: Iterable[str], data_dir: str | Path) -> tuple[str, ...]:
    """Those of the image sets that are embedded or prepared in `data_dir`, damaged or not."""
    return tuple(name for name in names if image_sets.at_hand(name, data_dir))


def random_starts(keys: jax.Array, spec: WeightSpec, scheme: str) -> np.ndarray | None:
    """Weights (R, D) as `initialise_cnn` draws them; None for a network that is no `CNN`.

    Args:
      keys: (R,).
    Raises:
      UserError: an unknown scheme.
    """
    module, inputs = spec.module(), spec.inputs_dict
    if not isinstance(module, CNN):
        return None
    shape = (inputs["size"], inputs["size"], inputs["channels"])

    def one(key: jax.Array) -> jax.Array:
        return spec.flatten({"params": initialise_cnn(key, module, shape, scheme)})

    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float32)


def members(seed: int, weights: np.ndarray, count: int) -> np.ndarray:
    """`count` networks of (N, D) in random order, different ones as far as there are so many."""
    order = np.random.default_rng(seed).permutation(len(weights))
    return weights[np.resize(order, count)]


def mean_start(weights: np.ndarray, count: int) -> np.ndarray:
    """The mean of networks (N, D), `count` times."""
    mean = np.asarray(weights, np.float64).mean(0).astype(np.float32)
    return np.repeat(mean[None], count, axis=0)


def nearest(condition: Conditions, banks: Mapping[str, Conditions]) -> str:
    """The data set that is nearest for most of a set's support draws; the first of equals.

    Args:
      condition, banks: as in `conditions.nearest_set`.
    """
    votes = Counter(nearest_set(condition, banks))
    return max(banks, key=lambda name: votes[name])


def curve(epochs: Sequence[int], accuracies: np.ndarray) -> dict[str, list[Any]]:
    """{"epochs", "mean", "std"} of accuracies (E, R) of R runs; the std is 0 for one run."""
    spread = accuracies.std(1, ddof=1) if accuracies.shape[1] > 1 else np.zeros(len(accuracies))
    return {
        "epochs": [int(epoch) for epoch in epochs],
        "mean": [float(value) for value in accuracies.mean(1)],
        "std": [float(value) for value in spread],
    }


def rows(
    start: str, name: str, epochs: Sequence[int], accuracies: np.ndarray, rate: float
) -> list[dict[str, Any]]:
    """Tidy rows of one start on one data set: mean and 95 % interval over runs, and its rate.

    Args:
      accuracies: (E, R). rate: learning rate that was chosen.
    """
    count = accuracies.shape[1]
    found = [
        (f"accuracy_epoch_{epoch}", float(own.mean()), interval(own)[1] if count > 1 else None)
        for epoch, own in zip(epochs, accuracies, strict=True)
    ]
    found.append(("learning_rate", float(rate), None))
    return [
        {
            "table": TABLE,
            "method": start,
            "set": name,
            "metric": metric,
            "value": value,
            "ci95": ci95,
            "n": count,
        }
        for metric, value, ci95 in found
    ]


def _usable(field: str, value: Any) -> bool:
    if field == "optimizer":
        return value in ("adam", "adamw", "sgd")
    if field == "schedule":
        return value in ("constant", "cosine")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if field == "batch":
        return value >= 1
    return value > 0 if field == "learning_rate" else value >= 0
