"""Zoos, trajectories and backbones are trained on training images alone."""

from __future__ import annotations

import types

import numpy as np
import pytest

from configs.retrieval import get_config as retrieval_config
from configs.trajectory import get_config as trajectory_config
from configs.zoo import get_config as zoo_config
from experiments import features, zoo_training
from experiments import trajectory_training as trajectory
from experiments.retrieval import zoos
from flown_jax.data.datasets import ClassImages
from flown_jax.data.image_sets import ImageSet
from flown_jax.training import Records, StageContext
from tests.experiments import seen
from tests.experiments.fewshot.configs import changed
from tests.experiments.retrieval import test_fingerprints as fields

COUNT = 100


def loader(poisoned=(), rows=()):
    """`image_sets.load` of small images, those of a split replaced, or some of its rows."""

    def load(name, split, data_dir=None):
        rng = np.random.default_rng(0 if split == "train" else 1)
        images = rng.integers(0, 256, (COUNT, 8, 8, 1), dtype=np.uint8)
        labels = rng.permutation(np.arange(COUNT) % 10).astype(np.int32)
        if split == poisoned:
            chosen = rows if len(rows) else slice(None)
            images[chosen], labels[chosen] = 255 - images[chosen], 9 - labels[chosen]
        return ImageSet(name, images, labels, tuple("abcdefghij"), split)

    return load


def a_zoo(work):
    job = zoo_training.ZooTraining(zoo_config("tiny"), work)
    trained = job.train()
    job.write(trained, job.evaluate(trained))


def a_trajectory(work):
    config = trajectory_config("tiny")
    config.data.update(train_images=0, test_images=0)
    job = trajectory.TrajectoryTraining(config, work)
    base = job.train()
    states = job.save_states(base)
    job.write(base, states, job.evaluate(base, states))


@pytest.mark.parametrize(
    ("module", "compute", "values"),
    [
        (zoo_training, a_zoo, {"*": lambda _: {"weights": []}}),
        (
            trajectory,
            a_trajectory,
            {
                "evaluation": lambda _: {"base": {"accuracy": 0.5}},
                "states": lambda _: {"weights": []},
            },
        ),
    ],
)
def test_test_images_reach_the_evaluation_of_a_zoo_alone(
    module, compute, values, tmp_path, monkeypatch
):
    work, marks = types.SimpleNamespace(path=tmp_path), {}
    if module is trajectory:
        monkeypatch.setattr(trajectory, "state_rows", lambda *_: [])
        monkeypatch.setattr(trajectory, "_variables", lambda base: {})
    for poisoned in ("", "train", "test"):
        monkeypatch.setattr(module.image_sets, "load", loader(poisoned))
        marks[poisoned] = seen.marks(lambda: compute(work), values, monkeypatch, module)
    assert seen.differ(marks[""], marks["test"]) == {"evaluation"}
    assert seen.differ(marks[""], marks["train"]) >= {"training", "zoo"} & set(marks[""])


def test_networks_of_a_zoo_are_trained_on_their_part_of_the_training_images(tmp_path, monkeypatch):
    config, work = zoo_config("tiny"), types.SimpleNamespace(path=tmp_path)
    _, rest = zoo_training.split(COUNT, config.data)
    assert 0 < len(rest) < COUNT
    learned = {}

    def stage(_, name, inputs, function, *__, **___):
        return run(function, tmp_path, **inputs)

    def train_zoo(*_, images, labels, **__):
        return {"images": images, "labels": labels}

    monkeypatch.setattr(zoo_training, "stage", stage)
    monkeypatch.setattr(zoo_training, "train_zoo", train_zoo)
    other = np.setdiff1d(np.arange(COUNT), rest)
    cases = {"": (), "unseen": ("train", rest), "train": ("train", other), "test": ("test",)}
    for case, poison in cases.items():
        monkeypatch.setattr(zoo_training.image_sets, "load", loader(*poison))
        learned[case] = zoo_training.ZooTraining(config, work).train()
    for name, own in learned[""].items():
        assert len(own) == COUNT - len(rest)
        same = [case for case in cases if np.array_equal(own, learned[case][name])]
        assert same == ["", "unseen", "test"], name


def test_states_are_held_out_by_their_place_whatever_they_are_worth():
    config = trajectory_config("tiny")
    config.states.held_out = 0.5
    columns = [f"{kind}_{what}" for kind in ("train", "test") for what in ("accuracy", "loss")]
    rising = np.arange(config.states.count)
    for worth in (rising, rising[::-1]):
        rows = trajectory.state_rows(config, dict.fromkeys(columns, worth))
        splits = [row["split"] for row in rows]
        assert splits == sorted(splits, reverse=True) and set(splits) == {"train", "held_out"}


@pytest.mark.parametrize("side", [0, 8])
def test_the_backbone_is_trained_on_training_classes(side, tmp_path, monkeypatch):
    split = {"train": [2, 0], "validation": [1], "test": [3, 4]}
    found = {}

    def trained(context, module, images, recipe, *, seed, augmentation):
        found[poisoned] = (images, module.num_classes)
        return {"variables": {"params": {"classifier": 0}}, "train_accuracy": 1.0}

    monkeypatch.setattr(features, "train_backbone", trained)
    config = changed("tiny").backbone
    for poisoned in ("", *split):
        images = [np.full((6, 8, 8, 1), c, np.uint8) for c in range(5)]
        for c in split.get(poisoned, ()):
            images[c] = 255 - images[c][: 3 if poisoned == "test" else 6]
        classes = ClassImages(tuple(images), tuple("abcde"))
        inputs = {"backbone": config, "seed": 0, "side": side, "train": split["train"]}
        run(features._train_backbone, tmp_path, classes=lambda classes=classes: classes, **inputs)
    own = found[""][0]
    assert own.shape == (2, 6, 8, 8, 1) and [part.max() for part in own] == split["train"]
    same = [case for case in found if np.array_equal(own, found[case][0])]
    assert same == ["", "validation", "test"]
    assert {classes for _, classes in found.values()} == {2}


def run(function, tmp_path, **inputs):
    given = types.SimpleNamespace(**inputs)
    return function(StageContext("stage", tmp_path, Records(tmp_path), given))


def test_images_to_choose_by_are_no_training_and_no_test_images(tmp_path, monkeypatch):
    """Of the zoo's own set and of a foreign one, which takes no other images than its own."""
    folder = fields.stored_zoo(tmp_path / "zoo", "latin")
    config = retrieval_config("tiny")
    config.unlock()
    config.zoos, config.epochs = {"latin": str(folder)}, (2,)
    config.initialise.unseen = {"greek": "latin"}
    config.initialise.margins = {}
    load = loader()
    monkeypatch.setattr(zoo_training.image_sets, "load", load)
    stages = seen.stages.Stages(types.SimpleNamespace(path=tmp_path))
    found = zoos.read_data(stages, config)
    assert set(found.images) == {"latin", "greek"}
    for name, images in found.images.items():
        whole = load(name, "train")
        parts = np.concatenate([images.train.images, images.validation.images])
        assert len(parts) == COUNT and 0 < len(images.validation.labels) < COUNT
        assert sorted(map(bytes, parts)) == sorted(map(bytes, whole.images))
        np.testing.assert_array_equal(images.test.images, load(name, "test").images)
    held_out, learned_from = found.held_out["latin"].table, found.zoos["latin"].table
    assert not set(held_out["seed"]) & set(learned_from["seed"])
