"""What reaches which stage: test images choose and teach nothing."""

from __future__ import annotations

import dataclasses
import functools
import types

import numpy as np
import pytest

from experiments.adapt import __main__ as adapt
from experiments.adapt import parts, rivals
from experiments.stages import Stages
from experiments.zoo_targets import ZOO, read
from flown_jax.data import image_sets
from flown_jax.training.loop import Diverged
from flown_jax.training.recipe import Recipe
from flown_jax.training.records import Records
from tests.experiments import seen, walk
from tests.experiments.adapt import little

NAME = "digits_latin"
D = little.SPEC.size


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return little.write(tmp_path_factory.mktemp("zoos"))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    load = image_sets.load

    @functools.cache
    def some(*args):
        found = load(*args)
        return dataclasses.replace(found, images=found.images[:90], labels=found.labels[:90])

    monkeypatch.setattr(image_sets, "load", some)


def networks(inputs):
    return {"weights": np.zeros((4, D), np.float32), "seconds": 1.0}


def measured(inputs):
    metric = {"value": 0.5, "ci95": None, "n": 2}
    names = ("accuracy", "accuracy_vote", "diversity")
    return {"metrics": dict.fromkeys(names, metric), "samples": {}}


def kept(inputs):
    names = ("accuracy", "originals", "r2", "r2_held_out", "latent", "std")
    return {**dict.fromkeys(names, 1.0), "weights": np.zeros((4, D), np.float32)}


def fine_tuned(inputs):
    return {"weights": dict(inputs["starts"]), "seconds": 1.0}


VALUES = {
    f"{NAME}-aligned": lambda inputs: {n: inputs[n] for n in ("train", "held_out")},
    f"{NAME}-codec": lambda inputs: {"means": {ZOO.name: np.zeros((3, 2, 2, 1), np.float32)}},
    f"{NAME}-reconstruction": kept,
    f"{NAME}-measures-*": measured,
    f"{NAME}-by_number-measures-*": measured,
    f"{NAME}-plain*": fine_tuned,
    f"{NAME}-samples-*": networks,
    f"{NAME}-st*": networks,
    f"{NAME}-refined": networks,
    f"{NAME}-head*": networks,
    f"{NAME}-all*": networks,
    f"{NAME}-cut": lambda inputs: {"rows": [], "norms": []},
    f"{NAME}-cut-trained": lambda inputs: {"accuracies": []},
    f"{NAME}-budgets": lambda inputs: {"curves": {}},
    f"{NAME}-*": lambda inputs: {"curve": {"scores": [], "step_seconds": 1.0}, "rate": 0.1},
}


def stages_of(config, work):
    stages = Stages(types.SimpleNamespace(path=work))
    for name in config.targets:
        adapt.compute(stages, config, read(stages, config, name))


def test_test_images_reach_the_measures_alone(zoo, tmp_path, monkeypatch):
    config = little.config(zoo)

    def marks():
        return seen.marks(lambda: stages_of(config, tmp_path), VALUES, monkeypatch)

    whole = marks()
    measures = {name for name in whole if "-measures-" in name or name.endswith("-yard")}
    assert len(measures) > 20
    load = image_sets.load

    def poisoned(name, split, data_dir=None):
        found = load(name, split, data_dir)
        labels = 9 - found.labels if split == "test" else found.labels
        return dataclasses.replace(found, labels=labels)

    monkeypatch.setattr(image_sets, "load", poisoned)
    assert seen.differ(whole, marks()) == measures


def test_every_field_changes_a_stage(zoo, tmp_path, monkeypatch):
    config = little.config(zoo)
    found = walk.walked(
        config,
        lambda config: stages_of(config, tmp_path),
        VALUES,
        others_of(config),
        monkeypatch,
        groups=tuple(name for name in config if name != "states"),
    )
    silent = {
        "variant": "a name for titles",
        "tensorboard": "what is written beside",
        "share": "where stages lie",
        "data.dir": "where images lie; the images themselves are fingerprinted",
        "held_out_every": "of states",
        "evaluation.statistics_images": "of networks with BatchNorm",
        "evaluation.test_images.states": "of states",
        "adapt.match_names": "of classes with names of the zoo's: see below",
        "adapt.shown": "of a generator that is shown images",
        f"targets.{NAME}.base_of": "of a generator that is trained already",
    }
    silent |= dict.fromkeys(
        (f"trajectory.{n}" for n in ("seed", "epochs", "count", "every", "test_images")), ""
    )
    of_seeds = ("count", "held_out", "epochs", "save_epochs")
    silent |= dict.fromkeys((f"trained.{n}" for n in of_seeds), "of zoos that are trained here")
    silent |= {f"targets.{NAME}.{n}": "what is trained, or checked" for n in ("variant", "kind")}
    graphs = [field for field in found if field.startswith("seeds.codec.graph.")]
    silent |= dict.fromkeys(graphs, "the codec here reads no graphs")
    assert {field for field, stage in found.items() if stage is None} == set(silent)


