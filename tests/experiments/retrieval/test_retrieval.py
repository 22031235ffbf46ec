"""The retrieval experiment: what it refuses, and what its parts hand to each other."""

from __future__ import annotations

import dataclasses
import re
import shutil
import threading
import types

import numpy as np
import pytest

from configs.retrieval import get_config
from experiments import own_zoos
from experiments.designs import changed
from experiments.retrieval import zoos
from experiments.retrieval.check import check
from experiments.retrieval.measure import units
from experiments.retrieval.words import introduction
from experiments.retrieval.zoos import align, read_data
from experiments.stages import Stages
from flown_jax.data import image_sets, splits
from flown_jax.errors import UserError
from flown_jax.models.cnn import CNN
from flown_jax.training.stages import StageResult, plain_values
from flown_jax.training.workdir import Workdir
from flown_jax.weights import zoo
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import initial_variables

INPUTS = {"size": 12, "channels": 1, "mean": [0.5], "std": [0.5], "crop": None}


def config_with(**fields):
    """The tiny variant with some fields changed; `a__b` is a.b."""
    config = get_config("tiny")
    config.unlock()
    for name, value in fields.items():
        *parts, last = name.split("__")
        part = config
        for each in parts:
            part = part[each]
        part[last] = value
    return config


@pytest.mark.parametrize("variant", ["default", "tiny", "real", "init", "paper"])
def test_every_variant_is_accepted(variant):
    check(get_config(variant))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"zoos": {}}, "zoos names no data set"),
        ({"alignment__leader": "mnist"}, "alignment.leader is 'mnist'; it must be one of"),
        ({"condition__entries": ("images",)}, "condition.entries is ('images',)"),
        ({"sampling__samples": 1}, "sampling.samples is 1; it must be 2 or more"),
        ({"flow__target": "all"}, "flow.target is 'all'; it must be 'members' or 'mixes'"),
        ({"codec__members": 9}, "codec.members is 9; a mix has from 1 to codec.networks = 6"),
        ({"codec__task_weight": -1.0}, "codec.task_weight is -1.0; it must be a finite number fr"),
        ({"codec__task_balance": -0.5}, "codec.task_balance is -0.5; it must be a finite number"),
        ({"flow__concentration": 0.0}, "flow.concentration is 0.0; it must be a finite number ab"),
        ({"codec__form": "conv"}, "codec.form is 'conv'"),
        ({"velocity__kind": "resnet"}, "velocity.kind is 'resnet'"),
        ({"sampling__solver": "rk9"}, "rk9"),
        (
            {"codec__task_weight": 0.0, "codec__weights_weight": 0.0},
            "codec has neither weights_weight nor task_weight",
        ),
        (
            {"beside__raw__codec": {"seps": 3}},
            "field beside.raw.codec.seps, which no command",
        ),
    ],
)
def test_a_wrong_config_is_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check(config_with(**fields))


def test_a_design_changes_what_is_named_and_nothing_else():
    config = get_config("default")
    other = changed(config, {"codec": {"task_weight": 0.0, "recipe": {"steps": 7}}})
    assert (other.codec.task_weight, other.codec.recipe.steps) == (0.0, 7)
    assert other.codec.recipe.batch == config.codec.recipe.batch
    assert config.codec.task_weight > 0


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory):
    """A zoo of five networks for images of a user's own."""
    root = tmp_path_factory.mktemp("own")
    module = CNN(channels=(3, 2), kernels=(3, 2), pools=(True, False), hidden=(4,), num_classes=3)
    variables = initial_variables(module, np.zeros((1, 12, 12, 1), np.float32))
    spec = WeightSpec.from_module(module, variables, inputs=INPUTS)
    weights = np.random.default_rng(0).normal(0, 0.3, (5, spec.size)).astype(np.float32)
    rows = [
        {"seed": i, "epoch": 2, "split": "held_out" if i > 2 else "train", "test_accuracy": 0.3}
        for i in range(5)
    ]
    zoo.create(root / "zoo", spec, dataset="pets", recipe={"optimizer": "adam"})
    zoo.add(root / "zoo", weights, rows)
    rng = np.random.default_rng(1)
    images = {
        f"{split}_images": rng.integers(0, 256, (count, 12, 12)).astype(np.uint8)
        for split, count in (("train", 60), ("test", 30))
    }
    labels = {f"{s}_labels": np.arange(n) % 3 for s, n in (("train", 60), ("test", 30))}
    np.savez(root / "pets.npz", **images, **labels)
    return root


def own(zoo_folder, **more):
    fields = {
        "zoos": {"pets": str(zoo_folder / "zoo")},
        "data__dir": str(zoo_folder),
        "alignment__leader": "pets",
        "alignment__images": 20,
        "epochs": (),
        "initialise__unseen": {},
    }
    return config_with(**{**fields, **more})


def read(config, folder):
    """The stages of a run, closed, and its data."""
    with Workdir(folder / "run", plain_values(config)) as work:
        stages = Stages(work, share=config.share)
        return stages, read_data(stages, config)


