"""Resumable stages: what is finished is never done again, what changed is refused by name.

A stage is a folder workdir/stages/NAME: while it runs it holds running.json and progress/,
where the stage's own checkpoints live; when it is finished it holds outputs.safetensors and
stage.json, which is written last. A stage that several runs share is such a folder
SHARED/NAME-FINGERPRINT with a lock beside it, so that one run computes and the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.files import read_json, sha256_of, write_json, writing
from flown_jax.training.records import Records
from flown_jax.training.trees import load_tree, save_tree
from flown_jax.training.workdir import Workdir

# Raised when the meaning of stored outputs changes: older ones are then refused.
FORMAT = 1
_OUTPUTS = "outputs.safetensors"


@dataclass(frozen=True)
class StageResult:
    """A finished stage.

    Attributes:
      name: the stage's name.
      fingerprint: SHA-256 of its inputs; stands for this result in the inputs of later stages.
      path: its folder.
      values: what its function returned, a nested dict of NumPy arrays and plain values.
      seconds: time it took, earlier attempts included.
      reused: it was loaded by this call, not computed.
    """

    name: str
    fingerprint: str
    path: Path
    values: dict[str, Any] = field(repr=False)
    seconds: float
    reused: bool = False


@dataclass(frozen=True)
class StageContext:
    """What a stage's function may use: its name, a folder for checkpoints, the run's records.

    The folder `directory` survives a killed run and is removed when the stage is finished.
    """

    name: str
    directory: Path
    records: Records


def stage(
    workdir: Workdir | str | Path,
    name: str,
    inputs: Mapping[str, Any],
    function: Callable[[StageContext], Mapping[str, Any]],
    shared: str | Path | None = None,
) -> StageResult:
    """The stage's result: loaded if it is finished, else computed, resumed and finished.

    Args:
      workdir: the run's folder.
      name: name of the stage, also of its folder: letters, digits, "-", "_" and ".".
      inputs: all that the result depends on: JSON values, configs and StageResults.
      function: computes the result, a nested dict of arrays and plain values. It is called
        again after an interruption and finds its checkpoints in `context.directory`.
      shared: a folder for results that runs share: a run with the same inputs uses the same
        result, other inputs are another result, and of several runs at once one computes.
    Raises:
      UserError: the stage was begun or finished with other inputs (the first difference is
        named), its files are damaged, or the disk refuses.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"a stage's name has letters, digits, '-', '_' and '.', not {name!r}")
    root = workdir.path if isinstance(workdir, Workdir) else Path(workdir)
    mark = fingerprint(name, inputs)
    if shared is None:
        folder = root / "stages" / name
    else:
        folder = Path(shared) / f"{name}-{mark[:16]}"
    place = _Place(name, mark, plain_values(inputs), folder, shared is not None)
    with writing(folder):
        # Others may be reading a shared result: what a kill left there is removed under the lock.
        if place.finished and not (place.shared and place.untidy):
            return _load(place)
        with _records(workdir, root) as records, _alone(place, records):
            if place.finished:
                return _load(place)
            return _run(place, function, records)


