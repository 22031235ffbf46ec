"""What reaches which stage: test images and held-out networks choose and teach nothing."""

from __future__ import annotations

import dataclasses
import functools
import types

import numpy as np
import pytest

from experiments.stages import Stages
from experiments.unconditional import __main__ as unconditional
from experiments.unconditional import rivals
from experiments.zoo_targets import ZOO, read
from flown_jax.data import image_sets
from flown_jax.training import Records, StageContext
from tests.experiments import seen, walk
from tests.experiments.unconditional import little

D = little.little.SPEC.size


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return little.zoos(tmp_path_factory.mktemp("zoos"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Rows whose arithmetic takes long are members; who draws what is recorded above these."""

    def members(seed, *args):
        weights, count = (args[0], args[1]) if isinstance(args[0], np.ndarray) else args[1:3]
        return weights[np.arange(count) % len(weights)]

    for name in ("memorised", "pair_matched"):
        monkeypatch.setattr(rivals.rivals, name, members)
    load = image_sets.load

    @functools.cache
    def few(*args):
        found = load(*args)
        return dataclasses.replace(found, images=found.images[:60], labels=found.labels[:60])

    monkeypatch.setattr(image_sets, "load", few)


def codec(inputs):
    """Values of an autoencoder's stage as far as they are read when nothing is computed."""
    return {"means": {ZOO.name: np.zeros((3, 2, 2, 1), np.float32)}}


def measured(inputs):
    """Of one method."""
    metric = {"value": 0.5, "ci95": None, "n": 2}
    names = ("accuracy", "accuracy_minus_originals", "accuracy_max_minus_originals")
    names = (*names, "nearest", "diversity", "copies")
    return {"metrics": dict.fromkeys(names, metric), "samples": {}}


def kept(inputs):
    """What an autoencoder keeps."""
    names = ("accuracy", "originals", "r2", "r2_held_out", "latent", "std")
    return {**dict.fromkeys(names, 1.0), "weights": np.zeros((4, D), np.float32)}


VALUES = {
    "seeds-aligned": lambda inputs: {"train": inputs["train"], "held_out": inputs["held_out"]},
}
for _name in ("run", "seeds"):
    VALUES |= {
        f"{_name}-codec*": codec,
        f"{_name}-samples*": lambda inputs: {
            "weights": np.zeros((6, D), np.float32),
            "nfe": 1.0,
            "seconds": 1.0,
        },
        f"{_name}-reconstruction*": kept,
        f"{_name}-noise": lambda inputs: {"strengths": {"noise_small": 0.1, "noise_large": 0.2}},
        f"{_name}-trained-*": lambda inputs: {"weights": {}, "seconds": 1.0},
        f"{_name}-measures-*": measured,
    }


def stages_of(config, work, change=None):
    stages = Stages(types.SimpleNamespace(path=work))
    for name in config.targets:
        target = read(stages, config, name)
        unconditional.compute(stages, config, target if change is None else change(target))


def test_test_images_and_held_out_networks_reach_the_measures_alone(folders, tmp_path, monkeypatch):
    config = little.config(*folders)

    def marks(change=None):
        return seen.marks(lambda: stages_of(config, tmp_path, change), VALUES, monkeypatch)

    whole = marks()
    measures = {name for name in whole if "-measures-" in name or name.endswith("-yard")}
    assert len(measures) == 2 + len([n for n in whole if "-measures-" in n]) > 40

    def held_out(target):
        return dataclasses.replace(target, held_out=np.zeros_like(target.held_out))

    others = seen.differ(whole, marks(held_out))
    shown = {name for name in whole if "-reconstruction" in name}  # beside what is learned from
    assert others == {"run-measures-held_out", "seeds-measures-held_out"} | shown

    def train(target):
        return dataclasses.replace(target, train=target.train + 1)

    # Of these a stage's values stand for the networks; the rest learns from the zoo.
    assert {"run-codec", "run-yard", "run-noise", "seeds-codec-task", "run-codec-pca"} <= (
        seen.differ(whole, marks(train))
    )
    load = image_sets.load

    def poisoned(name, split, data_dir=None):
        found = load(name, split, data_dir)
        labels = 9 - found.labels if split == "test" else found.labels
        return dataclasses.replace(found, labels=labels)

    monkeypatch.setattr(image_sets, "load", poisoned)
    assert seen.differ(whole, marks()) == measures


def test_images_to_choose_by_reach_what_chooses(folders, tmp_path, monkeypatch):
    config = little.config(*folders)

    def marks(change=None):
        return seen.marks(lambda: stages_of(config, tmp_path, change), VALUES, monkeypatch)

    def choice(target):
        labels = 9 - target.choice.labels
        return dataclasses.replace(target, choice=dataclasses.replace(target.choice, labels=labels))

    whole = marks()
    expected = {n for n in whole if "-reconstruction" in n or n.endswith("-noise")}
    expected |= {name for name in whole if "-trained-" in name and "measures" not in name}
    assert seen.differ(whole, marks(choice)) == expected


def test_no_two_rows_share_their_draws(folders, tmp_path, monkeypatch):
    config, drawn = little.config(*folders), {}
    for name in ("averages_of", "gaussian", "pca_gaussian", "noisy", "pair_matched"):
        of = getattr(rivals.rivals, name)

        def recorded(seed, *args, of=of, name=name, **options):
            drawn.setdefault(seed, []).append(name)
            return of(seed, *args, **options)

        monkeypatch.setattr(rivals.rivals, name, recorded)
    seen.marks(lambda: stages_of(config, tmp_path), VALUES, monkeypatch)
    assert len(drawn) == sum(map(len, drawn.values())) == 2 * 8


def test_noise_is_the_largest_that_costs_no_more(folders, tmp_path, monkeypatch):
    config = little.config(*folders, rivals__strengths=(1.0, 0.1, 0.5))
    target = read(Stages(types.SimpleNamespace(path=tmp_path)), little.few(config), "run")
    lost = {0.0: 0, 0.1: 1, 0.5: 5, 1.0: 20}  # of 100 images

    def predictions(spec, weights, images, apply, host=None):
        strength = float(weights[0, 0])
        found = np.tile(target.choice.labels, (len(weights), 1))
        found[:, : lost[strength]] = -1
        return found

    monkeypatch.setattr(rivals, "predictions", predictions)
    monkeypatch.setattr(
        rivals.rivals, "noisy", lambda seed, w, n, scale, strength: np.full((n, 1), strength)
    )
    count = len(target.choice.labels)
    given = {
        "spec": target.spec,
        "base": None,
        "train": target.train,
        "choice": target.choice,
        "strengths": config.rivals.strengths,
        "losses": (1 / count, 5 / count + 1e-9),
        "networks": 2,
        "seed": 0,
    }
    context = StageContext("noise", tmp_path, Records(tmp_path), types.SimpleNamespace(**given))
    strengths = rivals._choose_noise(context)["strengths"]
    assert strengths == {"noise_small": 0.1, "noise_large": 0.5}


def test_every_field_changes_a_stage(folders, tmp_path, monkeypatch):
    config = little.config(*folders)
    found = walk.walked(
        config,
        lambda config: stages_of(config, tmp_path),
        VALUES,
        others_of(config),
        monkeypatch,
    )
    silent = {
        "variant": "a name for titles",
        "tensorboard": "what is written beside",
        "share": "where stages lie",
        "data.dir": "where images lie; the images themselves are fingerprinted",
        "evaluation.statistics_images": "of networks with BatchNorm",
        "fresh.networks": "of variants of configs/trajectory.py",
    }
    silent |= dict.fromkeys(
        (f"trajectory.{n}" for n in ("seed", "epochs", "count", "every", "test_images")), ""
    )
    of_seeds = ("count", "held_out", "epochs", "save_epochs")
    silent |= dict.fromkeys((f"trained.{n}" for n in of_seeds), "of zoos that are trained here")
    for name in config.targets:
        silent |= {
            f"targets.{name}.{n}": "what is trained, or checked" for n in ("variant", "kind")
        }
    graphs = [field for field in found if field.startswith("seeds.codec.graph.")]
    silent |= dict.fromkeys(graphs, "no design of seeds here reads graphs")
    assert {field for field, stage in found.items() if stage is None} == set(silent)
    refused = {field for field, stage in found.items() if stage == "refused"}
    assert refused <= {f"targets.{name}.zoo" for name in config.targets}


def others_of(config):
    """Values to try where not any will do."""
    other = {
        "form": {"mlp": "autoencoder_kl", "autoencoder_kl": "mlp", "pdiff": "mlp"},
        "encoder": {"vae": "graph", "graph": "vae"},
        "target": {"members": "mixes", "mixes": "members"},
        "kind": {"mlp": "unet", "unet": "mlp", "pdiff": "mlp"},
        "reconstruction": {"mse": "sse"},
        "source": {"gaussian": "kaiming_normal"},
        "schedule": {"cosine": "constant"},
        "optimizer": {"adamw": "sgd"},
    }
    graphs = {**walk.GRAPH_NAMES}
    found = {
        f"{kind}.{n}": {f"{kind}.{n}": of[n]}
        for kind in ("states", "seeds")
        for n, of in graphs.items()
    }
    for field, value in walk.fields(config):
        name = field.rsplit(".", 1)[-1]
        if name in other and not field.startswith("targets") and ".graph." not in field:
            found[field] = {field: other[name][value]}
    return found