def test_a_users_zoo_and_images_are_read_by_config_alone(zoo_folder, tmp_path):
    config = own(zoo_folder)
    stages, data = read(config, tmp_path)
    assert data.names == ("pets",)
    assert len(data.zoos["pets"]) == 3 and len(data.held_out["pets"]) == 2
    images = data.images["pets"]
    assert len(images.train.labels) == 50 and len(images.validation.labels) == 10
    assert images.test.inputs.shape == (30, 12, 12, 1)
    first = align(stages, config.alignment, data)
    assert first.values["train"]["pets"].shape == (3, data.joint.size)
    others, again = read(config, tmp_path / "second")
    assert others.shared != stages.shared
    assert align(others, config.alignment, again).fingerprint == first.fingerprint


def nothing(context):
    return {}


def test_a_replaced_zoo_or_set_of_images_is_another_input(zoo_folder, tmp_path, monkeypatch):
    """A finished run meets them in its stages, and its rows would be of another unit."""
    monkeypatch.setattr(zoos, "_align", nothing)
    folder = tmp_path / "own"
    shutil.copytree(zoo_folder, folder)

    def marks(name):
        stages, data = read(own(folder), tmp_path / name)
        known = StageResult("conditions", "draws", tmp_path, {}, 0.0)
        assert units(data, known) != units(data, dataclasses.replace(known, fingerprint="other"))
        aligned = align(stages, own(folder).alignment, data).fingerprint
        return aligned, units(data, known)["pets"]

    def replaced(change):
        with np.load(folder / "pets.npz") as stored:
            images = dict(stored)
        change(images)
        np.savez(folder / "pets.npz", **images)

    first = marks("first")
    assert marks("again") == first
    replaced(lambda images: images["test_images"].__setitem__((0, 0, 0), 0))
    other = marks("test")
    assert other[0] == first[0] and other[1] != first[1]  # alignment sees training images
    replaced(lambda images: images["train_images"].__setitem__(slice(None), 7))
    assert marks("train")[0] != first[0]
    whole = zoo.load(folder / "zoo")
    shutil.rmtree(folder / "zoo")
    zoo.create(folder / "zoo", whole.spec, dataset="pets", recipe=dict(whole.recipe))
    rows = [{name: column[i] for name, column in whole.table.items()} for i in range(len(whole))]
    zoo.add(folder / "zoo", whole.weights + 1, rows)
    last = marks("zoo")
    assert len({mark for found in (first, other, last) for mark in found}) == 5


def test_pictures_are_known_by_their_content(zoo_folder, tmp_path):
    _, data = read(own(zoo_folder), tmp_path / "one")
    _, same = read(own(zoo_folder, evaluation__test_images=7), tmp_path / "two")
    _, other = read(own(zoo_folder, data__split_seed=3), tmp_path / "three")
    one, two, three = (d.images["pets"] for d in (data, same, other))
    assert one.train.fingerprint == two.train.fingerprint != three.train.fingerprint
    assert len(two.test.labels) == 7 and two.test.fingerprint != one.test.fingerprint


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"epochs": (7,)}, "the zoo of pets has no epoch of (7,); it has 2"),
        ({"zoos": {"cats": "zoo"}}, "a zoo for pets"),
        ({"zoos": {"pets": "nowhere"}}, "there is no zoo in"),
        ({"zoos": {"pets": ""}}, "configs/zoo.py has no variant 'pets': give a folder"),
    ],
)
def test_a_zoo_that_does_not_fit_is_one_sentence(zoo_folder, tmp_path, fields, sentence):
    if "zoos" in fields:
        fields = {"zoos": {k: v and str(zoo_folder / v) for k, v in fields["zoos"].items()}}
    with pytest.raises(UserError, match=re.escape(sentence)):
        read(own(zoo_folder, **fields), tmp_path)


def zoo_of(root, name, recipe, rows):
    """A zoo of the same networks in another folder."""
    there = zoo.load(root / "zoo")
    zoo.create(root / name, there.spec, dataset="pets", recipe=recipe)
    weights = np.random.default_rng(len(name)).normal(0, 0.3, (len(rows), there.spec.size))
    zoo.add(root / name, weights.astype(np.float32), rows)
    return str(root / name)


def states(networks, epochs, **more):
    """Rows of networks at several epochs; the last two networks are held out."""
    return [
        {"seed": n, "epoch": e, "split": "held_out" if n >= networks - 2 else "train", **more}
        for n in range(networks)
        for e in epochs
    ]


def test_unseen_images_are_those_that_the_zoo_says(zoo_folder, tmp_path):
    train = image_sets.load("pets", "train", zoo_folder)
    chosen, rest = splits.rows(60, 40, 7)
    recipe = splits.record(train, chosen, 7)
    folder = zoo_of(zoo_folder, "recorded", recipe, states(4, (1,)))
    _, data = read(own(zoo_folder, zoos={"pets": folder}, data__split_seed=3), tmp_path)
    images = data.images["pets"]
    assert np.array_equal(images.train.images, train.images[chosen])
    assert np.array_equal(images.validation.images, train.images[rest])
    assert not data.unknown and not data.remarks["pets"]
    assert "nor have the networks, by the record" in introduction(own(zoo_folder), {"pets": 2})


