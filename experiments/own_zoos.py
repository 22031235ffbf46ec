"""Zoos that a command trains itself, in folders beside its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.trajectory import get_config as trajectory_config
from configs.zoo import get_config as zoo_config
from experiments.designs import changed
from experiments.stages import Stages
from experiments.trajectory_training import TrajectoryTraining
from experiments.zoo_training import ZooTraining
from flown_jax.training.fingerprints import plain_values
from flown_jax.training.workdir import Workdir


def seeds_zoo(stages: Stages, variant: str, data_dir: str, trained: ConfigDict) -> Path:
    """The folder of a zoo of seeds, trained where it is not there.

    Args:
      variant: of configs/zoo.py. data_dir: of the prepared image sets.
      trained: `count`, `held_out`, `epochs` and `save_epochs` in the place of the variant's.
    """
    config = zoo_config(variant)
    config.unlock()
    config.data.dir = data_dir
    config.networks.update(count=trained.count, held_out=trained.held_out)
    config.recipe.update(epochs=trained.epochs, save_epochs=trained.save_epochs)
    with _folder(stages, variant, config) as work:
        job = ZooTraining(config, work)
        networks = stages.count(job.train())
        measured = stages.count(job.evaluate(networks))
        return job.write(networks, measured)


def trajectory_zoo(stages: Stages, config: ConfigDict) -> Path:
    """The folder of a zoo of states, trained where it is not there.

    Args:
      config: as `trajectory` gives it.
    """
    with _folder(stages, config.variant, config) as work:
        job = TrajectoryTraining(config, work)
        base = stages.count(job.train())
        states = stages.count(job.save_states(base))
        measured = stages.count(job.evaluate(base, states))
        return job.write(base, states, measured)


def trajectory(variant: str, data_dir: str, changes: Mapping[str, Any]) -> ConfigDict:
    """A config of a trajectory.

    Args:
      variant: of configs/trajectory.py. data_dir: of the prepared image sets.
      changes: fields that are others, as nested dictionaries.
    """
    data = {**changes.get("data", {}), "dir": data_dir}
    return changed(trajectory_config(variant), {**changes, "data": data})


def _folder(stages: Stages, name: str, config: ConfigDict) -> Workdir:
    mark = hashlib.sha256(repr(plain_values(config)).encode()).hexdigest()[:12]
    root = stages.shared or stages.workdir.path / "zoos"
    return Workdir(root / f"zoo-{name}-{mark}", plain_values(config), wait=True)
