"""Trajectories of Neural Network Diffusion (Wang et al. 2024): the saved states of one training.

    FOLDER/checkpoint/NNNN_accX.XXXX_seedSSSS_TAG.pth

Each file is a flat state dict: of the tensors that went on training alone (their group `main`), or
of the whole network with its running statistics (`full`). The states follow each other closely,
so those held out are the last ones.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.torch_import.files import read_state_dict
from flown_jax.torch_import.names import fitting
from flown_jax.weights.importers import known, networks
from flown_jax.weights.importers.collect import (
    Collection,
    Imported,
    arrange,
    folder_of,
    held_out_count,
    is_stray,
    nothing,
)

_NAME = re.compile(r"(\d{1,18})_acc(0\.\d+|1\.0+)_seed(\d{1,18})_(.+)\.pth")


def read(
    folder: str | Path,
    *,
    epochs: Iterable[int] | None = None,
    held_out: float = 0.0,
    model: str | None = None,
    sizes: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
    dataset: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    weight_threshold: float = np.inf,
) -> Imported:
    """The states of a trajectory, in their order.

    Args:
      folder: the folder of a data set and network, or the folder `checkpoint` in it.
      epochs: the numbers of the states wanted (the NNNN of their names); all by default.
      held_out: the share of states, the last ones, whose split is "held_out".
      model, sizes: the network, where the shapes do not tell it; see `networks.resolve`.
      base: a file of the whole network's state dict, into which partial states belong.
      dataset: the image set, where the folder's name does not tell it.
      inputs: preprocessing of the images.
      weight_threshold: largest absolute weight of a state that is taken.
    Raises:
      UserError: there is no usable state, or one is not of this network.
    """
    folder = folder_of(folder)
    wanted = None if epochs is None else set(epochs)
    held_out_count(2, held_out)
    inner = folder / "checkpoint" if (folder / "checkpoint").is_dir() else folder
    skipped: list[str] = []
    states = []
    for path in sorted(path for path in inner.glob("*.pth") if not is_stray(path)):
        found = _NAME.fullmatch(path.name)
        if found is None:
            skipped.append(
                f"{path.name}: its name is not NNNN_accX.XXXX_seedSSSS_TAG.pth, X.XXXX in 0..1"
            )
        elif wanted is None or int(found.group(1)) in wanted:
            states.append((path, found))
    if not states and (folder / "data.pt").exists():
        raise UserError(
            f"{folder / 'data.pt'} holds a pickled module, which runs code when it is loaded; only "
            "folders of .pth state dicts are read"
        )
    if not states:
        raise nothing(folder, "states of a trajectory", skipped)
    states.sort(key=lambda state: int(state[1].group(1)))
    _check_one_training(inner, states)
    whole = read_state_dict(base) if base is not None else None
    first = read_state_dict(states[0][0])
    network = _network(states[0][0], first, whole, base, model, sizes, inputs or {})
    part = network.part(set(_fitted(network, first)))
    collection = Collection(part, weight_threshold)
    for path, found in states:
        row = {
            "seed": int(found.group(3)),
            "epoch": int(found.group(1)),
            "split": "train",
            "train_accuracy": None,
            "test_accuracy": float(found.group(2)),
            "validation_accuracy": None,
            "file": path.name,
        }
        if why := collection.add(read_state_dict(path), row, str(path)):
            skipped.append(f"{path.name}: {why}")
    if not collection.rows:
        raise nothing(folder, "states of a trajectory", skipped)
    n = len(collection.rows)
    for row in collection.rows[n - held_out_count(n, held_out) :]:
        row["split"] = "held_out"
    tag = states[0][1].group(4)
    return collection.finish(
        skipped=skipped,
        dataset=dataset or known.dataset_in(tag, folder.resolve().name),
        recipe={"source": "pdiff", "folder": folder.resolve().name, "tag": tag},
        base=None if whole is None else _variables(network, whole, str(base)),
    )


def _check_one_training(folder: Path, states: list[tuple[Path, re.Match[str]]]) -> None:
    """The last states are held out as those of one training, so there must be no other."""
    trainings = sorted({f"seed{found.group(3)}_{found.group(4)}" for _, found in states})
    if len(trainings) > 1:
        raise UserError(
            f"{folder} has states of several trainings ({', '.join(trainings)}); give a folder of "
            "each"
        )
    for (first, one), (second, other) in itertools.pairwise(states):
        if int(one.group(1)) == int(other.group(1)):
            raise UserError(f"{folder}: {first.name} and {second.name} have one number")


def _network(
    path: Path,
    first: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray] | None,
    base: str | Path | None,
    model: str | None,
    sizes: Mapping[str, Any] | None,
    inputs: Mapping[str, Any],
) -> networks.Network:
    """The layout of the whole network, and a check that the first state is a part of it."""
    state, where = (first, path) if whole is None else (whole, base)
    shapes = {name: value.shape for name, value in state.items()}
    network = networks.network(*networks.resolve(model, sizes, shapes, str(where)), inputs)
    if set(network.spec.names).isdisjoint(_fitted(network, first)) and not network.is_chain:
        raise UserError(f"{path}: tensor {min(first)!r} is no part of this {network.spec.model}")
    return network


def _fitted(network: networks.Network, state: Mapping[str, Any]) -> dict[str, Any]:
    """A part of the network's state dict with the network's names, where they fit."""
    known = {*network.spec.names, *(network.buffers_spec.names if network.buffers_spec else ())}
    return fitting(state, lambda names: not known.isdisjoint(names))


def _variables(
    network: networks.Network, state: Mapping[str, np.ndarray], where: str
) -> dict[str, Any]:
    weights, buffers = arrange(network, state, where)
    variables = network.spec.unflatten(jnp.asarray(weights))
    if buffers is not None and network.buffers_spec is not None:
        variables |= network.buffers_spec.unflatten(jnp.asarray(buffers))
    return variables
