"""Accuracies of networks, read from their weights (after Unterthiner et al., 2020).

Several readers learn from the training networks of a zoo what accuracy a network has, and are
measured on its held-out ones: the epoch alone, statistics of the tensors, an MLP on weight vectors,
graph encoders. The networks are then read once more with their hidden units in another order, which
changes nothing of what they compute.

The results stand on the screen, and in the workdir as results.md, results.json, report.html and
figures/. The same command run again goes on where it was stopped, or shows what is there.
"""

from __future__ import annotations

import pathlib

from ml_collections import ConfigDict

from experiments import command
from experiments.predict_accuracy.check import check
from experiments.predict_accuracy.measure import evaluate
from experiments.predict_accuracy.networks import read
from experiments.predict_accuracy.readers import fit_readers
from experiments.predict_accuracy.report import screen, write
from experiments.report import REPORT, heading, standing
from experiments.stages import Stages
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.workdir import Workdir


def main() -> None:
    """The command."""
    command.run("experiments.predict_accuracy", __doc__ or "", "configs/predict_accuracy.py", run)


def run(config: ConfigDict, workdir: str | None = None) -> None:
    """Fits the readers of a config and says what they are worth.

    Args:
      config: as `configs/predict_accuracy.py` makes it.
      workdir: None for workdirs/predict_accuracy-ZOO-VARIANT-seedSEED.
    """
    check(config)
    zoo = pathlib.Path(config.zoo).name
    default = f"workdirs/predict_accuracy-{zoo}-{config.variant}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        stages, parts = Stages(work), read(config)
        fitted = fit_readers(stages, config, parts)
        measured = evaluate(stages, config, parts, fitted)
        results = {
            **heading("predict_accuracy", config, stages),
            "stage_seconds": {part.name: part.seconds for part in (*fitted.values(), measured)},
            "rows": measured.values["rows"],
        }
        if (there := standing(path, results, *REPORT)) is None:
            write(path, config, parts, results, measured.values["predictions"])
    results = there or results
    screen(results)
    print(f"{results['seconds']:.0f} s of work; everything lies in {path}: results.md, report.html")


if __name__ == "__main__":
    main()
