"""Resumable stages: what is finished is never done again, what changed is refused by name.

A stage is a folder workdir/stages/NAME: while it runs it holds running.json and progress/,
where the stage's own checkpoints live; when it is finished it holds outputs.safetensors and
stage.json, which is written last. A stage that several runs share is such a folder
SHARED/NAME-FINGERPRINT with a lock beside it, so that one run computes and the others wait.
Of a run of several processes all call the function, process 0 holds the lock and writes, and all
take the result from the disk.

A stage's function is given its inputs, those that were fingerprinted, and nothing else: it is a
plain function without a closure, so that no dependency can be left out by mistake.
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
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import flown_jax
from flown_jax.errors import UserError
from flown_jax.files import read_json, sha256_of, write_json, writing
from flown_jax.training.fingerprints import difference, plain_values
from flown_jax.training.parallel import agree, lead, leads
from flown_jax.training.records import Records
from flown_jax.training.trees import load_tree, save_tree
from flown_jax.training.workdir import Workdir

# Raised when the meaning of stored outputs changes: older ones are then refused.
FORMAT = 2
_OUTPUTS = "outputs.safetensors"
_SEEN = 60.0  # seconds in which another machine sees a file


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
    """What a stage's function may use.

    Attributes:
      name: of the stage.
      directory: a folder for checkpoints; it survives a killed run and is removed when the stage
        is finished.
      records: of the run.
      inputs: what the stage was given, by name, as attributes.
    """

    name: str
    directory: Path
    records: Records
    inputs: types.SimpleNamespace = field(default_factory=types.SimpleNamespace)


def stage(
    workdir: Workdir | str | Path,
    name: str,
    inputs: Mapping[str, Any],
    function: Callable[[StageContext], Mapping[str, Any]],
    shared: str | Path | None = None,
    version: int = 1,
) -> StageResult:
    """The stage's result: loaded if it is finished, else computed, resumed and finished.

    Args:
      workdir: the run's folder.
      name: name of the stage, also of its folder: letters, digits, "-", "_" and ".".
      inputs: all that the result depends on, by name: what `plain_values` takes.
      function: computes the result, a nested dict of arrays and plain values, from
        `context.inputs` alone: a function without a closure. It is called again after an
        interruption and finds its checkpoints in `context.directory`.
      shared: a folder for results that runs share: a run with the same inputs uses the same
        result, other inputs are another result, and of several runs at once one computes.
      version: a number that is raised when the meaning of the function's result changes.
    Raises:
      ValueError: a function that sees more than its inputs.
      UserError: the stage was begun or finished with other inputs (the first difference is
        named), its files are damaged, or the disk refuses.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"a stage's name has letters, digits, '-', '_' and '.', not {name!r}")
    if not isinstance(function, types.FunctionType) or _sees_more(function):
        raise ValueError(
            f"the function of stage {name} must see its inputs alone: a plain function without "
            "closure and defaults"
        )
    root = workdir.path if isinstance(workdir, Workdir) else Path(workdir)
    plain = plain_values(inputs)
    mark = fingerprint(name, plain, version)
    if shared is None:
        folder = root / "stages" / name
    else:
        folder = Path(shared) / f"{name}-{mark[:16]}"
    place = _Place(name, mark, plain, folder, shared is not None)
    with writing(folder):
        # Others may be reading a shared result: what a kill left there is removed under the lock.
        if agree(place.finished and not (place.shared and place.untidy)):
            return _load(place)
        with _records(workdir, root) as records, _alone(place, records):
            if agree(place.finished):
                return _load(place)
            given = types.SimpleNamespace(**inputs)
            return _run(place, lambda context: function(replace(context, inputs=given)), records)


def fingerprint(name: str, inputs: Mapping[str, Any], version: int = 1) -> str:
    """SHA-256 of a stage's name, number and inputs, the format and the library, hexadecimal."""
    content = {"format": FORMAT, "library": flown_jax.__version__, "name": name}
    content |= {"version": version, "inputs": plain_values(inputs)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sees_more(function: types.FunctionType) -> bool:
    return bool(function.__closure__ or function.__defaults__ or function.__kwdefaults__)


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
    before, started = lead(lambda: _begin(place))
    values = function(StageContext(place.name, place.folder / "progress", records))
    lead(lambda: _finish(place, values, before, started))
    return replace(_load(place), reused=False)


def _begin(place: _Place) -> tuple[float, float]:
    """Seconds of earlier attempts, and the moment at which this one starts."""
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
    return before, started


def _finish(place: _Place, values: Mapping[str, Any], before: float, started: float) -> None:
    folder = place.folder
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


def _load(place: _Place) -> StageResult:
    if not leads():
        _until_seen(place)
    stored = read_json(place.folder / "stage.json", f"{place.damaged}: its record")
    if not isinstance(stored, dict) or not {"fingerprint", "sha256", "seconds"} <= set(stored):
        raise UserError(f"{place.damaged}: stage.json is not its record")
    _same(place, stored, "stage.json")
    outputs = place.folder / _OUTPUTS
    if not outputs.exists() or sha256_of(outputs) != stored["sha256"]:
        raise UserError(
            f"{place.damaged}: {_OUTPUTS} is missing or has changed since it was written"
        )
    if leads():
        with contextlib.suppress(OSError):
            _clean(place.folder)  # a kill between stage.json and the end leaves these behind
    values = load_tree(outputs)
    return StageResult(place.name, place.mark, place.folder, values, stored["seconds"], reused=True)


def _until_seen(place: _Place) -> None:
    """Wait until what process 0 has written is seen here, too: disks that are shared take time."""
    end = time.monotonic() + _SEEN
    while not place.finished:
        if time.monotonic() > end:
            raise UserError(
                f"process 0 has finished stage {place.name}, and this process does not see "
                f"{place.folder}: the processes of a run need one disk that all of them see"
            )
        time.sleep(0.05)


def _same(place: _Place, stored: Mapping[str, Any], file: str) -> None:
    if stored.get("fingerprint") == place.mark:
        return
    if place.shared:  # the folder is named after the fingerprint
        raise UserError(f"{place.damaged}: {file} is not its record")
    what = difference(stored.get("inputs"), place.inputs) or "another version of flown_jax"
    verb = "finished" if file == "stage.json" else "begun"
    raise UserError(
        f"stage {place.name} in {place.folder.parent.parent} was {verb} with {what}: "
        "choose a new --workdir"
    )


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
    if not place.shared or not leads():
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
