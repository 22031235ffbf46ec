"""Zoos that a command trains itself, and networks of their recipe that are not in them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments import trajectory_training
from experiments.fresh import fresh_networks
from experiments.own_zoos import trajectory, trajectory_zoo
from experiments.stages import Stages
from flown_jax.data import image_sets
from flown_jax.weights import zoo
from tests.layers.helpers import quick_jit

SMALL = {
    "seed": 3,
    "data": {"train_images": 64},
    "base": {"epochs": 1},
    "inputs": {"size": 16},
    "states": {"count": 4, "every": 1},
    "network": {
        "sizes": {"channels": (2,), "kernels": (5,), "pools": (True,), "hidden": (4,)},
    },
}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Compilation takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick_jit)
        yield


@pytest.fixture
def stages(tmp_path):
    from flown_jax.training.workdir import Workdir

    with Workdir(tmp_path / "runs" / "one", {}) as work:
        yield Stages(work, share=True)


def config():
    found = trajectory("tiny", "data", {k: v for k, v in SMALL.items() if k != "data"})
    found.data.train_images = 64
    return found


def test_a_trajectory_is_trained_once_beside_the_runs(stages, tmp_path, monkeypatch):
    folder = trajectory_zoo(stages, config())
    assert folder.parent.parent == tmp_path / "runs" / "shared"
    found = zoo.load(folder)
    assert len(found) == 4 and set(found.table["seed"]) == {3}

    def trained(*args):
        raise AssertionError("it is there")

    monkeypatch.setattr(trajectory_training, "base_variables", trained)
    assert trajectory_zoo(stages, config()) == folder


def test_fresh_networks_are_of_other_seeds_and_see_no_test_image(stages, monkeypatch):
    load = image_sets.load

    def train_alone(name, split, data_dir=None):
        assert split == "train"
        return load(name, split, data_dir)

    monkeypatch.setattr(image_sets, "load", train_alone)
    found = fresh_networks(stages, config(), 2, "fresh")
    assert len(found) == 2 and np.abs(found[0] - found[1]).max() > 0.1
    again = fresh_networks(stages, config(), 1, "fresh")
    np.testing.assert_array_equal(again[0], found[0])


def test_of_a_part_states_are_saved_again(stages, monkeypatch):
    other = config()
    seen = []

    def saved(context, base):
        seen.append((context.inputs.seed, base))
        return {"weights": np.arange(4.0)[:, None]}

    monkeypatch.setattr("experiments.fresh.saved_states", saved)
    base = {"params": {"a": np.zeros(2, np.float32)}}
    found = fresh_networks(stages, other, 2, "again", base)
    np.testing.assert_array_equal(found[:, 0], [1, 3])  # at equal distances, the last included
    assert seen[0][0] != other.seed
