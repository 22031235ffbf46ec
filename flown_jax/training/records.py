"""What a run writes down while it goes: metrics, progress, and where it ran."""

from __future__ import annotations

import collections
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from flown_jax import __version__
from flown_jax.errors import UserError
from flown_jax.files import write_bytes, writing
from flown_jax.training.paces import Stopwatch
from flown_jax.training.parallel import Footprint, describe_devices, leads

Update = Callable[..., None]
_WINDOW = 60.0  # seconds whose steps make the rate
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "diffrax", "orbax-checkpoint", "numpy", "scipy")


class Records:
    """The metrics file, the optional TensorBoard events and the progress display of a workdir.

    Of several processes, process 0 writes and shows; the others do nothing here.

    Args:
      workdir: folder of metrics.jsonl; made if absent.
      tensorboard: also write TensorBoard events under workdir/tensorboard.
      stream: where progress goes, standard error by default; a terminal gets a bar, anything
        else a line every `interval` seconds.
      interval: seconds between two such lines.
    Raises:
      UserError: TensorBoard events are asked for and tensorboardX is not installed.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        tensorboard: bool = False,
        stream: TextIO | None = None,
        interval: float = 10.0,
    ) -> None:
        self.path = Path(workdir) / "metrics.jsonl"
        self._interval = interval
        self._stream, self._tensorboard = stream, None
        if not leads():
            self.path = Path(os.devnull)
            self._stream = self._file = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            return
        self._tensorboard = _writer(Path(workdir) / "tensorboard") if tensorboard else None
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._drop(lambda record: False)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def log(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line {"stage", "step", "time", metrics...}; numbers that are not finite
        become null."""
        values = {name: _number(value) for name, value in metrics.items()}
        record = {"stage": stage, "step": int(step), "time": round(time.time(), 3), **values}
        with writing(self.path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        if self._tensorboard is not None:
            for name, value in values.items():
                if value is not None:
                    self._tensorboard.add_scalar(f"{stage}/{name}", value, int(step))

    def rewind(self, stage: str, step: int) -> None:
        """Forget a stage's lines after `step`: a resumed run will write them again."""
        if self._file is self._stream:
            return
        with writing(self.path):
            self._file.close()
            self._drop(lambda record: record["stage"] == stage and record["step"] > step)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    @contextlib.contextmanager
    def progress(
        self,
        name: str,
        steps: int,
        start: int = 0,
        *,
        timed: bool = False,
        batch: int | None = None,
        parameters: int | None = None,
        footprint: Callable[[], Footprint | None] = lambda: None,
    ) -> Iterator[Update]:
        """A context whose value is `update(step, metrics={})`: shows the stage's name, the step,
        the rate and the time left.

        Args:
          name: what is going on.
          steps: the last step.
          start: the step from which this run goes on.
          timed: a training, whose pace is told to whoever measures paces; with
          batch, parameters, footprint: as `paces.Stopwatch` takes them, where they are known.
        """
        stream = self._stream or sys.stderr
        show = _bar if stream.isatty() else _lines
        watch = Stopwatch(name, start, batch, parameters, footprint)
        with show(stream, name, steps, start, self._interval) as update:

            def seen(step: int, metrics: Mapping[str, Any] | None = None) -> None:
                watch.see(step)
                update(step, metrics)

            try:
                yield seen
            finally:
                if timed:
                    watch.stop(peak_memory_gib())

    def note(self, text: str) -> None:
        """Say one line where the progress goes."""
        print(text, file=self._stream or sys.stderr, flush=True)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _drop(self, unwanted: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrite the file without unwanted lines and without the torn end of a killed run."""
        if not self.path.exists():
            return
        old = self.path.read_bytes()
        lines = old.splitlines(keepends=True)
        kept = b"".join(line for line in lines if _whole(line) and not unwanted(json.loads(line)))
        if kept != old:
            write_bytes(self.path, kept)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The records of workdir/metrics.jsonl in the order written, [] where there are none."""
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(True) if _whole(line)]


def environment() -> dict[str, Any]:
    """Where and when a run happens: versions, day (UTC), platform, processors and devices.

    Returns:
      JSON values; `processor` is the name of the CPU, "" where the system does not tell.
    """
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "flown_jax": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "cpu_available": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        **describe_devices(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor()


def peak_memory_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


@contextlib.contextmanager
def _bar(stream: TextIO, name: str, steps: int, start: int, interval: float) -> Iterator[Update]:
    from rich import progress
    from rich.console import Console

    del interval
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[text]}"),
        console=Console(file=stream),
    )
    clock = _Clock(steps, start)
    with bar:
        task = bar.add_task(name, total=steps, completed=start, text="")

        def update(step: int, metrics: Mapping[str, Any] | None = None) -> None:
            clock.see(step, metrics)
            bar.update(task, completed=step, text=clock.text(step))

        yield update


@contextlib.contextmanager
def _lines(stream: TextIO, name: str, steps: int, start: int, interval: float) -> Iterator[Update]:
    clock = _Clock(steps, start)
    told = time.monotonic()

    def update(step: int, metrics: Mapping[str, Any] | None = None) -> None:
        nonlocal told
        clock.see(step, metrics)
        if step >= steps or time.monotonic() - told >= interval:
            told = time.monotonic()
            print(f"{name}: step {step}/{steps}, {clock.text(step)}", file=stream, flush=True)

    yield update


class _Clock:
    """Rate and time left by the last minute's steps; the first step, which compiles, is left out.

    A mean over the whole run would tell a wrong time for long where a machine is shared.
    """

    def __init__(self, steps: int, start: int) -> None:
        self._steps = steps
        self._start = (time.monotonic(), start)
        self._seen: collections.deque[tuple[float, int]] = collections.deque()
        self._shown: dict[str, Any] = {}

    def see(self, step: int, metrics: Mapping[str, Any] | None) -> None:
        """Note a step and the values to show from now on."""
        self._shown |= metrics or {}
        now = time.monotonic()
        while len(self._seen) > 1 and self._seen[1][0] < now - _WINDOW:
            self._seen.popleft()
        if not self._seen or now - self._seen[-1][0] > _WINDOW / 1000:
            self._seen.append((now, step))

    def text(self, step: int) -> str:
        since, first = self._seen[0] if self._seen and self._seen[0][1] < step else self._start
        rate = (step - first) / max(time.monotonic() - since, 1e-9)
        left = (self._steps - step) / rate if rate > 0 else math.nan
        shown = "".join(f", {name} {value:.4g}" for name, value in self._shown.items())
        return f"{rate:.3g} it/s, {_duration(left)} left{shown}"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool | int):
        return int(value)
    value = float(value)
    return value if math.isfinite(value) else None


def _whole(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "TensorBoard events need the package tensorboardX: pip install 'flown_jax[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))
