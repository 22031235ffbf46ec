"""Every field of the configs of zoos reaches a stage or the written zoo, or does nothing."""

from __future__ import annotations

import types

from configs.trajectory import get_config as trajectory_config
from configs.zoo import get_config as zoo_config
from experiments import trajectory_training as trajectory
from experiments import zoo_training
from experiments.train_trajectory.check import check
from tests.experiments import walk

NAMES = {"variant": "a name for folders and titles", "tensorboard": "what is written beside them"}
DISK = {"data.dir": "where images lie; the images themselves are fingerprinted"}


def test_every_field_of_a_zoo(tmp_path, monkeypatch):
    config, work = zoo_config("tiny"), types.SimpleNamespace(path=tmp_path)

    def compute(config):
        job = zoo_training.ZooTraining(config, work)
        trained = job.train()
        job.write(trained, job.evaluate(trained))

    others = {
        "data.name": {"data.name": "latin"},
        "inputs.mean": {"inputs.mean": (0.3,)},
        "inputs.channels": {
            "inputs.channels": 3,
            "inputs.mean": (0.5,) * 3,
            "inputs.std": (0.5,) * 3,
        },
        "network.sizes.kernels": {"network.sizes.kernels": (5, 5, 3)},
        "network.sizes.pools": {"network.sizes.pools": (True, True, True)},
        "network.sizes.activation": {"network.sizes.activation": "relu"},
        "initialisation": {"initialisation": "kaiming_normal"},
        "recipe.optimizer": {"recipe.optimizer": "sgd"},
        "recipe.schedule": {"recipe.schedule": "cosine"},
        "recipe.save_epochs": {"recipe.save_epochs": (1,)},
    }
    found = walk.walked(
        config, compute, {"*": lambda _: {"weights": []}}, others, monkeypatch, zoo_training
    )
    assert {field for field, stage in found.items() if stage is None} == {*NAMES, *DISK}
    refused = {field for field, stage in found.items() if stage == "refused"}
    # There is no such network, and no trunk in a run of so few epochs.
    assert refused == {"network.name", "networks.trunk_epochs"}


def test_every_field_of_a_trajectory(tmp_path, monkeypatch):
    config, work = trajectory_config("tiny"), types.SimpleNamespace(path=tmp_path)
    monkeypatch.setattr(trajectory, "state_rows", lambda config, values: [])
    monkeypatch.setattr(trajectory, "_variables", lambda base: {})

    def compute(config):
        check(config)
        job = trajectory.TrajectoryTraining(config, work)
        base = job.train()
        states = job.save_states(base)
        job.write(base, states, job.evaluate(base, states))

    others = {
        "data.name": {"data.name": "latin"},
        "inputs.channels": {
            "inputs.channels": 3,
            "inputs.mean": (0.5,) * 3,
            "inputs.std": (0.5,) * 3,
        },
        "augmentation": {"augmentation": "crop_flip"},
        "base.floor": {"base.floor": 1e-4},
        "base.momentum": {"base.momentum": 0.5},
        "states.recipe.momentum": {"states.recipe.momentum": 0.5},
        "states.recipe.floor": {"states.recipe.floor": 1e-4},
        "base.optimizer": {"base.optimizer": "sgd"},
        "states.recipe.optimizer": {"states.recipe.optimizer": "sgd"},
        "base.schedule": {"base.schedule": "multistep"},
        "states.recipe.schedule": {"states.recipe.schedule": "multistep"},
        "base.milestones": {"base.milestones": (0.2, 0.6, 0.8)},
        "states.recipe.milestones": {"states.recipe.milestones": (0.2, 0.6, 0.8)},
        "network.name": {"network.name": "resnet18", "network.sizes": {"width": 2}},
        "network.sizes.kernels": {"network.sizes.kernels": (3, 3, 2)},
        "network.sizes.pools": {"network.sizes.pools": (True, True, False)},
        "network.sizes.activation": {"network.sizes.activation": "relu"},
    }
    values = {
        "evaluation": lambda _: {"base": {"accuracy": 0.5}},
        "states": lambda _: {"weights": []},
    }
    found = walk.walked(config, compute, values, others, monkeypatch, trajectory)
    silent = {*NAMES, *DISK, "network.file"}  # of a start from a file, whose tensors are hashed
    assert {field for field, stage in found.items() if stage is None} == silent
    refused = {field for field, stage in found.items() if stage == "refused"}
    assert refused == {"network.start", "network.part"}  # a file that is not there; no such part