def test_images_to_choose_by_teach_nothing(zoo, tmp_path, monkeypatch):
    config = little.config(zoo)

    def marks():
        return seen.marks(lambda: stages_of(config, tmp_path), VALUES, monkeypatch)

    whole = marks()
    read_new = adapt.new.read

    def poisoned(*args):
        found = read_new(*args)
        labels = 9 - found.validation.labels
        validation = dataclasses.replace(found.validation, labels=labels)
        return dataclasses.replace(found, validation=validation)

    monkeypatch.setattr(adapt.new, "read", poisoned)
    ways = ("velocity", "residual", "decoder", "decoder_alone", "adjoint_matching")
    chosen = {
        f"{NAME}-{way}" for way in (*ways, "reward_weighted", "refined", "budgets", "cut-trained")
    }
    chosen |= {f"{NAME}-{part}-20" for part in ("velocity", "residual", "decoder")}
    chosen |= {f"{NAME}-plain", f"{NAME}-plain-3", f"{NAME}-head-generated-20"}
    chosen |= {f"{NAME}-all-{kind}-20" for kind in ("generated", "mean")}
    assert seen.differ(whole, marks()) == chosen


def test_the_rate_is_the_best_on_images_to_choose_by():
    how = Recipe(steps=1, batch=1, learning_rate=1.0)
    scores = {0.1: 0.2, 0.3: 0.5, 0.6: 0.5}
    context = types.SimpleNamespace(name="stage")
    runs = []

    def run(now, name):
        runs.append(name)
        return now.learning_rate

    assert parts.chosen_rate(context, run, scores.get, how, tuple(scores)) == (0.3, 0.3)
    assert runs == ["stage-0", "stage-1", "stage-2"]


def test_a_run_that_diverges_gives_its_best_state_or_nothing(tmp_path, capsys):
    how = Recipe(steps=1, batch=1, learning_rate=1.0)
    context = types.SimpleNamespace(name="stage", records=Records(tmp_path))
    best = types.SimpleNamespace(params="best before it diverged")

    def diverging(states):
        def run(now, name):
            if (state := states[now.learning_rate]) is not None:
                return state
            raise Diverged(f"{name} stopped at step 7", None)

        return run

    def validated(now, name):
        raise Diverged(f"{name} stopped at step 7", best)

    def score(trained):
        return 0.5

    rates = (0.1, 0.3)
    found = parts.chosen_rate(context, diverging({0.1: None, 0.3: "good"}), score, how, rates)
    assert found == ("good", 0.3)
    assert "stage-0 stopped at step 7 (learning rate 0.1)" in capsys.readouterr().err
    found = parts.chosen_rate(context, validated, score, how, rates)
    assert found == ("best before it diverged", 0.1)
    with pytest.raises(Diverged, match="stage-1 stopped at step 7"):
        parts.chosen_rate(context, diverging({0.1: None, 0.3: None}), score, how, rates)


def test_no_two_rows_share_their_draws(zoo, tmp_path, monkeypatch):
    names, drawn = [], rivals.drawn

    def recorded(stages, config, name, *more):
        names.append((name,))
        return drawn(stages, config, name, *more)

    def key(of):
        def made(seed, *name):
            names.append(name)
            return of(seed, *name)

        return made

    monkeypatch.setattr(rivals, "drawn", recorded)
    for name in ("named_key", "named_seed"):
        monkeypatch.setattr(rivals, name, key(getattr(rivals, name)))
    seen.marks(lambda: stages_of(little.config(zoo), tmp_path), VALUES, monkeypatch)
    # Members' deviations are the same for both rows, whose distances differ.
    assert names.count(("deviations", NAME)) == 2
    names.remove(("deviations", NAME))
    assert len(names) == len(set(names)) > 12


def test_classes_of_one_name_are_matched_where_that_is_wanted(zoo, tmp_path, monkeypatch):
    by_number = f"{NAME}-by_number-yard"
    for wanted in (True, False):
        config = little.config(zoo, targets__digits_latin__new="digits", adapt__match_names=wanted)
        found = seen.marks(lambda c=config: stages_of(c, tmp_path), VALUES, monkeypatch)
        assert (by_number in found) == wanted


def others_of(config):
    """Values to try where not any will do."""
    other = {
        "form": {"mlp": "autoencoder_kl"},
        "target": {"members": "mixes", "mixes": "members"},
        "reconstruction": {"mse": "sse"},
        "source": {"gaussian": "kaiming_normal"},
        "schedule": {"cosine": "constant"},
        "optimizer": {"adamw": "sgd"},
    }
    found = {"adapt.parts": {"adapt.parts": ("residual", "decoder")}}
    found["seeds.codec.encoder"] = {"seeds.codec.encoder": "graph"}
    found["seeds.velocity.kind"] = {"seeds.velocity.kind": "unet"}
    found[f"targets.{NAME}.new"] = {f"targets.{NAME}.new": "digits"}
    for field, value in walk.fields(config):
        name = field.rsplit(".", 1)[-1]
        if name in other and not field.startswith(("targets", "states")) and ".graph." not in field:
            found[field] = {field: other[name][value]}
    return found
