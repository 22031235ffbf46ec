"""A trajectory from a config: what lies on the disk, restarts, pretrained starts, mistakes."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.trajectory import get_config, variants
from experiments import command
from experiments.train_trajectory import __main__ as train_trajectory
from experiments.trajectory_network import chosen
from experiments.trajectory_start import start_values
from flown_jax.data import image_sets
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.models import registry
from flown_jax.models.vit import VisionTransformer
from flown_jax.torch_import.files import write_state_dict
from flown_jax.training import trajectory
from flown_jax.training.checkpoints import Checkpoints
from flown_jax.weights import zoo
from flown_jax.weights.spec import WeightSpec
from tests.layers.helpers import initial_variables, quick_jit

SMALL = (
    "--config.base.epochs=6",
    "--config.states.every=0",
    "--config.inputs.size=16",
    "--config.states.held_out=0.2",
    "--config.network.sizes.channels=(4,)",
    "--config.network.sizes.kernels=(5,)",
    "--config.network.sizes.pools=(True,)",
)
VIT = {"patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 2}


def config(*overrides, vit=False):
    values = get_config("tiny")
    if vit:
        with values.unlocked():
            values.network.update(name="vit", part="last_norms")
            values.network.sizes = ConfigDict(VIT)
        values.inputs.size = 16
    command.override(values, overrides, "experiments.train_trajectory")
    return values


def recomputed(found, count):
    """Test accuracies of a loaded zoo's vectors, by zoo and data set alone."""
    test_set = image_sets.load(found.dataset, "test")
    rows = chosen(len(test_set.labels), count, "")
    images = Preprocessing.from_dict(found.spec.inputs_dict).apply(test_set.images[rows])
    run = quick_jit(jax.vmap(found.spec.apply, in_axes=(0, None, None)))
    scores = np.asarray(run(found.weights, images, found.base))
    return (scores.argmax(-1) == test_set.labels[rows]).mean(1)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Compilation takes most of a tiny run; nothing here needs optimised programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick_jit)
        yield


@pytest.fixture(scope="module")
def finished(quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectory") / "run"
    train_trajectory.run(config(*SMALL), str(folder))
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """A run without its picture, which takes longer than the rest."""
    monkeypatch.setattr(train_trajectory, "overview", lambda *args, **options: None)


def test_the_zoo_is_what_the_rows_say(finished):
    found = zoo.load(finished / "zoo")
    assert found.table["epoch"] == list(range(1, 11)) and set(found.table["seed"]) == {1}
    assert found.table["split"] == ["train"] * 8 + ["held_out"] * 2
    assert found.recipe["states"]["every"] == 4 and found.recipe["train_images"] == 256
    assert found.base is None and not found.spec.partial
    accuracy = recomputed(found, 100)
    np.testing.assert_allclose(accuracy, found.table["test_accuracy"], atol=1e-6)
    assert accuracy.mean() > 0.3  # by chance 0.1
    results = json.loads((finished / "results.json").read_text())
    cell = {"method": "all states", "metric": "accuracy"}
    assert all(row["over"] == "networks" and row["unit"] for row in results["rows"])
    (row,) = [row for row in results["rows"] if cell.items() <= row.items()]
    assert row["value"] == pytest.approx(accuracy.mean()) and row["n"] == 10
    assert (finished / "figures" / "zoo.png").stat().st_size > 10_000


def test_a_finished_run_is_shown_again_and_another_refused(finished, capsys):
    before = (finished / "zoo" / "manifest.json").stat().st_mtime_ns
    train_trajectory.run(config(*SMALL), str(finished))
    assert "the zoo lies in" in capsys.readouterr().out
    assert (finished / "zoo" / "manifest.json").stat().st_mtime_ns == before
    other = config(*SMALL, "--config.states.recipe.learning_rate=0.5")
    with pytest.raises(UserError, match=r"recipe.learning_rate = 0.001, .*choose a new --workdir"):
        train_trajectory.run(other, str(finished))


def test_another_split_of_the_states_is_another_zoo(finished):
    before = (finished / "zoo" / "manifest.json").stat().st_mtime_ns
    other = config(*SMALL, "--config.states.held_out=0.3")
    with pytest.raises(UserError, match=r"with states.held_out = 0.2, .*choose a new --workdir"):
        train_trajectory.run(other, str(finished))
    assert (finished / "zoo" / "manifest.json").stat().st_mtime_ns == before


def test_a_run_that_is_killed_ends_where_a_whole_one_ends(tmp_path, monkeypatch, undrawn, finished):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for path in ("zoo", "stages/states", "stages/evaluation"):
        shutil.rmtree(copy / path)
    save = Checkpoints.save

    def save_and_die(self, step, tree):
        save(self, step, tree)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trajectory, "_SAVE_SECONDS", 0.0)  # a checkpoint after the first state
        patched.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train_trajectory.run(config(*SMALL), str(copy))
    assert not (copy / "zoo").exists()
    train_trajectory.run(config(*SMALL), str(copy))
    whole, again = zoo.load(finished / "zoo"), zoo.load(copy / "zoo")
    np.testing.assert_array_equal(again.weights, whole.weights)
    assert again.table == whole.table