def fingerprint(name: str, inputs: Mapping[str, Any]) -> str:
    """SHA-256 of a stage's name, its inputs and the format's version, hexadecimal."""
    content = {"format": FORMAT, "name": name, "inputs": plain_values(inputs)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_values(value: Any, where: str = "inputs") -> Any:
    """The value as JSON holds it: tuples as lists, configs as dicts, results as fingerprints.

    Raises:
      UserError: a part of it is not JSON; `where` names it.
    """
    if isinstance(value, StageResult):
        return {"stage": value.name, "fingerprint": value.fingerprint}
    if hasattr(value, "to_dict"):  # an ml_collections config
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain_values(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(part, f"{where}.{i}") for i, part in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise UserError(f"{where} must be JSON values or stage results, not {value!r:.80}")


@dataclass(frozen=True)
class _Place:
    """A stage's folder and what must be found there."""

    name: str
    mark: str
    inputs: Any
    folder: Path
    shared: bool

    @property
    def finished(self) -> bool:
        return (self.folder / "stage.json").exists()

    @property
    def untidy(self) -> bool:
        return any((self.folder / left).exists() for left in ("running.json", "progress"))

    @property
    def damaged(self) -> str:
        return f"stage {self.name} is damaged (remove {self.folder} to run it again)"


def _run(
    place: _Place, function: Callable[[StageContext], Mapping[str, Any]], records: Records
) -> StageResult:
    folder, progress = place.folder, place.folder / "progress"
    before = 0.0
    if (folder / "running.json").exists():
        running = read_json(folder / "running.json", f"stage {place.name}")
        _same(place, running, "running.json")
        before = running["seconds"] + _worked(progress, running["started"])
    progress.mkdir(parents=True, exist_ok=True)
    started = time.time()
    description = {"fingerprint": place.mark, "inputs": place.inputs}
    write_json(folder / "running.json", {**description, "seconds": before, "started": started})
    values = function(StageContext(place.name, progress, records))
    save_tree(folder / _OUTPUTS, values)
    finished = {
        "name": place.name,
        "format": FORMAT,
        "fingerprint": place.mark,
        "sha256": sha256_of(folder / _OUTPUTS),
        "seconds": round(before + time.time() - started, 3),
        "inputs": place.inputs,
    }
    write_json(folder / "stage.json", finished)
    _clean(folder)
    return replace(_load(place), reused=False)


def _load(place: _Place) -> StageResult:
    stored = read_json(place.folder / "stage.json", f"{place.damaged}: its record")
    if not isinstance(stored, dict) or not {"fingerprint", "sha256", "seconds"} <= set(stored):
        raise UserError(f"{place.damaged}: stage.json is not its record")
    _same(place, stored, "stage.json")
    outputs = place.folder / _OUTPUTS
    if not outputs.exists() or sha256_of(outputs) != stored["sha256"]:
        raise UserError(
            f"{place.damaged}: {_OUTPUTS} is missing or has changed since it was written"
        )
    with contextlib.suppress(OSError):
        _clean(place.folder)  # a kill between stage.json and the end leaves these behind
    values = load_tree(outputs)
    return StageResult(place.name, place.mark, place.folder, values, stored["seconds"], reused=True)


def _same(place: _Place, stored: Mapping[str, Any], file: str) -> None:
    if stored.get("fingerprint") == place.mark:
        return
    if place.shared:  # the folder is named after the fingerprint
        raise UserError(f"{place.damaged}: {file} is not its record")
    difference = _difference(stored.get("inputs"), place.inputs)
    what = "another version of flown_jax" if difference is None else difference
    verb = "finished" if file == "stage.json" else "begun"
    raise UserError(
        f"stage {place.name} in {place.folder.parent.parent} was {verb} with {what}: "
        "choose a new --workdir"
    )


def _difference(there: Any, here: Any, where: str = "") -> str | None:
    """The first field in which two JSON values differ, with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            path = f"{where}.{key}" if where else key
            if key not in there:
                return f"no {path}, and now has {path} = {_short(here[key])}"
            if key not in here:
                return f"{path} = {_short(there[key])}, which is now absent"
            if (found := _difference(there[key], here[key], path)) is not None:
                return found
        return None
    # 1, 1.0 and True are equal in Python and differ in a fingerprint.
    if json.dumps(there, sort_keys=True) == json.dumps(here, sort_keys=True):
        return None
    return f"{where} = {_short(there)}, and now has {where} = {_short(here)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _worked(progress: Path, started: float) -> float:
    """Seconds of a killed run, from its start to the last file that it wrote."""
    times = [path.stat().st_mtime for path in progress.rglob("*")]
    return max([0.0, *(moment - started for moment in times)])


def _clean(folder: Path) -> None:
    (folder / "running.json").unlink(missing_ok=True)
    if (folder / "progress").exists():
        shutil.rmtree(folder / "progress")


@contextlib.contextmanager
def _alone(place: _Place, records: Records) -> Iterator[None]:
    """A context that one process has at a time where the stage is shared; the others wait.

    The lock ends with its process. Its file lies beside the folder, which a user may remove, and
    stays: whoever removed it could let two in.
    """
    if not place.shared:
        yield
        return
    shared = place.folder.parent
    if shared.exists() and not shared.is_dir():
        raise UserError(f"{shared} is a file: shared results need a folder")
    shared.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(shared / f".{place.folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            records.note(f"{place.name}: another run is computing {place.folder}; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child would hold it open
        os.close(descriptor)


@contextlib.contextmanager
def _records(workdir: Workdir | str | Path, root: Path) -> Iterator[Records]:
    if isinstance(workdir, Workdir):
        yield workdir.records
        return
    records = Records(root)
    try:
        yield records
    finally:
        records.close()
