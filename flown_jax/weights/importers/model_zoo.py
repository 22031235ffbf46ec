"""Zoos of Schuerholt et al. (NeurIPS 2022): a folder of Ray Tune trials, as unpacked from the zip.

    FOLDER/TRIAL/params.json                    the trial's configuration
    FOLDER/TRIAL/result.json                    a JSON object a line, an epoch each
    FOLDER/TRIAL/checkpoint_000050/checkpoints  a PyTorch state dict (or checkpoint_50/...)

The number of a checkpoint is its epoch, 0 the untrained network. A trial is a net; its epochs
never fall on both sides of the split.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.torch_import.files import read_state_dict
from flown_jax.weights.importers import known, networks
from flown_jax.weights.importers.collect import (
    Collection,
    Imported,
    folder_of,
    held_out_count,
    nothing,
)

# Columns of result.json, and what a zoo calls them.
_MEASURED = {
    "train_acc": "train_accuracy",
    "test_acc": "test_accuracy",
    "val_acc": "validation_accuracy",
    "train_loss": "train_loss",
    "test_loss": "test_loss",
    "val_loss": "validation_loss",
}
_RECIPE = ("model::", "optim::", "training::", "scheduler::")
# Fields that the training code does not use as they stand, or that the spec tells better.
_LYING = ("model::o_dim", "model::use_bias", "model::type", "model::channels_in")


@dataclass(frozen=True)
class _Trial:
    name: str
    params: Mapping[str, Any]
    results: Mapping[int, Mapping[str, Any]]
    checkpoints: Mapping[int, Path]

    @property
    def seed(self) -> int | None:
        """From params.json, or from the name ("..._seed=98_..."); None if neither tells."""
        seed, found = self.params.get("seed"), re.search(r"seed=(\d{1,18})(?!\d)", self.name)
        if type(seed) is int:
            return seed
        return int(found.group(1)) if found else None


def read(
    folder: str | Path,
    *,
    epochs: Iterable[int] | None = None,
    nets: int | None = None,
    per_net: int | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    activation: str | None = None,
    dataset: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    weight_threshold: float = np.inf,
) -> Imported:
    """The models of a zoo's folder, sorted by trial and epoch.

    Unfinished trials, missing epochs, unreadable files, and weights that are NaN or above the
    threshold are left out and named in `skipped`. Nets with dropout are read like the others.

    Args:
      folder: the experiment's folder.
      epochs: which ones are wanted; all that are there by default.
      nets: at most so many, drawn with the seed; all by default.
      per_net: at most so many epochs of a net, drawn with the seed; all by default.
      held_out: the share of nets whose split is "held_out".
      seed: of all drawing.
      activation: take only nets with this one; needed where a zoo has several.
      dataset: the image set, where the folder's name does not tell it.
      inputs: preprocessing of the images, where the zoo is none of the published ones.
      weight_threshold: largest absolute weight of a model that is taken.
    Raises:
      UserError: there is no usable model, or what is asked for above is needed.
    """
    folder = folder_of(folder)
    held_out_count(2, held_out)
    wanted = None if epochs is None else sorted(set(epochs))
    skipped: dict[str, list[str]] = {}
    trials = {trial.name: trial for trial in _trials(folder, skipped)}
    if not trials and any(folder.glob("dataset*.pt")):
        raise UserError(
            f"{folder} holds a preprocessed data set (dataset*.pt), whose pickled objects run "
            "code; download the zoo's raw zip and give the folder that it unpacks to"
        )
    if not trials:
        raise nothing(folder, "trials", [s for part in skipped.values() for s in part])
    _check_shares(trials.values())
    activation = _one_activation(folder, trials, activation, skipped)
    told = dataset or known.dataset_in(
        folder.resolve().name, *(str(t.params.get("dataset::dump", "")) for t in trials.values())
    )

    # The order of the draw is that of all names sorted, whatever the file system's is.
    names = sorted({*trials, *skipped})
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    drawn = [trials[name] for name in order if name in trials]
    network = _network(folder, drawn, wanted, activation, told, inputs)
    if not dataset:
        known.check_classes(told, network.classes, str(folder))
    collection = Collection(network, weight_threshold)
    used: list[_Trial] = []
    for trial in drawn:
        if nets is not None and len(used) >= nets:
            break
        rng = np.random.default_rng((seed, names.index(trial.name)))
        if _take(collection, trial, wanted, per_net, rng, skipped.setdefault(trial.name, [])):
            used.append(trial)
    complaints = [sentence for name in names for sentence in skipped.get(name, ())]
    if not used:
        raise nothing(folder, "trials", complaints)
    held = {trial.name for trial in used[: held_out_count(len(used), held_out)]}
    recipe, varied = _recipe(used)
    for row in collection.rows:
        row["split"] = "held_out" if row["trial"] in held else "train"
        row |= varied[row["trial"]]
    return collection.finish(
        key=lambda row: (row["trial"], row["epoch"]),
        skipped=complaints,
        dataset=told,
        recipe={"source": "model_zoo", "folder": folder.resolve().name, **recipe},
    )


def _trials(folder: Path, skipped: dict[str, list[str]]) -> Iterator[_Trial]:
    """The finished trials of a folder; the others go into `skipped`, by name."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith((".", "__")):
            continue
        try:
            yield _trial(path)
        except UserError as error:
            skipped[path.name] = [f"{path.name}: {error}"]


