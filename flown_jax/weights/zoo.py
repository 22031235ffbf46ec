"""Zoos: many trained networks of one spec on disk, with what is known about each of them.

    zoo.create("zoos/mnist", spec, dataset="mnist", recipe={"optimizer": "adam", ...})
    zoo.add("zoos/mnist", vectors, rows)       # as often as wanted, by several processes
    train = zoo.load("zoos/mnist", split="train", epochs=range(46, 51))

Weights that a kill, a full disk or a second process could have spoilt are never seen: what `add`
was given is in the zoo wholly or not at all, and `load` checks every byte (see `zoo_files`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.files import writing
from flown_jax.weights import zoo_files as files
from flown_jax.weights.spec import Variables, WeightSpec, canonical
from flown_jax.weights.zoo_rows import PLACE, SPLITS, checked_row, identity, named


@dataclass
class Zoo:
    """Networks in memory.

    Attributes:
      weights: (N, D) float32.
      spec: what a row of the weights means.
      table: what is known about the networks, a list of length N for each column; None where a
        network's row has no such field.
      dataset, recipe: what they were trained on, and how.
      buffers, buffers_spec: running statistics (N, B) and what they mean, or None.
      base: variables of the network around a part, or None.
      path: the folder it came from.
    """

    weights: np.ndarray
    spec: WeightSpec
    table: dict[str, list[Any]]
    dataset: str
    recipe: dict[str, Any]
    buffers: np.ndarray | None = None
    buffers_spec: WeightSpec | None = None
    base: dict[str, Any] | None = None
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def rows(self) -> list[dict[str, Any]]:
        """What is known about each network, by column."""
        return [{key: column[i] for key, column in self.table.items()} for i in range(len(self))]

    def select(self, mask: Sequence[bool] | Sequence[int] | np.ndarray) -> Zoo:
        """The networks where a mask (N,) is true, or those of given indices, in their order."""
        index = np.asarray(mask)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise ValueError(f"the mask has shape {index.shape}, not ({len(self)},).")
            index = np.flatnonzero(index)
        index = index.astype(int)
        table = {key: [column[i] for i in index] for key, column in self.table.items()}
        buffers = None if self.buffers is None else self.buffers[index]
        return replace(self, weights=self.weights[index], table=table, buffers=buffers)

    def variables(self, index: int) -> dict[str, Any]:
        """All variables of one network: base, its running statistics and its weights."""
        around = self.base
        if self.buffers is not None and self.buffers_spec is not None:
            around = self.buffers_spec.unflatten(self.buffers[index], around)
        return self.spec.unflatten(self.weights[index], around)


def exists(path: str | Path) -> bool:
    """Whether there is a zoo, of whatever kind and state, in the folder."""
    return (Path(path) / files.MANIFEST).exists()


def create(
    path: str | Path,
    spec: WeightSpec,
    *,
    dataset: str,
    recipe: Mapping[str, Any],
    base: Variables | None = None,
    buffers_spec: WeightSpec | None = None,
) -> None:
    """Make an empty zoo.

    Args:
      path: a folder that is absent or empty.
      spec: of the vectors.
      dataset: name of the image set the networks are trained on, "" if unknown.
      recipe: how they are trained, JSON values.
      base: variables of the network around a part; needed if the spec is of a part.
      buffers_spec: of the running statistics, if each network has its own.
    Raises:
      UserError: the folder has something in it, a base is missing or does not fit, or the recipe
        is no JSON.
    """
    folder = Path(path)
    stored = json.loads(canonical(recipe, "the zoo's recipe"))
    if base is None and spec.partial:
        raise UserError("a zoo of parts of a network needs `base`, the variables of the whole one")
    if base is not None:
        spec.flatten(base)
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UserError(f"cannot make a zoo in {folder}: it is a file") from error
        if found := files.foreign(folder):
            raise UserError(f"cannot make a zoo in {folder}: it has {found[0]} in it")
        with files.locked(folder):
            if exists(folder):
                raise UserError(f"there is a zoo in {folder} already")
            files.clean(folder, None)
            entry = None if base is None else files.write_base(folder, base)
            manifest = files.Manifest(spec, buffers_spec, dataset, stored, entry, [], [])
            files.write_manifest(folder, manifest)


def add(
    path: str | Path,
    weights: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    buffers: np.ndarray | None = None,
    *,
    spec: WeightSpec | None = None,
) -> None:
    """Put networks into a zoo, all of them or none.

    A network is known by its row's trial, file, seed, epoch and iteration, where it has them. One
    that is there already, with the same weights and row, is left out, so that a repeated call does
    nothing.

    Args:
      path: the zoo.
      weights: (n, D).
      rows: of each network `epoch` (whole number), `split` ("train" or "held_out"), `seed` (whole
        number, None if unknown), accuracies as fractions or None, any other JSON values.
      buffers: running statistics (n, B), if the zoo has them.
      spec: of the vectors; then it is checked against the zoo's.
    Raises:
      UserError: another spec or width, a number that is not finite, a wrong row, or a network that
        is in the zoo with other weights or another row.
    """
    folder = Path(path)
    manifest = files.read_manifest(folder)
    table = [checked_row(row, i) for i, row in enumerate(rows)]
    weights = _matrix(weights, table, manifest.spec, "weights", folder)
    if (buffers is None) != (manifest.buffers_spec is None):
        has = "no running statistics" if buffers is not None else "running statistics: give buffers"
        raise UserError(f"the networks of the zoo in {folder} have {has}")
    if buffers is not None and manifest.buffers_spec is not None:
        buffers = _matrix(buffers, table, manifest.buffers_spec, "buffers", folder)
    if spec is not None:
        _same_spec(manifest.spec, spec, folder)
    with files.locked(folder):
        # What another process added meanwhile counts.
        manifest = files.read_manifest(folder)
        files.clean(folder, manifest)
        new = _new(folder, manifest, weights, table, buffers)
        if not new:
            return
        chosen = None if buffers is None else buffers[new]
        name = files.next_shard(manifest)
        shard = files.write_shard(folder, name, manifest.spec, weights[new], chosen)
        manifest.shards.append(shard)
        places = [{"shard": name, "row": place} for place in range(len(new))]
        manifest.models += [table[i] | place for i, place in zip(new, places, strict=True)]
        files.write_manifest(folder, manifest)


def load(
    path: str | Path,
    *,
    split: str | None = None,
    epochs: Iterable[int] | None = None,
    spec: WeightSpec | None = None,
) -> Zoo:
    """The networks of a zoo in the order in which they were added.

    Args:
      path: the zoo.
      split: only those of "train" or "held_out".
      epochs: only those of these epochs.
      spec: what the vectors must mean; a zoo of other networks is refused.
    Raises:
      UserError: there is no zoo, a file is damaged or has changed (it is named), another spec, or
        nothing is left of the networks.
    """
    folder = Path(path)
    manifest = files.read_manifest(folder)
    if spec is not None:
        _same_spec(manifest.spec, spec, folder)
    if split is not None and split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    wanted = None if epochs is None else set(epochs)
    models = [
        model
        for model in manifest.models
        if split in (None, model["split"]) and (wanted is None or model["epoch"] in wanted)
    ]
    if not models and (split is not None or wanted is not None):
        asked = [f"split {split!r}"] * (split is not None)
        asked += [f"epochs {sorted(wanted or ())}"] * (wanted is not None)
        raise UserError(f"the zoo in {folder} has no networks of {' and '.join(asked)}")
    weights, buffers = _gather(folder, manifest, models)
    columns = dict.fromkeys(key for m in models for key in m if key not in PLACE)
    return Zoo(
        weights=weights,
        spec=manifest.spec,
        table={key: [model.get(key) for model in models] for key in columns},
        dataset=manifest.dataset,
        recipe=manifest.recipe,
        buffers=buffers,
        buffers_spec=manifest.buffers_spec,
        base=None if manifest.base is None else files.read_base(folder, manifest.base),
        path=folder,
    )


def _gather(
    folder: Path, manifest: files.Manifest, models: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of the shards; only those shards are read that have one of the models."""
    weights = np.empty((len(models), manifest.spec.size), np.float32)
    buffers = None
    if manifest.buffers_spec is not None:
        buffers = np.empty((len(models), manifest.buffers_spec.size), np.float32)
    members: dict[str, list[int]] = {}
    for i, model in enumerate(models):
        members.setdefault(model["shard"], []).append(i)
    shards = {shard["file"]: shard for shard in manifest.shards}
    for name, index in members.items():
        values, statistics = files.read_shard(folder, shards[name], manifest)
        places = [models[i]["row"] for i in index]
        weights[index] = values[places]
        if buffers is not None and statistics is not None:
            buffers[index] = statistics[places]
    return weights, buffers


