"""Kills a job at random moments until it finishes, and compares what comes out.

    python -m tests.parallel.kills --times=50 --seed=0          # both tiny jobs, an hour
    python -m tests.parallel.kills --times=10 --signal=TERM

Each job runs unbroken first, in one process and in two with two fake devices each. Then it is run
in new folders and killed (SIGKILL; of two processes the first, the second or both) so many times in
all: after a time drawn from the unbroken run's, or as soon as a checkpoint or a file is being
written. A killed job is started again with the same command; when it ends, its results are compared
with the unbroken run's: bit for bit of one process, within 1e-3 of two, whose sums and those of one
differ in order. A line for each kill and each comparison; the exit status says whether all held.

SIGTERM in place of SIGKILL goes to the same processes. All must leave with 143, or 3 where another
process got it outside of a training, within the time that schedulers grant, and the training that
was under way must have saved no less than its records tell: nothing written down is done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from flown_jax.training.checkpoints import Checkpoints
from flown_jax.training.records import read_metrics
from tests.parallel.several import NOISE, flags, start

JOBS = {"fewshot": "configs/fsl.py:tiny", "retrieval": "configs/retrieval.py:tiny"}
TOLERANCE = 1e-3
_POLL = 0.005  # seconds
_LIMIT = 1200.0  # seconds of one start
_GRANTED = 30.0  # seconds between SIGTERM and SIGKILL: SLURM, Kubernetes


@dataclasses.dataclass(frozen=True)
class Job:
    """A command in a folder, in one process or two.

    Attributes:
      name: of JOBS. processes: 1 or 2. folder: the workdir lies in it.
      more: arguments behind.
    """

    name: str
    processes: int
    folder: Path
    more: tuple[str, ...] = ()

    @property
    def workdir(self) -> Path:
        return self.folder / "w"

    def start(self) -> list:
        """The processes, begun or gone on."""
        own = [[]] if self.processes == 1 else flags(self.processes)
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["-m", f"experiments.{self.name}", f"--config={JOBS[self.name]}"]
        command += [f"--workdir={self.workdir}", *self.more]
        with open(self.folder / "log", "a") as log:
            return [
                start([*command, *of], devices=self.processes, stderr=log, stdout=log) for of in own
            ]

    def results(self) -> dict[tuple, float]:
        """Values of the rows, and checksums of all stages."""
        rows = json.loads((self.workdir / "results.json").read_text())["rows"]
        keys = ("table", "method", "set", "metric")
        found = {tuple(row[key] for key in keys): row["value"] for row in rows}
        for path in sorted(self.folder.rglob("stage.json")):
            stored = json.loads(path.read_text())
            found["stage", stored["name"], stored["fingerprint"]] = stored["sha256"]
        return found


def finish(job: Job) -> float:
    """Seconds until it has ended well.

    Raises:
      RuntimeError: it has not.
    """
    begun, running = time.monotonic(), job.start()
    for process in running:
        if status := process.wait(_LIMIT):
            raise RuntimeError(f"{job}: exit status {status}: {_end(job)}")
    return time.monotonic() - begun


def kill(
    job: Job, draw: random.Random, seconds: float, number: signal.Signals = signal.SIGKILL
) -> str | None:
    """Start the job and send it a signal; how, or None where it ended before that.

    Raises:
      RuntimeError: it did not end on SIGTERM as it should.
    """
    running, begun = job.start(), time.monotonic()
    inside, after = draw.random() < 0.4, draw.uniform(0.05, 0.7) * seconds
    earliest = draw.uniform(0.2, 0.6) * seconds if inside else after
    victims = draw.choice([[0], [-1], range(len(running))])
    how = None
    while how is None:
        if all(process.poll() is not None for process in running):
            return None
        passed = time.monotonic() - begun
        if inside and earliest < passed < 2 * seconds:
            if (path := _being_written(job.folder)) is not None:
                how = f"inside {path}"
        elif passed >= (2 * seconds if inside else after):
            how = "after a time"
        time.sleep(_POLL)
    for index in victims:
        if running[index].poll() is None:
            os.kill(running[index].pid, number)
    sent = time.monotonic()
    for process in running:
        process.wait(_LIMIT)
    who = "" if len(running) == 1 else f", process {' and '.join(str(v) for v in victims)}"
    told = f"{how}{who}, {passed:.1f} s"
    if number == signal.SIGKILL:
        return told
    left, statuses = time.monotonic() - sent, [process.returncode for process in running]
    told += f", left after {left:.1f} s with {' and '.join(map(str, statuses))}{_saved(job)}"
    if not {143} <= set(statuses) <= {143, 3} or left > _GRANTED:
        raise RuntimeError(f"{job}: {told}: {_end(job)}")
    return told


def _saved(job: Job) -> str:
    """Of each training that is under way: the step that is saved and the last that was recorded."""
    last: dict[str, int] = {}
    for record in read_metrics(job.workdir):
        last[record["stage"]] = record["step"]
    told = ""
    for progress in sorted(job.folder.rglob("progress")):
        name = progress.parent.name
        found = [Checkpoints(place).latest() for place in progress.iterdir() if place.is_dir()]
        saved = max((step for step in found if step is not None), default=0)
        told += f", {name} saved at step {saved}, recorded to {last.get(name, 0)}"
        if saved < last.get(name, 0):
            raise RuntimeError(f"{job}: steps are done again{told}")
    return told


def _being_written(folder: Path) -> str | None:
    """A file or a checkpoint that is being written at this moment."""
    try:
        for root, folders, files in os.walk(folder):
            for name in (*folders, *files):
                if name.endswith(".tmp") or ".orbax-checkpoint-tmp" in name or ".making" in name:
                    return str(Path(root, name).relative_to(folder))
    except OSError:
        pass
    return None


def _end(job: Job) -> str:
    lines = [line for line in (job.folder / "log").read_text().splitlines() if line]
    return " / ".join([line for line in lines if not NOISE.search(line)][-3:])


def same(job: Job, wanted: dict[tuple, float], exact: bool) -> str:
    """ "" where the results are the unbroken run's, or the first difference."""
    found = job.results()
    if exact:
        return next((str(key) for key in wanted if found.get(key) != wanted[key]), "")
    for key, value in wanted.items():
        if key[0] == "stage":
            continue
        if key not in found or abs(found[key] - value) > TOLERANCE * max(1.0, abs(value)):
            return f"{key}: {found.get(key)} for {value}"
    return ""


