"""Held-out networks choose nothing, and what chooses takes the best."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

from configs.predict_accuracy import get_config
from experiments.predict_accuracy import readers
from experiments.predict_accuracy.check import check
from experiments.predict_accuracy.measure import evaluate
from experiments.predict_accuracy.networks import Parts, read
from experiments.stages import Stages
from flown_jax.errors import UserError
from flown_jax.training import Records, StageContext
from flown_jax.weights.statistics import features
from tests.experiments import seen, walk
from tests.experiments.predict_accuracy import little

TRAINED = {"mlp", "mlp_permuted", "graph_transformer", "graph_pna"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return little.write(tmp_path_factory.mktemp("zoo") / "little")


def stages_of(config, parts, work):
    stages = Stages(types.SimpleNamespace(path=work))
    evaluate(stages, config, parts, readers.fit_readers(stages, config, parts))


@pytest.mark.parametrize("what", ["weights", "accuracy"])
def test_held_out_networks_reach_the_evaluation_alone(what, folder, tmp_path, monkeypatch):
    config = little.config(folder)
    parts = read(config)

    def marks(part=None):
        other = parts
        if part is not None:
            own = getattr(parts, part)
            noise = np.random.default_rng(0).random(getattr(own, what).shape)
            other = dataclasses.replace(parts, **{part: dataclasses.replace(own, **{what: noise})})
        return seen.marks(lambda: stages_of(config, other, tmp_path), {}, monkeypatch)

    whole = marks()
    assert set(whole) == {"epoch", "statistics", *TRAINED, "evaluation"}
    assert seen.differ(whole, marks("test")) == {"evaluation"}
    assert seen.differ(whole, marks("choose")) == {"statistics", *TRAINED}
    assert seen.differ(whole, marks("learn")) == set(whole)


def fitted(function, parts, tmp_path, **inputs):
    given = types.SimpleNamespace(**vars(parts), **inputs)
    return function(StageContext("mlp", tmp_path, Records(tmp_path), given))


def errors(found: np.ndarray, parts: Parts) -> float:
    return float(np.square(found - readers.log_odds(parts.choose.accuracy)).mean())


def test_the_penalty_is_the_best_on_validation_networks(folder, tmp_path):
    config = little.config(folder)
    parts = read(config)
    x = features(parts.choose.weights, parts.spec)

    def ridge(*penalties):
        found = fitted(readers._fit_statistics, parts, tmp_path, penalties=penalties)
        y = (x - found["mean"]) / found["scale"] @ found["coefficients"] + found["intercept"]
        return found["penalty"], errors(y, parts)

    grid = (0.1, 10.0, 1000.0)
    each = {ridge(penalty)[1]: penalty for penalty in grid}
    assert ridge(*grid) == (each[min(each)], min(each))


def test_steps_are_judged_on_validation_networks(folder, tmp_path, monkeypatch):
    """The loop keeps the best of them, as its own tests hold."""
    config, judged = little.config(folder), []
    parts, reader = read(config), readers.trained_readers(config)["mlp"]

    def train(context, how, params, loss_fn, batch_at, *, validate, **options):
        state = types.SimpleNamespace(params=params, ema_params=None)
        judged.append(validate(state))
        return state

    monkeypatch.setattr(readers, "train", train)
    found = fitted(readers._fit_trained, parts, tmp_path, reader=reader, seeds=[0])
    share = readers.predict("mlp", found, reader, parts.spec, parts.choose)[0]
    wanted = errors(readers.log_odds(share), parts) / found["target"]["scale"] ** 2
    np.testing.assert_allclose(judged, [-wanted], rtol=1e-4)


def test_every_field_changes_a_stage(folder, tmp_path, monkeypatch):
    def compute(config):
        stages_of(config, read(config), tmp_path)

    double = {
        f"encoder.graph.{name}": {f"encoder.graph.{name}": 2 * value}
        for name, value in get_config("tiny").encoder.graph.items()
        if isinstance(value, int)
    }
    others = {
        **double,
        "epochs": {"epochs": (1,)},
        "label": {"label": "validation_accuracy"},
        "encoder.backbones": {"encoder.backbones": ("pna",)},
        "encoder.graph.form": {"encoder.graph.form": "dense"},
        "encoder.graph.softmax_scale": {"encoder.graph.softmax_scale": "width"},
        "encoder.graph.pooling": {"encoder.graph.pooling": "outputs"},
        "encoder.graph.flattening": {"encoder.graph.flattening": "repeat_nodes"},
    }
    for part in ("mlp", "encoder"):
        for name, value in {"optimizer": "sgd", "schedule": "constant", "momentum": 0.5}.items():
            others[f"{part}.recipe.{name}"] = {f"{part}.recipe.{name}": value}
        others[f"{part}.recipe.ema_decay"] = {f"{part}.recipe.ema_decay": 0.5}
    found = walk.walked(little.config(folder), compute, {}, others, monkeypatch)
    silent = {field for field, stage in found.items() if stage is None}
    assert silent == {"variant", "tensorboard"}  # a name for titles, what is written beside
    assert {field for field, stage in found.items() if stage == "refused"} == {"zoo"}


def test_a_config_of_ones_own_has_every_field(folder):
    config = little.config(folder)
    del config.mlp["recipe"]
    with pytest.raises(UserError, match=r"^the config has no field mlp\.recipe\."):
        check(config)
