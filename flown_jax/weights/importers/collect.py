"""What every importer shares: its result, vectors from state dicts, what is left out and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.torch_import.layer_order import layers_in_order
from flown_jax.torch_import.names import fitting
from flown_jax.weights.importers.networks import Network
from flown_jax.weights.spec import WeightSpec

# Counters of BatchNorm layers: neither weights nor statistics.
_IGNORED = "num_batches_tracked"


@dataclass
class Imported:
    """Models of one base network, and what is known of each.

    Attributes:
      weights: (n, D) float32, in the order of `spec`.
      rows: what is known of each model: seed, epoch, split, accuracies in 0..1 or None, ....
      spec: where the numbers of a vector belong.
      skipped: a sentence for each model that was left out.
      dataset: the name of the image set, "" where unknown.
      recipe: how the models were trained, as far as the source says.
      buffers, buffers_spec: running statistics (n, B), where the network has them.
      base: the variables of the host network, where the vectors are a part of one.
    """

    weights: np.ndarray
    rows: list[dict[str, Any]]
    spec: WeightSpec
    skipped: list[str]
    dataset: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    buffers: np.ndarray | None = None
    buffers_spec: WeightSpec | None = None
    base: dict[str, Any] | None = None


class Collection:
    """Vectors and rows, gathered model by model.

    Args:
      network: the layout that every state dict must have.
      threshold: a model with a weight above it, in absolute value, is left out.
    """

    def __init__(self, network: Network, threshold: float = np.inf):
        self.network, self._threshold = network, threshold
        self._weights: list[np.ndarray] = []
        self._buffers: list[np.ndarray] = []
        self._orders: dict[frozenset[str], tuple[list[str], str]] = {}  # of names, and whose it is
        self.rows: list[dict[str, Any]] = []

    def add(self, state: Mapping[str, np.ndarray], row: Mapping[str, Any], where: str) -> str:
        """Take a model, or say why not; "" if it was taken.

        Raises:
          UserError: the state dict is not one of this network, or has its layers in another order
            than one before; `where` begins the sentence.
        """
        state, names = _placed(self.network, state, where)
        order = list(names.values())
        first, whose = self._orders.setdefault(frozenset(order), (order, where))
        if order != first:
            raise UserError(
                f"{where} has its layers in another order than {whose}; number them in the order "
                "in which they run"
            )
        weights, buffers = _vectors(self.network, state, names, where)
        numbers = weights if buffers is None else np.concatenate([weights, buffers])
        if not np.isfinite(numbers).all():
            return "NaN or infinite weights"
        largest = float(np.abs(weights).max())
        if largest > self._threshold:
            return f"a weight of {largest:.4g} is above the threshold {self._threshold:g}"
        self._weights.append(weights)
        if buffers is not None:
            self._buffers.append(buffers)
        self.rows.append(dict(row))
        return ""

    def finish(self, key: Callable[[dict[str, Any]], Any] | None = None, **facts: Any) -> Imported:
        """The models gathered, as they came or sorted by a key of their rows."""
        order = list(range(len(self.rows)))
        if key is not None:
            order.sort(key=lambda i: key(self.rows[i]))
        buffers = np.stack([self._buffers[i] for i in order]) if self._buffers else None
        return Imported(
            weights=np.stack([self._weights[i] for i in order]),
            rows=[self.rows[i] for i in order],
            spec=self.network.spec,
            buffers=buffers,
            buffers_spec=self.network.buffers_spec,
            **facts,
        )


def arrange(
    network: Network, state: Mapping[str, np.ndarray], where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights (D,) and running statistics (B,) of a state dict, float32.

    Entries are found by name, without what wrappers put before names (`torch_import.names`). A
    chain of layers, as the zoo CNNs are, may have any names: theirs move when dropout is added, so
    then it is the order of the layers that counts (`torch_import.layer_order`).
    Raises:
      UserError: a tensor is missing, has another shape or is unknown, holds no floating-point
        numbers, or may have several places; `where` begins the sentence.
    """
    return _vectors(network, *_placed(network, state, where), where)


