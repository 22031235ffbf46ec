"""Memory of each training step of a config on any number of devices, from two short runs of it.

    of="--config=configs/fsl.py:paper --try_steps=2"
    python -m experiments.fewshot $of --workdir=one
    export XLA_FLAGS=--xla_force_host_platform_device_count=2
    python -m experiments.fewshot $of --workdir=two
    python -m benchmarks.memory one two

Both runs have left what each step holds, as it was compiled, in trial.json: on a device with the
whole batch, and on one of two with half of it. The difference is what the examples of half a batch
take; what is left is there whatever the batch: parameters, their mean, moments, gradients. From
these follows a device's share of any batch on any number of devices. On the processor the compiler
lays buffers out otherwise than on a GPU or TPU, whose kernels want room of their own besides.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHIPS = (1, 8, 64, 512)
_HELD = ("state", "batch", "frozen", "work")


@dataclass(frozen=True)
class Stage:
    """A training step's memory, bytes.

    Attributes:
      name: of the stage. parameters: their number. state: parameters, mean and moments.
      fixed: all that does not depend on the batch, the state with it.
      example: one more example's; None where devices do not share the batch.
      whole: on one device with the batch of the run.
    """

    name: str
    parameters: int
    state: int
    fixed: float
    example: float | None
    whole: int

    def device(self, batch: int, chips: int) -> float:
        """Bytes of a device, of `chips` that share a batch; each has an example at least."""
        if self.example is None:
            return self.whole
        return self.fixed + self.example * max(1.0, batch / chips)


def stages(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[Stage]:
    """The stages of two runs of the same config, as trial.json has them.

    Args:
      one: of one device. two: of several that share the batches.
    Raises:
      ValueError: a stage's batch differs between them.
    """
    others = {row["name"]: row for row in two["stages"]}
    found = []
    for row in one["stages"]:
        other = others.get(row["name"])
        if row.get("footprint") is None or other is None or other.get("footprint") is None:
            continue
        if row["batch"] != other["batch"]:
            raise ValueError(f"{row['name']}: batches of {row['batch']} and {other['batch']}")
        alone, shared = row["footprint"], other["footprint"]
        whole, part = (sum(f[f"{key}_bytes"] for key in _HELD) for f in (alone, shared))
        example = None
        if shared["devices"] > 1 and row["batch"]:
            example = (whole - part) / (row["batch"] * (1 - 1 / shared["devices"]))
        found.append(
            Stage(
                row["name"],
                row["parameters"],
                alone["state_bytes"],
                whole - (example or 0) * (row["batch"] or 0),
                example,
                whole,
            )
        )
    return found


def table(found: Sequence[Stage], batches: Mapping[str, int], chips: Sequence[int] = CHIPS) -> str:
    """A Markdown table, a line a stage.

    Args:
      batches: examples a step of each stage, on all devices together. chips: their numbers.
    """
    head = ["stage", "batch", "parameters", "state MiB", "fixed MiB", "an example MiB"]
    head += [f"GiB a device on {count}" for count in chips]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for stage in found:
        batch = batches[stage.name]
        one = "not shared" if stage.example is None else _mib(stage.example)
        cells = [stage.name, f"{batch:,}", f"{stage.parameters:,}", _mib(stage.state)]
        cells += [_mib(stage.fixed), one]
        cells += [f"{stage.device(batch, count) / 2**30:.2f}" for count in chips]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mib(size: float) -> str:
    return f"{size / 2**20:,.3g}" if size < 100 * 2**20 else f"{size / 2**20:,.0f}"


def main() -> None:
    """Command line: two workdirs, and batches in place of the runs' own."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("one", type=pathlib.Path, help="workdir of the run on one device")
    parser.add_argument("two", type=pathlib.Path, help="of the run on two")
    parser.add_argument(
        "--batch", action="append", default=[], metavar="STAGE=N", help="a batch of the long run"
    )
    given = parser.parse_args()
    runs = [json.loads((path / "trial.json").read_text()) for path in (given.one, given.two)]
    found = stages(*runs)
    batches = {row["name"]: row["batch"] for row in runs[0]["stages"]}
    for text in given.batch:
        name, _, count = text.partition("=")
        if name not in batches or not count.isdigit():
            parser.error(f"--batch={text}: STAGE=N, of {', '.join(batches)}")
        batches[name] = int(count)
    print(table(found, batches))


if __name__ == "__main__":
    main()
