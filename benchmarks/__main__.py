"""Runs all benchmarks, each in a process of its own, and writes a Markdown table."""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

NAMES = (
    "heads",
    "flow_step",
    "sampling",
    "zoo_training",
    "couplings",
    "graph_encoder",
    "solver_gradient",
    "parallel",
)


def main() -> None:
    """Command line: --output FILE, and names of benchmarks (all that are present)."""
    present = [n for n in NAMES if importlib.util.find_spec(f"benchmarks.{n}") is not None]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(present)}")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("workdirs/benchmarks.md")
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in present:
            parser.error(f"no benchmark {name!r}; there are {', '.join(present)}")
    results = [_run(name) for name in arguments.names or present]
    text = table(results)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    print(text)
    print(f"written to {arguments.output}")


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown of the results, one row a case and ratio."""
    lines = [
        "| benchmark | case | twin / ours | device |",
        "|---|---|---|---|",
    ]
    for result in results:
        ratios = result.get("ratios") or {"": result["ratio"]}
        for case, ratio in ratios.items():
            lines.append(f"| {result['name']} | {case} | {ratio:.2f} | {result['device']} |")
    details = [
        f"- {r['name']}: ours {r['ours']:g}, twin {r['twin']:g} {r['unit']}" for r in results
    ]
    note = "Above 1, flown_jax is faster than its twin. The slowest case of each:"
    return "\n".join([*lines, "", note, "", *details, ""])


def _run(name: str) -> dict[str, Any]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
