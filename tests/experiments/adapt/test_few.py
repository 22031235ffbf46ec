"""Training on few images: which weights move."""

from __future__ import annotations

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.fsl_parts import recipe
from experiments.adapt import few, fine_tuned
from experiments.zoo_targets import ZOO
from flown_jax.data.pictures import Pictures
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.networks.space import NetworkSpace
from flown_jax.training.records import Records
from flown_jax.training.stages import StageContext
from flown_jax.weights.joint import JointSpace
from tests.experiments.adapt import little
from tests.weights import small

SPEC = little.SPEC
STARTS = np.float32(small.vectors((0, 1), SPEC.size))


def pictures(count):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    return Pictures(images, np.arange(count) % 10, Preprocessing.from_dict(SPEC.inputs_dict))


def trained(folder, part):
    joint = JointSpace.of({ZOO.name: SPEC})
    how = recipe(4, 10, 0.01, 0.0, validate_every=2, save_every=4, log_every=4)
    given = {
        "space": NetworkSpace.fit(joint, {ZOO.name: STARTS}),
        "starts": STARTS,
        "seed": 0,
        "train": pictures(20),
        "choice": pictures(10),
        "rates": (0.01,),
        "part": part,
        "how": ConfigDict({"recipe": how}),
    }
    context = StageContext(part, folder, Records(folder), types.SimpleNamespace(**given))
    return few._train(context)["weights"]


@pytest.mark.parametrize("part", [few.HEAD, few.ALL])
def test_the_last_layer_alone_moves_or_all_of_them(tmp_path, part):
    moved = trained(tmp_path, part) != STARTS
    last = sum(entry.size for entry in SPEC.entries[-2:])
    assert moved[:, -last:].any()
    assert moved[:, :-last].any() == (part == few.ALL)


def test_parts_of_networks_are_trained_on_for_as_long_as_an_adaptation(monkeypatch):
    calls = []
    monkeypatch.setattr(few, "trained_on", lambda *given: calls.append(given[4:]) or given[5])
    config = little.config("zoo")
    target = types.SimpleNamespace(name="run", train=STARTS)
    new = types.SimpleNamespace(train=pictures(20))
    found = fine_tuned.of_parts(None, config, target, new, np.repeat(STARTS, 3, 0))
    assert {name: len(starts) for name, starts in found.items()} == {
        "plain_generated": config.rivals.networks,
        "plain_mean": 1,
    }
    assert [call[0] for call in calls] == ["run-plain-generated", "run-plain-mean"]
    assert all(call[2:] == (few.ALL, 20, config.adapt.recipe.steps) for call in calls)
