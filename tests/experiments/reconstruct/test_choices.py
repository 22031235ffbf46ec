"""What the autoencoders of a zoo learn from, and what reaches them."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

from configs.reconstruct import get_config
from experiments.one_zoo import read
from experiments.reconstruct import measure, methods
from experiments.reconstruct.methods import ZOO, codec_config, fit
from experiments.stages import Stages
from flown_jax.data import image_sets
from flown_jax.training import Records, StageContext
from tests.experiments import seen, walk
from tests.experiments.reconstruct import little

METHODS = set(get_config("tiny").methods)
MEASURES = {f"measures-{name}" for name in (*METHODS, "originals")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return little.write(tmp_path_factory.mktemp("zoo") / "little")


def stages_of(config, networks, work):
    stages = Stages(types.SimpleNamespace(path=work))
    measure.evaluate(stages, config, networks, fit(stages, config, networks))


def test_test_images_and_held_out_networks_reach_the_measures_alone(folder, tmp_path, monkeypatch):
    config, load = little.config(folder), image_sets.load
    networks = read(config.zoo, config.held_out_every)

    def marks(networks=networks):
        return seen.marks(lambda: stages_of(config, networks, tmp_path), {}, monkeypatch)

    whole = marks()
    assert set(whole) == METHODS | MEASURES
    held_out = np.zeros_like(networks.held_out)
    assert seen.differ(whole, marks(dataclasses.replace(networks, held_out=held_out))) == MEASURES
    train = np.zeros_like(networks.train)
    assert seen.differ(whole, marks(dataclasses.replace(networks, train=train))) == set(whole)

    def poisoned(name, split, data_dir=None):
        assert split == "test"
        found = load(name, split, data_dir)
        return dataclasses.replace(found, labels=9 - found.labels)

    monkeypatch.setattr(image_sets, "load", poisoned)
    assert seen.differ(whole, marks()) == MEASURES


def test_every_field_changes_a_stage(folder, tmp_path, monkeypatch):
    def compute(config):
        stages_of(config, read(config.zoo, config.held_out_every), tmp_path)

    graph = get_config("tiny").codec.graph
    others = {
        **walk.GRAPH_NAMES,
        **{
            f"codec.graph.{name}": {f"codec.graph.{name}": 2 * value}
            for name, value in graph.items()
            if isinstance(value, int) and not isinstance(value, bool)
        },
        "methods": {"methods": ("vae_mlp", "graph_pna", "pca", "shuffled")},
        "codec.form": {"codec.form": "autoencoder_kl"},
        "codec.reconstruction": {"codec.reconstruction": "sse"},
        "evaluation.test_images": {"evaluation.test_images": 51},
    }
    for name, value in {"optimizer": "sgd", "schedule": "constant", "momentum": 0.5}.items():
        others[f"codec.recipe.{name}"] = {f"codec.recipe.{name}": value}
    others["codec.recipe.ema_decay"] = {"codec.recipe.ema_decay": 0.5}
    found = walk.walked(little.config(folder), compute, {}, others, monkeypatch)
    silent = {
        "variant": "a name for titles",
        "tensorboard": "what is written beside",
        "data.dir": "where images lie; the images themselves are fingerprinted",
        "held_out_every": "of a trajectory alone",
    }
    assert {field for field, stage in found.items() if stage is None} == set(silent)
    assert {field for field, stage in found.items() if stage == "refused"} == {"zoo"}


def test_states_are_held_out_at_equal_distances(tmp_path):
    folder = little.write(tmp_path / "zoo", states=True)
    config = little.config(folder, held_out_every=4)
    networks = read(config.zoo, config.held_out_every)
    assert networks.single and networks.remark is None
    assert len(networks.train) == 9 and len(networks.held_out) == 3
    # States 4, 8 and 12, whatever the zoo holds out.
    offset = networks.held_out - little.small.vectors((0,), little.SPEC.size)
    drift = little.small.vectors((1,), little.SPEC.size)
    np.testing.assert_allclose(offset, 0.1 * np.sin([[4], [8], [12]]) * drift, atol=1e-6)


def test_seeds_are_held_out_as_the_zoo_says(folder):
    networks = read(folder, 10)
    assert not networks.single and "digits (8 networks)" in networks.remark
    np.testing.assert_array_equal(
        networks.held_out, little.small.vectors(little.HELD_OUT, little.SPEC.size)
    )


def test_the_control_learns_from_new_orders_in_every_step(folder, tmp_path, monkeypatch):
    config = little.config(folder, methods=("shuffled",))
    networks, seen_batches = read(config.zoo, config.held_out_every), []

    def train_codec(context, codec, target, batch_at, *args, **options):
        seen_batches.extend(batch_at(step)["weights"] for step in (0, 0, 1))
        return {"target": target}

    monkeypatch.setattr(methods, "train_codec", train_codec)
    given = {"spec": networks.spec, "weights": networks.train, "seed": 0}
    given["codec"] = codec_config(config, "shuffled")
    context = StageContext("shuffled", tmp_path, Records(tmp_path), types.SimpleNamespace(**given))
    target = methods._train_shuffled(context)["variables"]["target"]
    first, again, second = seen_batches
    np.testing.assert_array_equal(first, again)
    known = {tuple(np.sort(w)) for w in networks.train}
    for w in (*first, *second):
        assert tuple(np.sort(w)) in known and not (w == networks.train).all(1).any()
    # The standardisation is that of networks in many orders: units of a layer are alike.
    mean = np.asarray(target.mean)[networks.spec.slices[networks.spec.names[1]]]
    own = networks.train[:, networks.spec.slices[networks.spec.names[1]]].mean(0)
    assert np.std(mean) < 0.5 * np.std(own)
    batch = {"weights": first, "context": ZOO}
    assert np.isfinite(np.asarray(target.normalise(**batch))).all()
