"""The command line that makes a run again, of its results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from experiments import command
from flown_jax.errors import UserError
from flown_jax.training.fingerprints import plain_values

_FILES = {
    "fewshot": "configs/fsl.py",
    "train_zoo": "configs/zoo.py",
    "train_trajectory": "configs/trajectory.py",
}
# What runs of one page may differ in, and what nobody needs to repeat.
_LEFT_OUT = ("variant", "seed", "networks.first_seed", "tensorboard", "share")
_SEEDS = {"train_zoo": "networks.first_seed"}


def command_line(run: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The command of a run without its seed, and the fields of its config that no flag can set.

    What the variant of the checkout's config file says is left out; of paths of another machine
    the last part stands behind `PATH/`.

    Args:
      run: as `runs.load` gives it.
    """
    experiment, config = run["experiment"], run["config"] or {}
    if experiment == "novelty":
        return _audit(config), []
    file = _FILES.get(experiment, f"configs/{experiment}.py")
    start = f"python -m experiments.{experiment} --config={file}:{run['variant']}"
    mine = dict(_leaves(config))
    try:
        own = dict(_leaves(plain_values(command.load_config(f"{file}:{run['variant']}"))))
    except UserError:  # a config file of the user's own, or of another version
        return start.replace(file, "FILE"), []
    names = [name for name in dict.fromkeys([*mine, *own]) if name not in _LEFT_OUT]
    flags = [
        f"--config.{name}={_value(mine[name])}"
        for name in names
        if name in mine and name in own and mine[name] != own[name]
    ]
    unlike = [name for name in names if (name in mine) != (name in own)]
    return " ".join([start, *map(shlex.quote, flags)]), unlike


def seed_flag(experiment: str) -> str:
    """The flag that gives a run its seed."""
    if experiment == "novelty":
        return "--seed"
    return f"--config.{_SEEDS.get(experiment, 'seed')}"


def without_place(text: str) -> str:
    """The name of a path without the folders of a machine."""
    return f"PATH/{PurePath(text).name}" if text.startswith(("/", "~")) else text


def _audit(config: Mapping[str, Any]) -> str:
    zoos = [without_place(str(config.get(name))) for name in ("zoo_a", "zoo_b")]
    flags = [
        f"--{name.replace('_', '-')}={_value(value)}"
        for name, value in config.items()
        if name not in ("zoo_a", "zoo_b", "seed") and value is not None
    ]
    return " ".join(["python -m experiments.novelty", *map(shlex.quote, [*zoos, *flags])])


def _value(value: Any) -> str:
    if isinstance(value, list):
        entries = [repr(without_place(v)) if isinstance(v, str) else json.dumps(v) for v in value]
        return f"({', '.join(entries)}{',' * (len(entries) == 1)})"
    if isinstance(value, str):
        return without_place(value)
    return str(value) if value is None or isinstance(value, bool) else json.dumps(value)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted name and value of every field."""
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
