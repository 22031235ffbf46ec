"""Interleaved timing of contestants, and the one line of JSON that a benchmark ends with.

Contestants take turns, once a round, in an order that rotates, and medians over rounds are
compared, so that a machine that slows down slows all of them. That is no help against other work on
the same cores: PyTorch's threads wait for one another, and the twin then reads up to ten times too
slow. The load before the run is part of the result.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

Work = Callable[[int], None]
_SAMPLE_SECONDS = 0.3  # shortest sample: long against the clock and the threads' start
_QUIET = 0.3  # load a core above which the numbers are not to be trusted
_FEWEST_ROUNDS, _MOST_ROUNDS = 4, 60
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "diffrax", "torch", "POT")


@dataclass(frozen=True)
class Timing:
    """Seconds a unit of work of one contestant.

    Attributes:
      median: over rounds. low, high: quartiles. rounds: how many.
    """

    median: float
    low: float
    high: float
    rounds: int

    def per(self, parts: int) -> Timing:
        """The timing of one of `parts` equal parts of the unit."""
        return Timing(self.median / parts, self.low / parts, self.high / parts, self.rounds)


@dataclass
class Case:
    """One size of a benchmark: our time and the twins' times, seconds a unit of work.

    Attributes:
      name: of the size. ours: our timing. twins: timings by the name of the twin.
      compile_s: seconds that our first call took beyond a usual one.
      flops: floating-point operations of a unit of work, multiply and add counted apart.
    """

    name: str
    ours: Timing
    twins: dict[str, Timing]
    compile_s: float
    flops: float
    extra: dict[str, Any] = field(default_factory=dict)

    def fastest(self, names: Sequence[str] | None = None) -> str:
        """Name of the fastest twin (among `names`)."""
        return min(names or self.twins, key=lambda name: self.twins[name].median)

    def ratio(self, names: Sequence[str] | None = None) -> float:
        """The fastest twin's time over ours (among `names`); above 1, we are faster."""
        return self.twins[self.fastest(names)].median / self.ours.median


def race(
    contestants: Mapping[str, Work], seconds: float, *, rounds: int = _FEWEST_ROUNDS
) -> dict[str, Timing]:
    """Timings of all contestants, each run once a round.

    Args:
      contestants: name to work(n), which does n units and returns when they are finished. They
        have been run before: nothing is compiled here.
      seconds: time to spend on all of them together. rounds: that are run at least.
    """
    counts = {name: _units(work) for name, work in contestants.items()}
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    names, end, done = list(contestants), time.perf_counter() + seconds, 0
    while done < rounds or (time.perf_counter() < end and done < _MOST_ROUNDS):
        for i in range(len(names)):
            name = names[(i + done) % len(names)]
            samples[name].append(clock(contestants[name], counts[name]) / counts[name])
        done += 1
    return {name: _timing(times) for name, times in samples.items()}


def clock(work: Work, units: int = 1) -> float:
    """Seconds that work(units) takes."""
    start = time.perf_counter()
    work(units)
    return time.perf_counter() - start


def first_call(work: Work) -> float:
    """Seconds of the first call beyond those of the second: compilation."""
    first = clock(work)
    return max(0.0, first - clock(work))


def matmul_gflops(size: int = 2048) -> float:
    """Rate of JAX's float32 matrix product on this device, GFLOP/s, the best of several tries."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)

    def work(units: int) -> None:
        for _ in range(units):
            product(a, a).block_until_ready()

    work(1)
    best = min(clock(work) for _ in range(8))
    return 2.0 * size**3 / best / 1e9


def report(
    name: str,
    cases: Sequence[Case],
    *,
    unit: str,
    seconds_per_unit: float,
    twins: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """The benchmark's result: ratio = twin's time / ours, of the case where it is smallest.

    Args:
      name: of the benchmark. cases: its sizes.
      unit: of "ours" and "twin". seconds_per_unit: length of that unit, 1e-3 for ms.
      twins: names of the twins that "ratio" compares with; None for all.
      groups: further ratios of each case: label to names of twins; each takes its fastest.
      extra: further entries.
    """
    worst = min(cases, key=lambda case: case.ratio(twins))
    twin = worst.twins[worst.fastest(twins)]
    gflops = matmul_gflops()
    ratios = {}
    for case in cases:
        for label, names in (groups or {"": twins or list(case.twins)}).items():
            ratios[f"{case.name} {label}".strip()] = round(case.ratio(names), 3)
    return {
        "name": name,
        "ratio": round(twin.median / worst.ours.median, 3),
        "ours": round(worst.ours.median / seconds_per_unit, 4),
        "twin": round(twin.median / seconds_per_unit, 4),
        "unit": unit,
        "device": jax.devices()[0].device_kind,
        "case": worst.name,
        "ratios": ratios,
        "compile_s": round(sum(case.compile_s for case in cases), 1),
        "matmul_gflops": round(gflops, 1),
        "matmul_share": round(worst.flops / worst.ours.median / 1e9 / gflops, 3),
        "cases": [_describe(case, seconds_per_unit, gflops) for case in cases],
        "cores": available_cores(),
        "processor": platform.processor() or platform.machine(),
        "versions": {package: _version(package) for package in _PACKAGES},
        **extra,
    }


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_torch() -> None:
    """Ends the process with status 2 and one sentence where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        print(
            "error: this benchmark compares with PyTorch, which is not installed; "
            "pip install 'flown_jax[torch]' brings it.",
            file=sys.stderr,
        )
        raise SystemExit(2)


def main(
    doc: str, run: Callable[[float], dict[str, Any]], seconds: float, *, torch: bool = True
) -> None:
    """Command line of one benchmark: prints the cases, then the result as the last line.

    Args:
      doc: shown by --help.
      run: `run(seconds) -> result`. seconds: default of --seconds, measuring time of each case.
      torch: the twin is PyTorch, which must then be installed.
    """
    parser = argparse.ArgumentParser(description=doc.strip().splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="measuring time of each case (%(default)s)"
    )
    arguments = parser.parse_args()
    if torch:
        require_torch()
    load = round(os.getloadavg()[0], 2)
    if load > _QUIET * available_cores():
        reason = "PyTorch's threads wait for one another, so the twin reads too slow."
        print(f"load {load}: {reason if torch else 'other work takes part of the cores.'}")
    result = run(arguments.seconds) | {"load_before": load}
    for case in result["cases"]:
        print(f"{case['case']}: ours {case['ours']} {result['unit']}, {case['twins']}")
    print(json.dumps(result))


def _units(work: Work) -> int:
    """Units in a sample, so that it is not shorter than `_SAMPLE_SECONDS`."""
    return max(1, round(_SAMPLE_SECONDS / max(clock(work), 1e-6)))


def _timing(times: Sequence[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high, len(times))


def _describe(case: Case, second: float, gflops: float) -> dict[str, Any]:
    return {
        "case": case.name,
        "ours": round(case.ours.median / second, 4),
        "twins": {name: round(t.median / second, 4) for name, t in case.twins.items()},
        "quartiles": {
            name: [round(t.low / second, 4), round(t.high / second, 4)]
            for name, t in {"ours": case.ours, **case.twins}.items()
        },
        "rounds": case.ours.rounds,
        "compile_s": round(case.compile_s, 1),
        "matmul_share": round(case.flops / case.ours.median / 1e9 / gflops, 3),
        **case.extra,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
