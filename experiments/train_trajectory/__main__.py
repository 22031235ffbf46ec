"""Trains a network and saves states of its further training: a trajectory zoo (paper table 8).

The whole network is trained first. Then its last two normalisations, or all its weights where it
is small, train on, and their vector is saved 200 times. The zoo stands in the workdir's folder
zoo/, with the network around a part. Neighbouring states are near-duplicates, so those held out
from whoever learns from the zoo are the last ones, not a random choice. The same command run again
goes on where it was stopped.

`python -m experiments.zoo_info WORKDIR/zoo` shows a finished zoo.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import command
from experiments.report import standing
from experiments.train_trajectory.check import check
from experiments.trajectory_training import TrajectoryTraining
from flown_jax.evaluation import zoo_tables
from flown_jax.evaluation.rows import Sample
from flown_jax.evaluation.zoo_figures import overview
from flown_jax.files import write_json, writing
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.training.stages import StageResult
from flown_jax.training.workdir import Workdir
from flown_jax.weights import statistics, zoo
from flown_jax.weights.zoo import Zoo


def main() -> None:
    """The command."""
    command.run("experiments.train_trajectory", __doc__ or "", "configs/trajectory.py", run)


def run(config: ConfigDict, workdir: str | None = None) -> None:
    """Makes the zoo of a config and says what its states reach.

    Args:
      config: as `configs/trajectory.py` makes it.
      workdir: None for workdirs/trajectory-VARIANT.
    """
    check(config)
    path = pathlib.Path(f"workdirs/trajectory-{config.variant}" if workdir is None else workdir)
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        job = TrajectoryTraining(config, work)
        base = job.train()
        states = job.save_states(base)
        measured = job.evaluate(base, states)
        folder = job.write(base, states, measured)
        found = zoo.load(folder)
        stages = (base, states, measured)
        results = {
            "experiment": "train_trajectory",
            "variant": config.variant,
            "seed": config.seed,
            "fingerprint": measured.fingerprint,
            "seconds": round(sum(part.seconds for part in stages), 1),
            "stage_seconds": {part.name: part.seconds for part in stages},
            "peak_memory_gib": round(peak_memory_gib(), 2),
            "smaller_than_published": job.smaller(),
            "rows": rows(measured, found),
            "environment": environment(),
            "config": plain_values(config),
        }
        if standing(path, results, "figures/zoo.png") is None:
            overview(path / "figures" / "zoo.png", found, title=f"trajectory {config.variant}")
            with writing(path):
                write_json(path / "results.json", results)
    zoo_tables.show(found)
    accuracy = 100 * measured.values["base"]["accuracy"]
    print(f"the base network has a test accuracy of {accuracy:.2f} %")
    if results["smaller_than_published"]:
        print(f"smaller than the published zoo: {'; '.join(results['smaller_than_published'])}")
    print(f"{results['seconds']:.0f} s of work; the zoo lies in {folder}")


def rows(measured: StageResult, found: Zoo) -> list[dict[str, Any]]:
    """Tidy rows: accuracy and loss of the base network and of the states, and their distances.

    The states of a trajectory are no independent draws: there is no interval around their mean.
    """
    made, sample = [], Sample("networks", measured.fingerprint)

    def add(method: str, metric: str, values: Any) -> None:
        values = np.asarray(values, np.float64)
        numbers = {metric: values.mean()}
        if values.size > 1:
            numbers[f"{metric}_std"] = values.std(ddof=1)
        for name, value in numbers.items():
            made.append(sample.row("main", method, "test", name, float(value), None, values.size))

    for metric in ("accuracy", "loss"):
        add("base network", metric, measured.values["base"][metric])
    splits = np.asarray(found.table["split"])
    for method, mask in (
        ("all states", splits != ""),
        ("training states", splits == "train"),
        ("held-out states", splits == "held_out"),
    ):
        if mask.any():
            for metric in ("accuracy", "loss"):
                add(method, metric, np.asarray(found.table[f"test_{metric}"])[mask])
    if len(found) > 1:
        apart = statistics.distances(found.weights)
        add("all pairs", "distance", apart[np.triu_indices(len(apart), 1)])
        add("neighbours", "distance", np.diagonal(apart, 1))
        add("first to last", "distance", apart[0, -1])
    return made


if __name__ == "__main__":
    main()
