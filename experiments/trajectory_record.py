"""What the manifest of a trajectory zoo says about how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from flown_jax.data.catalogue import EMBEDDED
from flown_jax.models import registry
from flown_jax.training.fingerprints import plain_values

_EPOCHS = 100  # of the base training in table 8
_UNUSED = {
    "constant": ("milestones", "gamma", "floor"),
    "cosine": ("milestones", "gamma"),
    "multistep": (),
}


def described(config: ConfigDict, every: int) -> dict[str, Any]:
    """The recipe: both trainings without the fields that have no effect, JSON values.

    Args:
      config: as `configs/trajectory.py` makes it.
      every: steps between two states.
    """
    states = {
        "count": config.states.count,
        "every": every,
        "held_out": config.states.held_out,
        **_used(config.states.recipe),
    }
    return plain_values(
        {
            "kind": "trajectory",
            "part": config.network.part,
            "start": config.network.start,
            "augmentation": config.augmentation,
            "base": _used(config.base),
            "states": states,
        }
    )


def state_rows(config: ConfigDict, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The zoo's table: a row for each state, whose `epoch` is its number from 1.

    The last states are held out, since neighbours are near-duplicates.

    Args:
      values: accuracies and losses, (K,) each, by name.
    """
    columns = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")
    count = config.states.count
    first_held_out = count - round(config.states.held_out * count)
    return [
        {
            "seed": config.seed,
            "epoch": i + 1,
            "split": "train" if i < first_held_out else "held_out",
            **{name: float(values[name][i]) for name in columns},
        }
        for i in range(count)
    ]


def smaller(
    config: ConfigDict, module: nn.Module, images: tuple[int, int], every: int, epoch: int
) -> list[str]:
    """In what a run is less than the published one, in words; nothing of embedded images.

    Args:
      module: the network.
      images: how many training images are used, and how many there are.
      every: steps between two states. epoch: steps of an epoch.
    """
    if config.data.name in EMBEDDED:
        return []
    found = []
    # Of the CNN there are two published sizes, of the MLP there is none.
    if config.network.name not in ("cnn", "mlp"):
        published = registry.describe(registry.build(config.network.name, {}))[1]
        for name, value in registry.describe(module)[1].items():
            if name not in ("num_classes", "names") and value != published[name]:
                found.append(f"{name} {value}, not {published[name]}")
    if config.base.epochs < _EPOCHS:
        found.append(f"{config.base.epochs} epochs, not {_EPOCHS}")
    if images[0] < images[1]:
        found.append(f"{images[0]} training images, not {images[1]}")
    if every < epoch:
        found.append(f"{every} steps between two states, not an epoch's {epoch}")
    return found


def _used(recipe: ConfigDict) -> dict[str, Any]:
    unused = {"save_every", *_UNUSED[recipe.schedule]}
    if recipe.optimizer != "sgd":
        unused.add("momentum")
    return {name: value for name, value in recipe.items() if name not in unused}
