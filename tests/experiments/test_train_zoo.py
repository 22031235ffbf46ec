"""A zoo from a config: what lies on the disk, what it is worth when run again, what is refused."""

from __future__ import annotations

import functools
import json

import jax
import numpy as np
import pytest

from configs.zoo import get_config, variants
from experiments import command
from experiments.train_zoo import __main__ as train_zoo
from experiments.zoo_merge import __main__ as zoo_merge
from experiments.zoo_training import held_out_seeds, split
from flown_jax.data import image_sets
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.evaluation.classification import interval
from flown_jax.weights import zoo, zoo_files
from tests.parity.fixtures import ROOT

SMALL = (
    "--config.networks.count=3",
    "--config.networks.held_out=0.34",
    "--config.recipe.epochs=1",
    "--config.recipe.save_epochs=(0,1)",
    "--config.network.sizes.channels=(2,)",
    "--config.network.sizes.kernels=(5,)",
    "--config.network.sizes.pools=(True,)",
    "--config.network.sizes.hidden=(8,)",
)


def config(variant="tiny", *overrides):
    values = get_config(variant)
    command.override(values, overrides, "experiments.train_zoo")
    return values


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "run"
    train_zoo.run(config("tiny", *SMALL), str(folder))
    return folder


def test_the_zoo_is_what_the_rows_say(finished):
    found = zoo.load(finished / "zoo")
    assert found.table["seed"] == [1, 2, 3] * 2 and found.table["epoch"] == [0] * 3 + [1] * 3
    assert found.table["split"] == ["train", "train", "held_out"] * 2
    assert found.dataset == "digits" and found.recipe["train_images"] == 1000
    test_set = image_sets.load("digits", "test")
    images = Preprocessing.from_dict(found.spec.inputs_dict).apply(test_set.images)
    scores = jax.jit(jax.vmap(found.spec.apply, in_axes=(0, None)))(found.weights, images)
    accuracy = (np.asarray(scores).argmax(-1) == test_set.labels).mean(1)
    np.testing.assert_allclose(accuracy, found.table["test_accuracy"], atol=1e-6)
    assert accuracy[3:].min() > accuracy[:3].max()  # one epoch teaches more than none
    rows = json.loads((finished / "results.json").read_text())["rows"]
    cell = {"set": "test", "method": "epoch 1", "metric": "accuracy"}
    (row,) = [row for row in rows if cell.items() <= row.items()]
    assert row["value"] == pytest.approx(accuracy[3:].mean()) and row["n"] == 3
    # Student's: 75 of 100 intervals of 1.96 deviations would hold the mean of three networks.
    assert row["ci95"] == pytest.approx(interval(accuracy[3:])[1], rel=1e-4)
    assert all(row["over"] == "networks" and row["unit"] for row in rows)
    assert (finished / "figures" / "zoo.png").stat().st_size > 10_000


def test_a_finished_run_is_shown_again(finished, capsys, monkeypatch):
    before = (finished / "zoo" / "manifest.json").stat().st_mtime_ns
    results = (finished / "results.json").read_bytes()
    monkeypatch.setattr(train_zoo, "environment", lambda: {"flown_jax": "of today"})
    train_zoo.run(config("tiny", *SMALL), str(finished))
    assert "the zoo lies in" in capsys.readouterr().out
    # Where the results were made stays, too, whoever looks at them.
    assert (finished / "results.json").read_bytes() == results
    assert (finished / "zoo" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("recipe.learning_rate=0.5", "recipe.learning_rate = 0.001, "),
        ("network.sizes.hidden=(9,)", r"network.sizes.hidden = \[8\], "),
        ("networks.first_seed=2", r"plan.seeds = \[1, 2, 3\], "),
        ("data.split_seed=43", "split.split_seed = 42, "),
        ("data.name=latin", "images.fingerprint = "),
    ],
)
def test_another_recipe_does_not_go_on_in_the_same_folder(finished, override, difference):
    other = config("tiny", *SMALL, f"--config.{override}")
    with pytest.raises(UserError, match=f"{difference}.*choose a new --workdir"):
        train_zoo.run(other, str(finished))