def _trial(path: Path) -> _Trial:
    if (path / "error.txt").exists():
        raise UserError("its training failed (error.txt)")
    try:
        params = _json((path / "params.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("there is no params.json in it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("its params.json is damaged") from error
    checkpoints: dict[int, Path] = {}
    # Old zoos write checkpoint_50, newer ones checkpoint_000050; the shorter name wins.
    for entry in sorted(path.glob("checkpoint_*"), key=lambda p: (len(p.name), p.name)):
        number = entry.name.removeprefix("checkpoint_")
        if number.isdecimal() and (entry / "checkpoints").is_file():
            checkpoints.setdefault(int(number), entry / "checkpoints")
    if not isinstance(params, dict) or not checkpoints:
        raise UserError("there are no checkpoints in it")
    return _Trial(
        path.name, params, _results(path / "result.json"), dict(sorted(checkpoints.items()))
    )


def _results(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of a result.json by training_iteration; of a repeated one the last."""
    rows = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = _json(line)
                if type(epoch := row["training_iteration"]) is int:
                    rows[epoch] = row
            except (ValueError, LookupError, TypeError, RecursionError):
                continue  # a line that a killed trial left half-written
    return rows


def _check_shares(trials: Iterable[_Trial]) -> None:
    """Refuses percent, of which a part below 1 would pass for shares."""
    for trial in trials:
        for epoch, result in trial.results.items():
            for column in (key for key in _MEASURED if key.endswith("_acc")):
                value = result.get(column)
                if isinstance(value, int | float) and not 0 <= value <= 1:
                    raise UserError(
                        f"{trial.name}/result.json has {column} {value:g} in epoch {epoch}, where "
                        "a share in 0..1 is wanted; divide percent by 100"
                    )


def _json(text: str) -> Any:
    """A JSON value whose numbers are finite: None for NaN, Infinity and 1e999, which are none."""

    def finite(number: str) -> float | None:
        return value if math.isfinite(value := float(number)) else None

    return json.loads(text, parse_float=finite, parse_constant=lambda _: None)


def _one_activation(
    folder: Path,
    trials: dict[str, _Trial],
    activation: str | None,
    skipped: dict[str, list[str]],
) -> str | None:
    """The activation of all trials; those with another one than wanted are moved to `skipped`."""
    counts: dict[str, int] = {}
    for trial in trials.values():
        kind = str(trial.params.get("model::nlin", activation))
        counts[kind] = counts.get(kind, 0) + 1
    if activation is None:
        if len(counts) > 1:
            found = ", ".join(f"{kind} ({n})" for kind, n in sorted(counts.items()))
            raise UserError(f"{folder} has nets of several activations, choose one: {found}")
        only = next(iter(counts))
        return None if only == "None" else only
    if activation not in counts:
        raise UserError(f"{folder} has no net of activation {activation}, but {', '.join(counts)}")
    for name, trial in list(trials.items()):
        if (kind := trial.params.get("model::nlin", activation)) != activation:
            skipped[name] = [f"{name}: its activation is {kind}"]
            del trials[name]
    return activation


def _network(
    folder: Path,
    trials: list[_Trial],
    wanted: list[int] | None,
    activation: str | None,
    dataset: str,
    inputs: Mapping[str, Any] | None,
) -> networks.Network:
    """The layout of the first checkpoint that can be read."""
    path, state = _first(folder, trials, wanted)
    shapes = {name: value.shape for name, value in state.items()}
    found = networks.infer(shapes)
    if found is None:
        raise UserError(f"{path} is neither one of the zoo's two CNNs nor its ResNet-18")
    sizes: dict[str, Any] = {}
    if found[0] == "cnn":
        sizes = _cnn_fields(trials, activation)
    model, sizes = networks.resolve(None, sizes, shapes, str(path))
    if inputs is None and model == "cnn":
        channels, side = sizes["image"][1], 28 if sizes["kernels"][0] == 5 else 32
        inputs = known.zoo_inputs(dataset, channels, side)
    if inputs is None:
        raise UserError(
            f"{folder} is none of the published zoos whose preprocessing is known; give inputs: "
            "size, channels, mean and std of its images"
        )
    return networks.network(model, sizes, inputs)


def _cnn_fields(trials: list[_Trial], activation: str | None) -> dict[str, Any]:
    """What shapes do not tell; nets that differ in dropout compute the same without it."""
    dropouts = {trial.params.get("model::dropout", 0) for trial in trials}
    if not all(type(rate) in (int, float) and 0 <= rate < 1 for rate in dropouts):
        raise UserError(
            f"{trials[0].name} or a trial beside it has a model::dropout in params.json that is no "
            "rate in 0..1"
        )
    fields: dict[str, Any] = {"dropout": float(dropouts.pop()) if len(dropouts) == 1 else 0.0}
    if activation is None:
        raise UserError(f"{trials[0].name}/params.json names no activation; give activation")
    return {**fields, "activation": activation}


def _first(
    folder: Path, trials: list[_Trial], wanted: list[int] | None
) -> tuple[Path, dict[str, np.ndarray]]:
    reason = "none has an epoch that is asked for"
    for trial in trials:
        for epoch in trial.checkpoints if wanted is None else wanted:
            if epoch in trial.checkpoints:
                try:
                    return trial.checkpoints[epoch], read_state_dict(trial.checkpoints[epoch])
                except UserError as error:
                    reason = str(error)
    raise UserError(f"none of the trials in {folder} can be used: {reason}")


def _take(
    collection: Collection,
    trial: _Trial,
    wanted: list[int] | None,
    per_net: int | None,
    rng: np.random.Generator,
    complaints: list[str],
) -> int:
    """How many epochs of a trial were taken; why others were not goes into `complaints`."""
    order = np.asarray(list(trial.checkpoints) if wanted is None else wanted)
    if per_net is not None:
        order = rng.permutation(order)
    taken = 0
    for epoch in order.tolist():
        if taken == per_net:
            break
        path = trial.checkpoints.get(epoch)
        try:
            if path is None:
                raise UserError("there is no checkpoint")
            why = collection.add(read_state_dict(path), _row(trial, epoch), str(path))
        except UserError as error:
            why = str(error)
        if why:
            complaints.append(f"{trial.name}, epoch {epoch}: {why}")
        else:
            taken += 1
    return taken


def _row(trial: _Trial, epoch: int) -> dict[str, Any]:
    result = trial.results.get(epoch, {})
    row: dict[str, Any] = {"trial": trial.name, "seed": trial.seed, "epoch": epoch}
    for column, name in _MEASURED.items():
        value = result.get(column)
        if type(value) not in (int, float):
            value = None  # absent, or the bare token NaN
        row[name] = value
    return row


def _recipe(trials: list[_Trial]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The training fields that all trials share, and by trial those in which they differ."""
    fields = sorted(
        {
            key
            for trial in trials
            for key in trial.params
            if key.startswith(_RECIPE) and key not in _LYING
        }
    )
    values = {key: [trial.params.get(key) for trial in trials] for key in fields}
    shared = {key: found[0] for key, found in values.items() if found.count(found[0]) == len(found)}
    return shared, {
        trial.name: {key: trial.params.get(key) for key in fields if key not in shared}
        for trial in trials
    }