def run(
    jobs: list[str],
    times: int,
    seed: int,
    root: Path,
    more: tuple[str, ...] = (),
    number: signal.Signals = signal.SIGKILL,
    processes: Sequence[int] = (1, 2),
) -> bool:
    """Whether every job came out as unbroken.

    Args:
      times: kills in all, shared by the jobs in one process and in two.
      more: arguments of every command. number: of the signal. processes: of a job, in turn.
    """
    verb = "killed" if number == signal.SIGKILL else "stopped"
    draw, right = random.Random(seed), True
    kinds = [(name, count) for name in jobs for count in processes]
    for place, (name, count) in enumerate(kinds):
        left = times // len(kinds) + (place < times % len(kinds))
        unbroken = Job(name, count, root / f"{name}-{count}-unbroken", more)
        seconds = finish(unbroken)
        wanted = unbroken.results()
        print(f"{name} in {count}: unbroken in {seconds:.0f} s", flush=True)
        attempt = 0
        while left:
            attempt += 1
            job = Job(name, count, root / f"{name}-{count}-{attempt}", more)
            for turn in range(min(left, draw.randint(2, 6))):
                begun = time.monotonic()
                how = kill(job, draw, seconds, number)
                if how is None:
                    if not turn:  # by then what it needs is compiled
                        seconds = min(seconds, time.monotonic() - begun)
                    break
                left -= 1
                print(f"{name} in {count}, run {attempt}: {verb} {how}", flush=True)
            finish(job)
            different = same(job, wanted, exact=count == 1)
            right &= not different
            found = f"DIFFERS: {different}" if different else "as unbroken"
            print(f"{name} in {count}, run {attempt}: {found}", flush=True)
    return right


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.parallel.kills", description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--processes", nargs="+", type=int, choices=[1, 2], default=[1, 2])
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # What was compiled once is there when the job goes on: more kills an hour.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        number = signal.Signals[f"SIG{given.signal}"]
        right = run(
            given.jobs,
            given.times,
            given.seed,
            Path(folder),
            number=number,
            processes=given.processes,
        )
    print("all came out as unbroken" if right else "NOT all came out as unbroken")
    sys.exit(not right)


if __name__ == "__main__":
    main()