def test_what_a_zoo_does_not_say_of_its_images_is_not_claimed(zoo_folder, tmp_path):
    _, data = read(own(zoo_folder), tmp_path)
    assert data.unknown == ("pets",)
    assert "does not say which images of pets" in data.remarks["pets"][0]
    text = introduction(own(zoo_folder), {"pets": 2}, data.unknown)
    assert "whether the networks have, the zoos do not say" in text
    assert "Which images the encoder" not in text
    config = own(zoo_folder, features__encoder__kind="clip_vit")
    assert "the encoder (clip_vit) was trained on is not known" in introduction(config, {"pets": 2})
    mixed = introduction(own(zoo_folder), {"pets": 2, "cats": 2}, ("pets",))
    assert "nor have the networks of cats" in mixed and "the zoos of pets do not say" in mixed


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"images_fingerprint": "0" * 64, "train_images": 40}, "another set of images"),
        ({"train_images": 90}, "was trained on 90 images of pets; there are 60"),
    ],
)
def test_other_images_than_the_networks_saw_are_refused(zoo_folder, tmp_path, recipe, sentence):
    name = f"other{len(recipe)}"
    folder = zoo_of(zoo_folder, name, recipe, states(4, (1,)))
    with pytest.raises(UserError, match=sentence):
        read(own(zoo_folder, zoos={"pets": folder}), tmp_path)


def test_networks_are_counted_and_not_their_epochs(zoo_folder, tmp_path):
    folder = zoo_of(zoo_folder, "epochs", {}, states(6, (1, 2, 3)))
    config = own(zoo_folder, zoos={"pets": folder}, epochs=(2, 3), networks=3)
    _, data = read(config, tmp_path)
    table = data.zoos["pets"].table
    assert table["seed"] == [0, 0, 1, 1, 2, 2] and table["epoch"] == [2, 3] * 3
    # What is pooled is one state a network.
    assert data.last == {"pets": [1, 3, 5]}
    assert np.array_equal(data.fresh["pets"], data.held_out["pets"].weights[[1, 3]])
    with pytest.raises(UserError, match="has 4 networks of the split 'train'.* asks for 5"):
        read(own(zoo_folder, zoos={"pets": folder}, networks=5), tmp_path / "more")
    rows = states(5, (1, 2, 3))
    for row in rows[9:12]:
        row["split"] = "train"
    folder = zoo_of(zoo_folder, "alone", {}, rows)
    with pytest.raises(UserError, match="has 1 networks of the split 'held_out'"):
        read(own(zoo_folder, zoos={"pets": folder}, epochs=(2, 3)), tmp_path / "alone")


def test_the_leader_is_never_chosen_on_test_images(zoo_folder, tmp_path, monkeypatch):
    led = []

    def align_zoos(joint, weights, best, images, *, rounds):
        led.append(best["pets"])
        raise InterruptedError

    monkeypatch.setattr(zoos, "align_zoos", align_zoos)
    known = [0.2, 0.4, 0.3, 0.1, 0.1]
    for i, (validation, test) in enumerate(
        [(None, [0.9, 0, 0]), (None, [0, 0, 0.9]), (known, [0.9, 0, 0]), (known, [0, 0, 0.9])]
    ):
        rows = states(5, (1,))
        for k, row in enumerate(rows):
            row["test_accuracy"] = [*test, 0, 0][k]
            row["validation_accuracy"] = None if validation is None else validation[k]
        # The same networks each time.
        folder = zoo_of(zoo_folder, f"lead{i}", {}, rows)
        config = own(zoo_folder, zoos={"pets": folder})
        with pytest.raises(InterruptedError), Workdir(tmp_path / str(i), {}) as work:
            stages = Stages(work)
            align(stages, config.alignment, read_data(stages, config))
    assert led[0] == led[1] and led[2:] == [1, 1]


def test_networks_need_images_that_they_have_not_seen(zoo_folder, tmp_path):
    with pytest.raises(UserError, match="none are left for choices and support images"):
        read(own(zoo_folder, data__validation_share=0.0), tmp_path)


def test_of_two_runs_that_train_one_zoo_the_second_waits(tmp_path, monkeypatch):
    training = types.SimpleNamespace(
        train=lambda: None, evaluate=lambda trained: None, write=lambda *_: tmp_path
    )
    monkeypatch.setattr(own_zoos, "ZooTraining", lambda config, work: training)
    stages = types.SimpleNamespace(shared=tmp_path, count=lambda result: result)
    zoos._trained(stages, get_config("tiny"), "latin")
    (folder,) = tmp_path.glob("zoo-latin-*")
    made = []
    second = threading.Thread(
        target=lambda: made.append(zoos._trained(stages, get_config("tiny"), "latin"))
    )
    with Workdir(folder, {}):
        second.start()
        second.join(0.2)
        assert second.is_alive()
    second.join(30)
    assert made == [tmp_path]