def test_another_split_of_the_networks_is_another_zoo(finished):
    before = (finished / "zoo" / "manifest.json").stat().st_mtime_ns
    results = (finished / "results.json").read_bytes()
    for share in ("0.0", "0.67"):
        other = config("tiny", *SMALL, f"--config.networks.held_out={share}")
        with pytest.raises(UserError, match=r"was written with held_out = 0.34, .*new --workdir"):
            train_zoo.run(other, str(finished))
    assert (finished / "zoo" / "manifest.json").stat().st_mtime_ns == before
    assert (finished / "results.json").read_bytes() == results


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--config.recipe.optimizer=lion", "must be 'adamw', 'adam' or 'sgd'"),
        ("--config.initialisation=zeros", "initialisation is 'zeros'; it must be"),
        ("--config.network.sizes.activation=cube", "cube"),
        ("--config.inputs.size=6", "too small for this CNN"),
        ("--config.recipe.save_epochs=(9,)", "save_epochs must lie between 0 and 2"),
        ("--config.networks.held_out=1.0", "networks.held_out is 1.0"),
        ("--config.data.validation_share=1.5", "data.validation_share is 1.5"),
        ("--config.data.name=imagenet", "imagenet"),
        ("--config.data.name=mnist", "prepare it with `python -m experiments.prepare_data mnist"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(tmp_path, monkeypatch, override, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        train_zoo.run(config("tiny", override), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "stages").exists()  # the same folder can be used again


def test_every_variant_has_its_recipe():
    made = {variant: get_config(variant) for variant in variants()}
    assert made["cifar10"].network.sizes.activation == "gelu"
    assert made["svhn_cropped"].inputs.channels == 1 and made["svhn_cropped"].inputs.crop == 28
    assert made["stl10_medium"].inputs.size == 32
    assert made["stl10_medium"].network.sizes.channels == (16, 32, 15)
    assert made["mnist"].initialisation == "uniform"
    assert made["mnist_short"].initialisation == "kaiming_uniform"
    assert made["mnist"].recipe.learning_rate == made["mnist_short"].recipe.learning_rate == 3e-4
    assert made["branched"].networks.trunk_epochs > 0
    assert made["colour_symbols"].inputs.channels == 3
    assert made["latin"].recipe.save_epochs == (6, 12)
    with pytest.raises(ValueError, match="no variant 'mnist_medium'"):
        get_config("mnist_medium")


def test_splits_share_nothing_and_leave_nothing_out():
    data = get_config("usps").data
    train, validation = split(7291, data)
    assert (len(train), len(validation)) == (6000, 1291)
    assert sorted((*train, *validation)) == list(range(7291))
    assert held_out_seeds((1, 2, 3, 4, 5), 0.4) == {4, 5}
    assert held_out_seeds((1, 2), 0.0) == set()


def test_shards_are_the_zoo_that_is_trained_at_once(finished, tmp_path, monkeypatch, capsys):
    """Bit for bit: in zoos of their own that are joined, and in one that all write."""
    store, parts = tmp_path / "store", []
    killed = zoo_files.write_manifest
    for number in (3, 1, 2):
        workdir = tmp_path / str(number)
        train_zoo.run(config("tiny", *SMALL), str(workdir), shard=f"{number}/3")
        parts.append(str(workdir / "zoo"))
    for number in (2, 1, 3):
        run = functools.partial(
            train_zoo.run,
            config("tiny", *SMALL),
            str(tmp_path / str(number)),
            shard=f"{number}/3",
            store=str(store),
        )
        if number == 1:  # a kill between the networks and the manifest that names them

            def fail(*arguments):
                raise KeyboardInterrupt

            monkeypatch.setattr(zoo_files, "write_manifest", fail)
            with pytest.raises(KeyboardInterrupt):
                run()
            monkeypatch.setattr(zoo_files, "write_manifest", killed)
            assert len(zoo.load(store)) == 2
        run()
        run()
    whole = zoo.load(finished / "zoo")
    for target, given in (("joined", parts), ("sorted", [str(store), parts[0]])):
        monkeypatch.setattr("sys.argv", ["zoo_merge", str(tmp_path / target), *given])
        zoo_merge.main()
        joined = zoo.load(tmp_path / target)
        np.testing.assert_array_equal(joined.weights, whole.weights)
        assert joined.table == whole.table
        assert (joined.recipe, joined.dataset) == (whole.recipe, whole.dataset)
    assert "6 networks of 3 zoos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shard", "sentence"),
    [
        ("0/3", "of 3 parts there are 1 to 3"),
        ("4/3", "of 3 parts there are 1 to 3"),
        ("1/4", "3 networks cannot be shared by 4"),
        ("a/b", "a part is wanted, like 3/16"),
        ("3", "a part is wanted, like 3/16"),
    ],
)
def test_a_shard_that_there_is_not(tmp_path, shard, sentence):
    with pytest.raises(UserError, match=sentence):
        train_zoo.run(config("tiny", *SMALL), str(tmp_path / "w"), shard=shard)
    assert not (tmp_path / "w").exists()


def test_zoos_of_other_recipes_are_not_joined(finished, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    train_zoo.run(config("tiny", *SMALL, "--config.recipe.learning_rate=0.002"), str(other))
    for given, sentence in (
        ([str(finished / "zoo"), str(other / "zoo")], "their recipes are others, learning_rate"),
        ([str(finished / "zoo"), str(ROOT / "zoos" / "mnist_short")], "cannot be joined"),
    ):
        monkeypatch.setattr("sys.argv", ["zoo_merge", str(tmp_path / "new"), *given])
        with pytest.raises(SystemExit) as ended:
            zoo_merge.main()
        assert ended.value.code == 2 and sentence in capsys.readouterr().err
        assert not (tmp_path / "new").exists()
    store = tmp_path / "store"
    options = {"shard": "1/3", "store": str(store)}
    train_zoo.run(config("tiny", *SMALL), str(tmp_path / "a"), **options)
    with pytest.raises(UserError, match="was written with .* choose a new --store"):
        train_zoo.run(
            config("tiny", *SMALL, "--config.recipe.learning_rate=0.002"),
            str(tmp_path / "b"),
            **options,
        )
