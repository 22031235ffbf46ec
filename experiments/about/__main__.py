"""What is installed, what the machine has, and about how long the main jobs take on it.

    python -m experiments.about

Versions, devices, compilation cache, memory and cores; then a short piece of a training is timed,
and the minutes that were measured elsewhere are scaled by it.
"""

from __future__ import annotations

import os

import jax

from experiments import command, compiled, expected
from flown_jax.training.records import environment


def main() -> None:
    """The command."""
    parser = command.Parser("experiments.about", __doc__)
    with command.one_sentence():
        parser.parse_args()
        print("\n".join([*machine(), ""]), flush=True)
        cpu = jax.default_backend() == "cpu"
        print("\n".join(times(expected.factor() if cpu else None)))


def machine() -> list[str]:
    """Lines on versions, devices, cache, memory and cores."""
    found = environment()
    versions = [f"{name} {version}" for name, version in found["packages"].items()]
    return [
        f"flown_jax {found['flown_jax']}, Python {found['python']}, {', '.join(versions)}",
        f"device: {expected.device()}",
        f"cores: {expected.cores()}",
        f"memory: {_memory()}",
        f"compilation cache: {compiled.keep() or 'none, as its folder cannot be written'}",
    ]


def times(factor: float | None) -> list[str]:
    """Lines on the main jobs.

    Args:
      factor: how many times as long work takes here as where the times were measured; None where
        another kind of device does it.
    """
    if factor is None:
        head = "No job was timed on such a device; from nothing, on two CPU cores:"
    else:
        head = (
            "From nothing and on a quiet machine, told from what two other cores took; a short "
            f"piece of work takes {factor:.1f} times as long here:"
        )
    jobs = {
        f"{_line(name)}:{variant}": seconds for (name, variant), seconds in expected.SECONDS.items()
    }
    width = max(map(len, jobs))
    lines = [
        f"  {job.ljust(width)}  about {expected.minutes(*((factor or 1) * s for s in seconds))}"
        for job, seconds in jobs.items()
    ]
    return [head, "", *lines]


def _line(name: str) -> str:
    return f"{command.called(f'experiments.{name}')} --config={command.config_file(name)}"


def _memory() -> str:
    page = os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.sysconf('SC_PHYS_PAGES') * page:.1f} GiB"


if __name__ == "__main__":
    main()
