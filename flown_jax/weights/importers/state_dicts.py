"""A folder of state dicts of one network, as safetensors or PyTorch files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.torch_import.files import read_state_dict
from flown_jax.weights.importers import networks
from flown_jax.weights.importers.collect import (
    Collection,
    Imported,
    folder_of,
    held_out_count,
    is_stray,
    nothing,
)

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pt.tar", ".pth.tar")
_SEED = re.compile(r"seed[-_=]?(\d{1,18})", re.IGNORECASE)
_EPOCH = re.compile(r"(?<![a-z])ep(?:och)?[-_=]?(\d{1,18})", re.IGNORECASE)
_STEP = re.compile(r"(?<![a-z])(?:global_?)?(?:step|iter|iteration)[-_=]?\d+", re.IGNORECASE)


def read(
    folder: str | Path,
    *,
    epochs: Iterable[int] | None = None,
    nets: int | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    model: str | None = None,
    sizes: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    key: str | None = None,
    weight_threshold: float = np.inf,
) -> Imported:
    """The models of a folder's files, sorted by name; hidden files are left out.

    A name may tell more: "seed7_epoch50.pt" is epoch 50 of the net with seed 7. Without a seed,
    files whose names differ in epoch and step alone ("epoch=9-step=90.ckpt") are one net. The
    epochs of a net stay on one side of the split. Other files are nets of their own, of epoch 0.

    Args:
      folder: the folder; folders in it are not looked into.
      epochs: which ones are wanted; all by default.
      nets: at most so many nets, drawn with the seed; all by default.
      held_out: the share of nets whose split is "held_out".
      seed: of all drawing.
      model, sizes: the network, where the shapes do not tell it; see `networks.resolve`.
      dataset: the image set.
      inputs: preprocessing of the images.
      key: of the state dict in files that hold several, such as "state_dict_ema".
      weight_threshold: largest absolute weight of a model that is taken.
    Raises:
      UserError: there is no usable file, or one is damaged or not of this network.
    """
    folder = folder_of(folder)
    held_out_count(2, held_out)
    wanted = None if epochs is None else set(epochs)
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(_SUFFIXES) and path.is_file() and not is_stray(path)
    )
    rows = [_row(path) for path in files]
    chosen = [
        (path, row)
        for path, row in zip(files, rows, strict=True)
        if wanted is None or row["epoch"] in wanted
    ]
    if not chosen:
        raise nothing(folder, f"state dicts ({', '.join(_SUFFIXES)})", [])
    found = sorted({_net(row) for _, row in chosen})
    drawn = [found[i] for i in np.random.default_rng(seed).permutation(len(found))][:nets]
    held = set(drawn[: held_out_count(len(drawn), held_out)])
    collection, skipped = None, []
    for path, row in chosen:
        if _net(row) not in drawn:
            continue
        state = read_state_dict(path, key)
        if collection is None:
            shapes = {name: value.shape for name, value in state.items()}
            what = networks.resolve(model, sizes, shapes, str(path))
            collection = Collection(networks.network(*what, inputs or {}), weight_threshold)
        row["split"] = "held_out" if _net(row) in held else "train"
        if why := collection.add(state, row, str(path)):
            skipped.append(f"{path.name}: {why}")
    if collection is None or not collection.rows:
        raise nothing(folder, "state dicts", skipped)
    return collection.finish(
        skipped=skipped,
        dataset=dataset or "",
        recipe={"source": "state_dicts", "folder": folder.resolve().name},
    )


def _row(path: Path) -> dict[str, Any]:
    seed, epoch = _SEED.search(path.stem), _EPOCH.search(path.stem)
    return {
        "seed": int(seed.group(1)) if seed else None,
        "epoch": int(epoch.group(1)) if epoch else 0,
        "train_accuracy": None,
        "test_accuracy": None,
        "validation_accuracy": None,
        "file": path.name,
    }


def _net(row: Mapping[str, Any]) -> tuple[int, str]:
    """What the epochs of one net have in common."""
    if row["seed"] is not None:
        return row["seed"], ""
    return -1, _STEP.sub("", _EPOCH.sub("", row["file"]))
