"""A zoo's folder as Ray Tune leaves it: three good trials, and one of each kind of trouble."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flown_jax.torch_import.files import write_state_dict

EPOCHS = (0, 46, 47, 48, 49, 50)
KEYS = (0, 3, 6, 9, 11)
DROPOUT_KEYS = (0, 4, 8, 11, 14)
SHAPES = ((8, 1, 5, 5), (6, 8, 5, 5), (4, 6, 2, 2), (20, 36), (10, 20))
PARAMS = {
    "model::type": "CNN",
    "model::channels_in": 1,
    "model::nlin": "tanh",
    "model::dropout": 0,
    "model::init_type": "uniform",
    "model::o_dim": 4,  # the head has 10 all the same
    "model::use_bias": False,
    "optim::optimizer": "adam",
    "optim::lr": 0.0003,
    "optim::wd": 0,
    "training::batchsize": 10,
    "dataset::dump": "/home/someone/data/dataset.pt",
}

Save = Callable[[Path, Mapping[str, np.ndarray]], Any]


def save_with_torch(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a state dict as the zoo's own code did; skips the test where torch is absent."""
    torch = pytest.importorskip("torch")
    torch.save(OrderedDict((k, torch.from_numpy(v)) for k, v in state.items()), path)


WRITERS = pytest.mark.parametrize(
    "save", [write_state_dict, save_with_torch], ids=["without torch", "with torch"]
)


def trial_name(seed: int) -> str:
    """The name of the trial with this seed, in the form of a real one."""
    return f"NN_tune_trainable_ff43b_{seed:05d}_{seed}_seed={seed}_2021-07-12_12-44-{seed:02d}"


def state(seed: int, epoch: int, keys=KEYS, shapes=SHAPES) -> dict[str, np.ndarray]:
    """A state dict of its own for every seed and epoch."""
    rng = np.random.default_rng((seed, epoch))
    found = {}
    for key, shape in zip(keys, shapes, strict=True):
        found[f"module_list.{key}.weight"] = rng.normal(size=shape).astype(np.float32)
        found[f"module_list.{key}.bias"] = rng.normal(size=shape[:1]).astype(np.float32)
    return found


def vector(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tensors in their order, each row by row."""
    return np.concatenate([value.reshape(-1) for value in parts.values()])


def accuracy(seed: int, epoch: int) -> float:
    """The test accuracy that result.json has for an epoch."""
    return round(0.5 + 0.001 * epoch + 0.01 * seed, 6)


def write_trial(
    folder: Path,
    seed: int,
    save: Save,
    *,
    epochs=EPOCHS,
    make=state,
    params: Mapping[str, Any] | None = None,
    digits: int = 6,
) -> Path:
    """A trial's folder with params.json, result.json and a checkpoint an epoch."""
    trial = folder / trial_name(seed)
    trial.mkdir(parents=True)
    (trial / "params.json").write_text(json.dumps({**PARAMS, "seed": seed, **(params or {})}))
    lines = []
    for epoch in range(51):
        row = {"training_iteration": epoch, "test_acc": accuracy(seed, epoch), "pid": 1}
        row |= {"train_acc": 0.4, "train_loss": float("nan"), "test_loss": 1.5, "done": False}
        if seed != 1:
            row["val_acc"] = 0.25
        lines.append(json.dumps(row))
    # A resumed trial repeats an iteration, and a killed one leaves half a line.
    lines.insert(30, json.dumps({"training_iteration": 46, "test_acc": 0.0}))
    (trial / "result.json").write_text("\n".join([*lines, '{"training_iteration": 47, "tes']))
    for epoch in epochs:
        checkpoint = trial / f"checkpoint_{epoch:0{digits}d}"
        checkpoint.mkdir()
        save(checkpoint / "checkpoints", make(seed, epoch))
        (checkpoint / "optimizer").write_bytes(b"of no interest")
        (checkpoint / ".is_checkpoint").touch()
    return trial


def write_zoo(folder: Path, save: Save) -> Path:
    """Seeds 1, 2, 3 are good; 4 failed, 5 lacks epoch 48, 6 has a NaN, 7 dropout; 8 has unpadded
    names, 9 is empty, 10 has a truncated file."""
    for seed in (1, 2, 3):
        write_trial(folder, seed, save)
    (write_trial(folder, 4, save) / "error.txt").write_text("CUDA out of memory")
    write_trial(folder, 5, save, epochs=tuple(e for e in EPOCHS if e != 48))
    write_trial(folder, 6, save, make=_with_nan)
    write_trial(
        folder,
        7,
        save,
        make=lambda seed, epoch: state(seed, epoch, DROPOUT_KEYS),
        params={"model::dropout": 0.5},
    )
    write_trial(folder, 8, save, digits=1)
    (folder / trial_name(9)).mkdir()
    path = write_trial(folder, 10, save) / "checkpoint_000049" / "checkpoints"
    path.write_bytes(path.read_bytes()[:5000])
    (folder / "experiment_state-2021-07-12.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    return folder


def _with_nan(seed: int, epoch: int) -> dict[str, np.ndarray]:
    found = state(seed, epoch)
    if epoch == 47:
        found["module_list.9.weight"][3, 4] = np.nan
    return found
