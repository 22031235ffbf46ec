"""How the networks of a zoo were trained, read from what the zoo says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flown_jax.training.recipe import Recipe

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
