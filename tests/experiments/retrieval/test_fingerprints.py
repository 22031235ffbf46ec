"""Every field of the retrieval config reaches a stage's fingerprint, or is known to do nothing."""

from __future__ import annotations

import pathlib
import types

import jax
import numpy as np
import pytest

from configs.retrieval import get_config
from experiments import own_zoos, pictures, stages
from experiments.retrieval import __main__ as command
from experiments.retrieval import conditions, prior
from flown_jax.data.image_sets import ImageSet
from flown_jax.models.cnn import CNN
from flown_jax.models.initialise import initialise_cnn
from flown_jax.weights import zoo
from flown_jax.weights.spec import WeightSpec
from tests.experiments import walk
from tests.experiments.fewshot import test_fingerprints as few_shot

NETWORK = CNN(channels=(2,), kernels=(4,), pools=(False,), hidden=(), num_classes=10)
CHANNELS = {"latin": 1, "colour_symbols": 3}
# What a changed value of these is, where a number more or a letter more will not do.
OTHERS = {
    "alignment.leader": {"alignment.leader": "colour_symbols"},
    "condition.entries": {"condition.entries": ("features",)},
    "prior.dataset": {"prior.dataset": "digits"},
    "initialise.unseen.greek": {"initialise.unseen.greek": "colour_symbols"},
    **walk.GRAPH_NAMES,
    **{
        f"features.{field}": {f"features.{name}": value for name, value in values.items()}
        for field, values in few_shot.OTHERS.items()
    },
}
# No stage's result depends on these.
SILENT = {
    "variant": "a name for folders and titles",
    "share": "where results lie",
    "tensorboard": "what is written beside them",
    "data.dir": "where images lie; they are known by their content",
    "features.share": "of the few-shot command",
    "features.encoder.weights": "of another kind of encoder",
    "features.encoder.function": "of another kind of encoder",
    "features.caml.base_weights": "of the few-shot command's evaluation",
    "features.targets.shots": "fewer than the support images of a task; targets are heads",
    "features.tasks.test": "of tasks that nothing here is tested on",
    "features.tasks.train_query": "of heads",
    **dict.fromkeys(walk.graph_fields(get_config("tiny")), "of the encoder 'graph'"),
}


def spec_of(name):
    inputs = {"size": 4, "channels": CHANNELS[name], "mean": [0.5], "std": [0.5], "crop": None}
    shapes = jax.eval_shape(
        lambda key: initialise_cnn(key, NETWORK, (4, 4, CHANNELS[name]), "uniform"),
        jax.random.key(0),
    )
    return WeightSpec.from_module(NETWORK, {"params": shapes}, inputs=inputs)


def stored_zoo(folder, name):
    """A zoo of six networks at two epochs."""
    spec = spec_of(name)
    zoo.create(folder, spec, dataset=name, recipe={"optimizer": "adam"})
    for epoch in (1, 2):
        rng = np.random.default_rng(epoch)
        rows = [
            {"seed": i, "epoch": epoch, "split": "held_out" if i > 3 else "train"} for i in range(6)
        ]
        zoo.add(folder, rng.normal(size=(6, spec.size)).astype(np.float32), rows)
    return folder


def load(name, split, data_dir=None):
    """Small images of any set."""
    rng = np.random.default_rng(len(name))
    channels = CHANNELS.get(name, 1)
    images = rng.integers(0, 256, (300, 4, 4, channels), dtype=np.uint8)
    labels = np.arange(300, dtype=np.int32) % 10
    return ImageSet(name, images, labels, tuple("abcdefghij"), split)


def of_sets(shape):
    return {name: np.ones(shape, np.float32) for name in CHANNELS}


def known(inputs):
    bank = {"features": np.ones((4, 10, 3), np.float32)}
    return {kind: dict.fromkeys((*CHANNELS, "greek"), bank) for kind in ("train", "validation")}


def networks(inputs=None):
    return {name: np.ones((4, spec_of(name).size), np.float32) for name in CHANNELS}


VALUES = {
    "aligned": lambda inputs: {"train": networks(), "held_out": networks()},
    "conditions": known,
    "codec*": lambda inputs: {"means": of_sets((3, 2)), "module": {"form": "mlp"}},
    "rivals": lambda inputs: {"average": networks(), "kaiming": networks()},
    "samples-prior": lambda inputs: {"weights": {"flown_prior": networks()}, "facts": {}},
    "samples*": networks,
    "prior-networks": lambda inputs: {"train_accuracy": np.ones((1, 2))},
    "prior-flow": lambda inputs: {"loss_prior": np.ones(2), "loss_gaussian": np.ones(2)},
    "prior-mended": lambda inputs: {"loss_mended": np.ones(2)},
    "measures-*": lambda inputs: {"rows": [], "accuracies": dict.fromkeys(CHANNELS, ())},
    "confusion": lambda inputs: {name: [name] for name in CHANNELS},
    "initialise-*": lambda inputs: {"starts": [], "remarks": []},
    **{k: v for k, v in few_shot.VALUES.items() if k in ("data", "backbone") or "features" in k},
}


@pytest.mark.parametrize("encoder", ["vae", "graph"])
def test_every_field_changes_a_stage(encoder, tmp_path, monkeypatch):
    folders = {name: stored_zoo(tmp_path / name, name) for name in CHANNELS}

    class Training:
        """A zoo's training, whose stages depend on its networks and recipe."""

        def __init__(self, config, work):
            self.config = config

        def train(self):
            inputs = {name: self.config[name] for name in ("networks", "recipe")}
            return stages.stage("", f"zoo-{self.config.data.name}", inputs, None)

        def evaluate(self, trained):
            return trained

        def write(self, trained, measured):
            return folders[self.config.data.name]

    tables = {}
    draw_tables = conditions.draw_tables

    def draw(config, found, raw):
        """Tasks are drawn once for all configs that draw the same."""
        text = repr([config.tasks.to_dict(), config.transform.to_dict(), config.targets.shots])
        text += str(config.seed)
        if text not in tables:
            tables[text] = draw_tables(config, found, raw)
        return tables[text]

    monkeypatch.setattr(conditions, "draw_tables", draw)
    monkeypatch.setattr(own_zoos, "ZooTraining", Training)
    for module in (pictures, prior):
        monkeypatch.setattr(module.image_sets, "load", load)
    monkeypatch.setattr(command, "sentences", lambda *_: [])
    monkeypatch.setattr(command, "write", lambda *_: None)
    work = types.SimpleNamespace(path=pathlib.Path(tmp_path))
    others = OTHERS | {f"zoos.{n}": {f"zoos.{n}": str(path)} for n, path in folders.items()}
    others["data.dir"] = {"data.dir": str(tmp_path / "elsewhere")}
    config = walk.changed(get_config("tiny"), {"codec.encoder": encoder})
    groups, known = ("",), set(SILENT)
    if encoder == "graph":  # what the other has as well goes the same ways
        groups, known = ("codec.",), known - set(walk.graph_fields(config))
    found = walk.walked(
        config,
        lambda config: command.compute(config, work),
        VALUES,
        others,
        monkeypatch,
        groups=groups,
    )
    silent = {field for field, stage in found.items() if stage is None}
    assert silent == known & set(found)
    assert found["codec.encoder"] == found["codec.form"] == "codec"
    assert "refused" not in found.values()


@pytest.fixture(autouse=True)
def no_folders(monkeypatch):
    """Zoos are not written anywhere."""

    class Folder:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(own_zoos, "Workdir", Folder)
