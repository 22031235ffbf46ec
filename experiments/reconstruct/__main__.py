"""What weight autoencoders keep of the networks of one zoo (FLoWN, A.2.2 and Table 7).

Trains autoencoders whose encoders read networks as vectors or as graphs, with one form of decoder
and in as many steps, and compares with principal components what they keep: of the networks that
they learned from, of held-out ones, and of copies whose hidden units were permuted. The row
`shuffled` is a control in which nothing can be learned.

The results stand on the screen, and in the workdir as results.md, results.json and report.html.
The same command run again goes on where it was stopped, or shows what is there.
"""

from __future__ import annotations

import pathlib

from ml_collections import ConfigDict

from experiments import command
from experiments.one_zoo import read
from experiments.reconstruct.check import check
from experiments.reconstruct.measure import evaluate, rows
from experiments.reconstruct.methods import GRAPHS, fit
from experiments.reconstruct.report import remarks, screen, write
from experiments.report import REPORT, heading, standing
from experiments.stages import Stages
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.workdir import Workdir


def main() -> None:
    """The command."""
    command.run("experiments.reconstruct", __doc__ or "", "configs/reconstruct.py", run)


def run(config: ConfigDict, workdir: str | None = None) -> None:
    """Trains the autoencoders of a config and says what they keep.

    Args:
      config: as `configs/reconstruct.py` makes it.
      workdir: None for workdirs/reconstruct-VARIANT-ZOO-seedSEED.
    """
    check(config)
    zoo = pathlib.Path(config.zoo).name
    default = f"workdirs/reconstruct-{config.variant}-{zoo}-seed{config.seed}"
    path = pathlib.Path(default if workdir is None else workdir)
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        stages, networks = Stages(work), read(config.zoo, config.held_out_every)
        if networks.remark and set(GRAPHS) & set(config.methods):
            print(networks.remark)
        fitted = fit(stages, config, networks)
        found = rows(networks, evaluate(stages, config, networks, fitted))
        results = {
            **heading("reconstruct", config, stages),
            "stage_seconds": {name: result.seconds for name, result in fitted.items()},
            "peaks_gib": {n: of.values["peak_memory_gib"] for n, of in fitted.items()},
            "remarks": remarks(networks, found),
            "rows": found,
        }
        if (there := standing(path, results, *REPORT)) is None:
            write(path, config, networks, results)
    results = there or results
    for sentence in results["remarks"]:
        print(sentence)
    screen(results)
    print(f"{results['seconds']:.0f} s of work; everything lies in {path}: results.md, report.html")


if __name__ == "__main__":
    main()
