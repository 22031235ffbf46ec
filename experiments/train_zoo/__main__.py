"""Trains a zoo: many small networks of one recipe, side by side (paper section 3.1, A.3.1).

All networks train as one program. The zoo stands in the workdir's folder zoo/: safetensors and a
manifest that says of every network its seed, epoch, accuracies, and whether it is held out from
whoever learns from the zoo. The same command run again goes on where it was stopped.

`python -m experiments.zoo_info WORKDIR/zoo` shows a finished zoo.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import command
from experiments.report import standing
from experiments.train_zoo.check import check
from experiments.zoo_training import ZooTraining, part_of, plan
from flown_jax.errors import UserError
from flown_jax.evaluation import zoo_tables
from flown_jax.evaluation.classification import interval
from flown_jax.evaluation.rows import Sample
from flown_jax.evaluation.zoo_figures import overview
from flown_jax.files import write_json, writing
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.parallel import use_all_cores
from flown_jax.training.records import environment, peak_memory_gib
from flown_jax.training.stages import StageResult
from flown_jax.training.workdir import Workdir
from flown_jax.weights import zoo

_OWN = {
    "shard": "I/N trains the I-th of N parts of the networks, as an array job of any scheduler "
    "does; each network comes out as if all were trained at once. See experiments.zoo_merge.",
    "store": "Folder of a zoo that the networks are added to, on a disk that several such runs "
    "share. By default each run has a zoo of its own in its workdir.",
}


def main() -> None:
    """The command."""
    use_all_cores()
    command.run("experiments.train_zoo", __doc__ or "", "configs/zoo.py", run, _OWN)


def run(
    config: ConfigDict,
    workdir: str | None = None,
    shard: str | None = None,
    store: str | None = None,
) -> None:
    """Trains the zoo of a config, or a part of it, and says what its networks reach.

    Args:
      config: as `configs/zoo.py` makes it.
      workdir: None for workdirs/zoo-VARIANT, of a part workdirs/zoo-VARIANT-shardIofN.
      shard, store: as the flags.
    """
    check(config)
    part = None if shard is None else _shard(shard)
    default = f"workdirs/zoo-{config.variant}"
    if part is not None:
        part_of(plan(config), *part)  # refused before anything is read
        default += "-shard{}of{}".format(*part)
    if store == "":
        raise UserError("--store needs the name of a folder.")
    path = pathlib.Path(default if workdir is None else workdir)
    with Workdir(path, plain_values(config), tensorboard=config.tensorboard) as work:
        job = ZooTraining(config, work, part)
        trained = job.train()
        measured = job.evaluate(trained)
        folder = job.write(trained, measured, None if store is None else pathlib.Path(store))
        results = {
            "experiment": "train_zoo",
            "variant": config.variant,
            "seed": config.networks.first_seed,
            "fingerprint": measured.fingerprint,
            "seconds": round(trained.seconds + measured.seconds, 1),
            "peak_memory_gib": round(peak_memory_gib(), 2),
            "rows": rows(config, trained, measured),
            "environment": environment(),
            "config": plain_values(config),
        }
        found = zoo.load(folder)
        if standing(path, results, "figures/zoo.png") is None:
            overview(path / "figures" / "zoo.png", found, title=f"zoo {config.variant}")
            with writing(path):
                write_json(path / "results.json", results)
    zoo_tables.show(found)
    print(f"{results['seconds']:.0f} s of work; the zoo lies in {folder}")


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise UserError(f"--shard={text}: a part is wanted, like 3/16.")
    return int(index), int(count)


def rows(config: ConfigDict, trained: StageResult, measured: StageResult) -> list[dict[str, Any]]:
    """Tidy rows: accuracy and loss over the networks, by saved epoch and set of images."""
    values, sample = {**trained.values, **measured.values}, Sample("networks", measured.fingerprint)
    found = []
    for i, epoch in enumerate(sorted(set(config.recipe.save_epochs))):
        for name in ("train", "validation", "test"):
            for metric in ("accuracy", "loss"):
                column = values.get(f"{name}_{metric}")
                if column is None or not np.isfinite(column[i]).all():
                    continue
                own, where = column[i].astype(np.float64), ("main", f"epoch {epoch}", name)
                found.append(sample.row(*where, metric, *interval(own), len(own)))
                if len(own) > 1:
                    std = float(own.std(ddof=1))
                    found.append(sample.row(*where, f"{metric}_std", std, None, len(own)))
    return found


if __name__ == "__main__":
    main()