def _placed(
    network: Network, state: Mapping[str, np.ndarray], where: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The state dict without wrappers and counters, and its names by those of the network."""
    state = {name: value for name, value in state.items() if not name.endswith(_IGNORED)}
    specs = [network.spec] + ([network.buffers_spec] if network.buffers_spec else [])
    wanted = [entry.name for spec in specs for entry in spec.entries]
    names = dict(zip(wanted, wanted, strict=True))
    try:
        state = fitting(state, lambda found: set(wanted) <= set(found))
        if network.is_chain and len(state) == len(wanted) and set(state) != set(wanted):
            names = dict(zip(wanted, _chain_names(network, state), strict=True))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return state, names


def _vectors(
    network: Network, state: Mapping[str, np.ndarray], names: Mapping[str, str], where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    vectors = []
    for spec in [network.spec] + ([network.buffers_spec] if network.buffers_spec else []):
        parts = []
        for entry in spec.entries:
            name = names[entry.name]
            if name not in state:
                raise UserError(
                    f"{where} has no tensor {name!r}, which this {spec.model} needs with shape "
                    f"{entry.shape}"
                )
            if state[name].shape != entry.shape:
                raise UserError(
                    f"{where}: tensor {name!r} has shape {state[name].shape}, where this "
                    f"{spec.model} has {entry.shape}"
                )
            if not jnp.issubdtype(state[name].dtype, jnp.floating):
                raise UserError(
                    f"{where}: tensor {name!r} holds {state[name].dtype}, where weights are "
                    "floating-point numbers"
                )
            with np.errstate(over="ignore"):  # then it is infinite, and left out as such
                parts.append(np.asarray(state[name]).astype(np.float32).reshape(-1))
        vectors.append(np.concatenate(parts))
    unknown = sorted(set(state) - set(names.values()))
    if unknown:
        raise UserError(f"{where}: tensor {unknown[0]!r} is no part of this {network.spec.model}")
    return vectors[0], vectors[1] if len(vectors) > 1 else None


def _chain_names(network: Network, state: Mapping[str, np.ndarray]) -> list[str]:
    """The names of a chain's tensors in the order of its spec."""
    shapes = {name: value.shape for name, value in state.items()}
    kernels = [e.shape for e in network.spec.entries if e.name.endswith(".weight")]
    layers = layers_in_order(shapes, kernels)
    names = [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
    return names if len(names) == len(state) else list(state)


def held_out_count(n: int, share: float) -> int:
    """How many of n nets are held out: the share, at least one of two or more, never all.

    Raises:
      UserError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise UserError(f"held_out is {share:g}, where a share of at least 0 and below 1 is wanted")
    return min(max(round(share * n), 1), n - 1) if share > 0 else 0


def folder_of(path: str | Path) -> Path:
    """The folder at `path`.

    Raises:
      UserError: there is none; of archives and data sets it says what to do instead.
    """
    path = Path(path)
    try:
        if path.is_dir():
            os.listdir(path)
            return path
        if path.suffix == ".zip" and path.exists():
            raise UserError(f"{path} is an archive; unpack it and give the folder")
        if path.exists():
            raise UserError(f"{path} is a file, where a folder is wanted")
    except OSError as error:  # no right to look into it, or a name that no file can have
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    raise UserError(f"there is no folder {path}")


def is_stray(path: Path) -> bool:
    """Whether a file is hidden, or what a program left beside one (`~$net.pt`)."""
    return path.name.startswith((".", "~"))


def nothing(folder: Path, what: str, skipped: Sequence[str]) -> UserError:
    """The error of a folder in which no model could be used."""
    if not skipped:
        return UserError(f"there are no {what} in {folder}")
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    return UserError(f"none of the {what} in {folder} can be used: {skipped[0]}{more}")
