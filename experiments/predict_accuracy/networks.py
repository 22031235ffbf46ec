"""The networks of a zoo in three parts, by seed: to learn from, to choose by, to be tested on."""

from __future__ import annotations

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from experiments import given_zoo
from flown_jax.errors import UserError
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.statistics import networks
from flown_jax.weights.symmetries import network
from flown_jax.weights.zoo import Zoo

_LEAST = 2  # networks of a part


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """Weights and what is to be read from them.

    Attributes:
      weights: (N, D). accuracy: (N,), the label. epoch: (N,).
      network: (N,), the number of the seed that each is a state of.
    """

    weights: np.ndarray
    accuracy: np.ndarray
    epoch: np.ndarray
    network: np.ndarray

    @property
    def count(self) -> int:
        """Networks; their states at several epochs count once."""
        return len(np.unique(self.network))


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What a run reads.

    Attributes:
      spec: of the weights. dataset: what the networks tell apart.
      learn, choose: of the zoo's training seeds. test: its held-out seeds.
    """

    spec: WeightSpec
    dataset: str
    learn: Networks
    choose: Networks
    test: Networks


def read(config: ConfigDict) -> Parts:
    """The parts of a config's zoo.

    Raises:
      UserError: no such zoo, not of whole CNNs, without labels, or of too few networks.
    """
    found = given_zoo.load(config.zoo, epochs=config.epochs or None)
    network(found.spec)
    labels = found.table.get(config.label, [None] * len(found))
    if missing := sum(label is None for label in labels):
        raise UserError(
            f"the zoo in {config.zoo} does not say the {config.label} of {missing} of its "
            f"{len(found)} networks."
        )
    number, held_out = (
        np.asarray(networks(found.table)),
        np.asarray(found.table["split"]) != "train",
    )
    if shared := set(number[held_out]) & set(number[~held_out]):
        raise UserError(
            f"the zoo in {config.zoo} holds out states of {len(shared)} of the networks that are "
            "learned from; readers are tested on networks of other seeds."
        )
    trained = list(dict.fromkeys(number[~held_out]))
    first = len(trained) - round(config.validation_share * len(trained))
    choosing = np.isin(number, trained[first:])
    masks = {"learn": ~held_out & ~choosing, "choose": choosing, "test": held_out}
    parts = {name: _part(found, config.label, number, mask) for name, mask in masks.items()}
    for name, part in parts.items():
        if part.count < _LEAST:
            raise UserError(
                f"the zoo in {config.zoo} leaves {part.count} networks to {_WORDS[name]}; "
                f"{_LEAST} are needed at least (validation_share is {config.validation_share})."
            )
    return Parts(found.spec, found.dataset, **parts)


_WORDS = {"learn": "learn from", "choose": "choose by", "test": "be tested on"}


def _part(found: Zoo, label: str, number: np.ndarray, mask: np.ndarray) -> Networks:
    own = found.select(mask)
    accuracy, epoch = np.asarray(own.table[label], float), np.asarray(own.table["epoch"])
    return Networks(own.weights, accuracy, epoch, number[mask])