def test_a_part_lies_beside_its_network_and_starts_from_a_file(tmp_path, undrawn):
    """A file of five classes: everything but the classifier is the file's."""
    module = VisionTransformer(**VIT, num_classes=5)
    variables = initial_variables(module, jnp.zeros((1, 16, 16, 1)))
    spec = WeightSpec.from_module(module, variables)
    vector = np.asarray(spec.flatten(variables))
    state = {e.name: vector[spec.slices[e.name]].reshape(e.shape) for e in spec.entries}
    write_state_dict(tmp_path / "vit.pth", state)
    overrides = (
        "--config.network.start=file",
        f"--config.network.file={tmp_path / 'vit.pth'}",
        "--config.base.epochs=0",
        "--config.augmentation=crop_flip",
    )
    train_trajectory.run(config(*overrides, vit=True), str(tmp_path / "run"))
    found = zoo.load(tmp_path / "run" / "zoo")
    names = ["blocks.0.norm2.weight", "blocks.0.norm2.bias", "norm.weight", "norm.bias"]
    assert list(found.spec.names) == names and found.spec.partial
    np.testing.assert_allclose(recomputed(found, 100), found.table["test_accuracy"], atol=1e-6)
    whole = WeightSpec.from_module(found.spec.module(), found.base)
    host = np.asarray(whole.flatten(found.base))
    for name in set(state) - {"head.weight", "head.bias"}:
        np.testing.assert_array_equal(host[whole.slices[name]], state[name].ravel())
    assert whole.slices["head.bias"].stop - whole.slices["head.bias"].start == 10
    assert np.ptp(found.weights, axis=0).max() > 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("--config.network.part=head",), "network.part is 'head'; it is one of all, last_norms"),
        (("--config.network.part=last_norms",), "no subset of normalisations is defined for 'cnn'"),
        (("--config.network.start=zeros",), "network.start is 'zeros'; it is one of random, file"),
        (("--config.network.start=file",), "none is given: --config.network.file=FILE"),
        (("--config.network.start=file", "--config.network.file=no.pth"), "no.pth"),
        (("--config.network.name=resnet12",), "a backbone without a classifier"),
        (("--config.augmentation=mixup",), "augmentation is 'mixup'"),
        (("--config.states.held_out=1.0",), "states.held_out is 1.0"),
        (("--config.states.count=0",), "states.count is 0; it must be a whole number"),
        (("--config.data.train_images=2000",), "data.train_images is 2000; there are 1200 images"),
        (("--config.base.batch=300",), "a batch of 300 cannot be drawn from 256 images"),
        (
            ("--config.base.schedule=linear",),
            "base.schedule is .linear.; it must be",
        ),
        (("--config.data.name=stl10",), "prepare it with"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(tmp_path, monkeypatch, overrides, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        train_trajectory.run(config(*overrides), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "stages").exists()


def test_a_file_of_another_network_is_named(tmp_path):
    write_state_dict(tmp_path / "odd.pth", {"norm.weight": np.zeros(3, np.float32)})
    network = ConfigDict({"start": "file", "file": str(tmp_path / "odd.pth")})
    module = registry.build("vit", VIT)
    start = start_values(network)
    assert len(start.fingerprint) == 64
    with pytest.raises(UserError, match=r"odd.pth: The state dict has no entry 'cls_token'"):
        start(module, (16, 16, 1), {})


def test_every_variant_has_its_recipe():
    made = {variant: get_config(variant) for variant in variants()}
    paper = [name for name in made if name.startswith("paper_")]
    assert len(paper) == 16 and all(
        made[name].states.count == 200 for name in made if name != "tiny"
    )
    assert {made[name].base.learning_rate for name in paper if "resnet18" in name} == {0.1}
    assert made["paper_resnet18_cifar100"].base.epochs == 200
    assert made["paper_vit_mnist"].inputs.mean == (0.1307,) * 3
    assert made["paper_convnext_stl10"].network.start == "file"
    assert made["paper_convnext_stl10"].states.recipe.learning_rate == 5e-2
    assert (
        made["resnet18_cifar10"].network.sizes.width
        < made["paper_resnet18_cifar10"].network.sizes.width
    )
    # Two cores' size is smaller and begins at random, of every network and data set.
    small = set(made) - set(paper) - {"digits", "tiny"}
    assert len(small) == 16
    for name in small:
        published = made[f"paper_{name.replace('cnn_medium', 'cnn')}"]
        assert made[name].base.epochs < published.base.epochs and made[name].states.every
        assert made[name].network.start == "random" and made[name].inputs.size <= 32
        assert made[name].network.part == published.network.part
    with pytest.raises(ValueError, match="no variant 'paper_cnn_usps'"):
        get_config("paper_cnn_usps")