def _new(
    folder: Path,
    manifest: files.Manifest,
    weights: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    buffers: np.ndarray | None,
) -> list[int]:
    """Indices of the networks that the zoo does not have yet; the others must be the same."""
    stored = {identity(model): model for model in manifest.models}
    marks = [identity(row) for row in rows]
    if len(set(marks)) < len(marks):
        twice = next(i for i, mark in enumerate(marks) if mark in marks[:i])
        raise UserError(f"the network of {named(rows[twice])} is given twice")
    old = [i for i, mark in enumerate(marks) if mark in stored]
    models = [stored[marks[i]] for i in old]
    values, statistics = _gather(folder, manifest, models)
    for place, (i, model) in enumerate(zip(old, models, strict=True)):
        same = {key: model[key] for key in model if key not in PLACE} == rows[i]
        same = same and np.array_equal(values[place], weights[i])
        if buffers is not None and statistics is not None:
            same = same and np.array_equal(statistics[place], buffers[i])
        if not same:
            raise UserError(
                f"the network of {named(rows[i])} is in the zoo in {folder} already, with other "
                "weights or another row"
            )
    return [i for i, mark in enumerate(marks) if mark not in stored]


def _matrix(
    values: Any, rows: Sequence[Mapping[str, Any]], spec: WeightSpec, what: str, folder: Path
) -> np.ndarray:
    shape = (len(rows), spec.size)
    if np.shape(values) != shape:
        raise UserError(
            f"{what} have shape {np.shape(values)}, not {shape}: {len(rows)} rows for the zoo in "
            f"{folder}"
        )
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(values, np.float32)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise UserError(f"the {what} of {named(rows[int(np.argmin(finite))])} are not finite")
    return matrix


def _same_spec(stored: WeightSpec, given: WeightSpec, folder: Path) -> None:
    if (difference := stored.difference(given)) is not None:
        raise UserError(f"{folder / files.MANIFEST} is of other networks than these: {difference}")
