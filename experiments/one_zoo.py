"""The networks of a zoo that are learned from, and those that are held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments import given_zoo
from flown_jax.errors import UserError
from flown_jax.networks.order import order_remark
from flown_jax.weights.spec import WeightSpec
from flown_jax.weights.statistics import last_states, networks
from flown_jax.weights.zoo import Zoo


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """What a run learns from.

    Attributes:
      spec: of the weights. dataset: what the networks tell apart.
      train, held_out: (N, D) and (H, D).
      base: variables around weights that are a part of a network; else None.
      single: they are states of one network.
      remark: on orders of units, None where they have one.
      zoo: whole, as it was read.
    """

    spec: WeightSpec
    dataset: str
    train: np.ndarray
    held_out: np.ndarray
    base: Any
    single: bool
    remark: str | None
    zoo: Zoo


def read(folder: str | Path, held_out_every: int) -> Networks:
    """The networks of a zoo: the last state of each, or all states of one.

    Neighbouring states are near-duplicates, and where the rate fell to zero the last ones are one
    network: of these every `held_out_every`-th is held out, whatever the zoo holds out.

    Args:
      folder: of the zoo. held_out_every: from 2.
    Raises:
      UserError: no such zoo, with running statistics of each network, without the preprocessing
        of its images, or of too few networks.
    """
    found = given_zoo.load(folder)
    if found.buffers is not None:
        raise UserError(
            f"the networks in {folder} have running statistics of their own, which a weight "
            "autoencoder does not decode."
        )
    if not found.spec.inputs_dict:
        raise UserError(f"the zoo in {folder} does not say how its images were preprocessed.")
    single = len(set(networks(found.table))) == 1
    found = found.select(last_states(found.table))
    if single:
        held_out = np.arange(len(found)) % held_out_every == held_out_every - 1
    else:
        held_out = np.asarray(found.table["split"]) != "train"
    for name, mask in (("learn from", ~held_out), ("hold out", held_out)):
        if mask.sum() < 2:
            raise UserError(f"the zoo in {folder} has {mask.sum()} networks to {name}, of 2.")
    train = found.select(~held_out)
    return Networks(
        found.spec,
        found.dataset,
        train.weights,
        found.weights[held_out],
        found.base,
        single,
        order_remark({found.dataset: train.table}),
        found,
    )
