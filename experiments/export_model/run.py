"""What a run's folder tells of its meta-model: the command, the date, the figures."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import command
from flown_jax.errors import UserError
from flown_jax.files import read_json
from flown_jax.training.fingerprints import plain_values


@dataclasses.dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
      command: the line that makes it again.
      date: of its end, YYYY-MM-DD; machine: backend and versions in words.
      results: the content of results.json.
    """

    command: str
    date: str
    machine: str
    results: Mapping[str, Any]

    @property
    def experiment(self) -> str:
        """Name of the command."""
        return str(self.results["experiment"])


def read(workdir: Path) -> Run:
    """The run in a folder.

    Raises:
      UserError: it has no results yet, or they are damaged.
    """
    path = workdir / "results.json"
    if not path.is_file():
        raise UserError(f"{workdir} has no results.json: run its experiment to its end first.")
    results = read_json(path, f"the run in {workdir}")
    try:
        about = results["environment"]
        versions = ", ".join(f"{name} {about['packages'][name]}" for name in ("jax", "flax"))
        machine = f"{about['backend']} ({about['cpu_available']} cores), {versions}"
        line = _command(results["experiment"], results["variant"], results["config"])
        _ = results["rows"], results["seconds"], results["peak_memory_gib"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not the results of a run: {error} is missing.") from error
    date = time.strftime("%Y-%m-%d", time.gmtime(path.stat().st_mtime))
    return Run(line, date, f"{machine}, flown_jax {about['flown_jax']}", results)


def _command(experiment: str, variant: str, config: Mapping[str, Any]) -> str:
    """The line, with every field that the variant has otherwise."""
    file = f"{command.config_file(experiment)}:{variant}"
    try:
        default = dict(_fields(plain_values(command.load_config(file))))
    except UserError:  # a config of the user's own
        return f"python -m experiments.{experiment} with a config that does not come with it"
    here = dict(_fields(config)) | {"seed": config["seed"]}
    changed = {k: v for k, v in here.items() if k == "seed" or default.get(k) != v}
    fields = [f"--config.{name}={_value(value)}" for name, value in changed.items()]
    return " ".join([f"python -m experiments.{experiment} --config={file}", *fields])


def _fields(config: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _value(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list) else str(value)
