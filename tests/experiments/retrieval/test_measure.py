"""Networks without a generative model, and which data set's networks came out."""

from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.retrieval_generators import Design
from experiments.retrieval_measure import Rivals, came_out
from flown_jax.networks.generator import ZooLatents
from flown_jax.networks.space import ZooSpace
from flown_jax.training import Records
from flown_jax.training.stages import StageContext
from tests.networks import zoos

NAMES = ("grey", "colour")
COUNT = 4


class Job:
    """Two zoos; a set's labels are what its own first network says of its images."""

    names = NAMES
    joint = zoos.JOINT

    def __init__(self) -> None:
        rivals = {"steps": 60, "batch": 10, "learning_rates": (1e-8, 1e-2), "tuned_on": 2}
        self.config = ConfigDict({"seed": 0, "rivals": rivals, "sampling": {"samples": COUNT}})
        self._images = {name: self._labelled(name) for name in NAMES}

    def part(self, name, held_out=False):
        weights = zoos.weights(name, 6)
        # Copies of the first network, on whose answers the set's labels are.
        return SimpleNamespace(weights=np.repeat(weights[:1], 6, axis=0))

    def images(self, name):
        return self._images[name]

    def _labelled(self, name):
        spec = self.joint.spec(name)
        found = {}
        for seed, part in enumerate(("train", "validation")):
            x = zoos.images(name, 200, seed)
            scores = spec.module().apply(spec.unflatten(jnp.asarray(zoos.weights(name, 6)[0])), x)
            labels = np.asarray(scores.argmax(-1))
            found[part], found[f"{part}_inputs"] = (None, labels), x
        return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def job():
    return Job()


def design_of(job):
    weights = {name: zoos.weights(name, 6) for name in NAMES}
    space = ZooSpace.fit(job.joint, weights)
    return space, Design("", job.config, None, weights, ZooLatents(space, None, None, None), {}, "")


def test_the_set_that_came_out_is_the_one_whose_images_the_networks_classify(job):
    space, design = design_of(job)
    own = {name: np.asarray(space.normalise(name, job.part(name).weights)) for name in NAMES}
    # Shown grey images, three networks of the colour zoo and one of the grey zoo came out.
    mixed = np.concatenate([own["colour"][:3], own["grey"][:1]])
    found = came_out(job, design, {"grey": mixed, "colour": own["colour"]})
    assert found == {"grey": ["colour"] * 3 + ["grey"], "colour": ["colour"] * 6}


def test_retrieval_by_condition_hands_out_networks_of_the_nearest_set(job):
    def bank(*centres):
        rng = np.random.default_rng(0)
        return {"features": np.asarray(centres)[:, None, None] + 0.01 * rng.normal(size=(4, 3, 2))}

    near_colour = bank(1.0, 1.0, -1.0, 1.0)
    known = SimpleNamespace(
        values={
            "train": {"grey": bank(-1.0, -1.0, -1.0, -1.0), "colour": bank(1.0, 1.0, 1.0, 1.0)},
            "validation": {"grey": near_colour, "colour": bank(1.0, 1.0, 1.0, 1.0)},
        }
    )
    rivals = Rivals(job, None, known)
    assert rivals.nearest("grey") == ["colour", "colour", "grey", "colour"]
    found = rivals.by_condition("grey")
    spec = job.joint.spec("grey")
    assert found.shape == (COUNT, spec.size)
    np.testing.assert_array_equal(found[2], job.part("grey").weights[0])
    read = job.joint.extract("grey", jnp.asarray(job.joint.embed("colour", zoos.weights("colour"))))
    np.testing.assert_array_equal(found[0], np.asarray(read)[0])


def test_averages_are_of_two_different_networks(job):
    rows = np.eye(6, dtype=np.float32)
    aligned = SimpleNamespace(values={"train": {"grey": rows}})
    found = Rivals(job, None, None).averages(aligned, "grey")
    assert found.shape == (COUNT, 6)
    np.testing.assert_array_equal(np.sort(found, axis=1)[:, -2:], 0.5)
    np.testing.assert_array_equal(found.sum(1), 1.0)


def test_rivals_are_trained_with_the_rate_that_validation_chooses(job, tmp_path):
    rivals = Rivals(job, None, None)
    starts = {"average": zoos.weights("grey", COUNT, 3), "kaiming": rivals.kaiming("grey")}
    assert starts["kaiming"].shape == starts["average"].shape
    records = Records(tmp_path)
    found = rivals.trained(StageContext("rivals", tmp_path / "progress", records), "grey", starts)
    records.close()
    for name, start in starts.items():
        assert found[name].shape == start.shape
        # With the rate of 1e-8 nothing would have moved.
        assert np.abs(found[name] - start).max(1).min() > 1e-2
