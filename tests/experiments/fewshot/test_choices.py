"""What an evaluation chooses, it chooses on validation tasks: test tasks change none of it."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import tasks
from experiments.fewshot import heads, measure, model
from flown_jax.training import Records, StageContext, StageResult
from tests.few_shot import small

ABOUT = small.description(entries=("caml", "features"))
ARRAYS = small.arrays(ABOUT)
CHOICES = ("sampling_temperatures", "caml_weight", "temperatures")


def result(**values):
    return StageResult("stage", "0" * 64, pathlib.Path(), values, 0.0)


def poisoned(table, seed=9):
    """The same tasks over features that mean nothing."""
    noise = np.random.default_rng(seed).normal(size=table.features.shape)
    return dataclasses.replace(table, features=noise.astype(np.float32))


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Evaluations of other tasks run the programs that the first one compiled."""
    new, made = measure.Methods, []

    def methods(given):
        made[:] = made or [new(given)]
        found = copy.copy(made[0])
        found.given, found.nfe, found.temperatures = given, {}, dict(found.temperatures)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "Methods", methods)
        yield


def evaluated(tmp_path, validation, test):
    caml = {"variables": ARRAYS["caml"], "sizes": ABOUT["caml"]}
    given = types.SimpleNamespace(
        setting="3-way 2-shot",
        way=small.WAY,
        seed=0,
        sampling={"samples": 6, "top": 2, "solver": "euler", "steps": 2},
        temperatures=tuple(np.geomspace(0.05, 5.0, 9).tolist()),
        ddpm={"timesteps": 30, "steps": 4, "samples": 6},
        base_weights=(0.1, 1.0, 10.0),
        has_base=True,
        probe={"steps": 3, "learning_rate": 0.1, "weight_decay": 0.0, "use_bias": True},
        noise=0.3,
        curves=False,
        train={},
        validation=validation,
        test={"in_distribution": test},
        units={"in_distribution": "tasks"},
        chosen={
            "length": 1.0,
            "l2": 1.0,
            "inverse_penalty": 1.0,
            "temperature": 1.0,
            "target_temperature": 1.0,
        },
        heads=None,
        caml=result(**caml),
        ddpm_stage=result(params=ARRAYS["velocity"]),
        regression=result(params=ARRAYS["velocity"]),
        model=result(description=ABOUT, arrays=ARRAYS),
        beside={},
    )
    before = dict(given.chosen)
    found = measure._evaluate(StageContext("evaluation", tmp_path, Records(tmp_path), given))
    assert given.chosen == before  # what earlier stages chose is not chosen again
    return {name: found[name] for name in CHOICES}, found["rows"]


@pytest.fixture(scope="module")
def tables():
    return small.table(tasks=8, query=6, seed=1), small.table(tasks=8, query=6, seed=2)


def test_choices_are_made_on_validation_tasks_alone(tables, tmp_path):
    validation, test = tables
    chosen, rows = evaluated(tmp_path, validation, test)
    same, others = evaluated(tmp_path, validation, poisoned(test))
    assert same == chosen and others != rows
    changed = [evaluated(tmp_path, poisoned(validation, seed), test)[0] for seed in (9, 10)]
    for name in CHOICES:
        assert any(other[name] != chosen[name] for other in changed), name


# Stages that choose and see no test task, as `test_choices_stages.py` holds. What a choice makes of
# its tasks is tested where it is made (`tests/few_shot/test_selection.py` and others).
SHAPE = "3-way 2-shot"


def run(function, tmp_path, **inputs):
    given = types.SimpleNamespace(**inputs)
    return function(StageContext("stage", tmp_path, Records(tmp_path), given))


def test_the_baselines_settings_are_chosen_on_validation_tasks(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(
        heads, "choose_baselines", lambda table, *_, **grids: {"of": table, **grids}
    )
    grids = {"lengths": (0.1, 30.0), "l2": (1e-3, 1e3), "inverse_penalties": (1e-4, 10.0)}
    given = {"probe": {}, "validation": dict(zip(("one", "other"), tables, strict=True))}
    found = run(heads._choose_baselines, tmp_path, **given, **grids)
    assert found == {name: {"of": table, **grids} for name, table in given["validation"].items()}


def target_heads(tmp_path, held_out, train):
    grid = (0.1, 0.5, 1.0, 2.0, 10.0)
    form = dict.fromkeys(("sharpened", "centred", "standardised"), True)
    targets = {"kind": "lda", "shrinkage": 0.5, "temperatures": grid, "base_scales": grid, **form}
    tables = {"train": {2: train}, "held_out": {2: held_out}}
    return run(heads._fit_heads, tmp_path, targets=ConfigDict(targets), **tables)["chosen"]


def test_how_sharp_training_classes_are_is_measured_on_validation_classes(tables, tmp_path):
    same = target_heads(tmp_path, tables[0], tables[0])
    assert same["sharpness"] == {"2": 1.0}
    others = target_heads(tmp_path, poisoned(tables[0]), tables[0])
    sharpness = others["sharpness"]["2"]
    assert sharpness > 1.0
    # The rest of the recipe is of training tasks; the sharpness corrects what is found there.
    for name, factor in (("target_temperature", sharpness), ("base_scale", 1 / sharpness)):
        assert others[name]["2"] == pytest.approx(same[name]["2"] * factor)


def test_the_models_temperature_is_chosen_on_validation_tasks(tables, tmp_path, monkeypatch):
    for name in ("conditioner_of", "latents_of"):
        monkeypatch.setattr(model, name, lambda *_: None)
    monkeypatch.setattr(model, "describe", lambda *_, **__: ({}, {}))
    monkeypatch.setattr(model, "build", lambda *_: types.SimpleNamespace(conditioner=None))
    monkeypatch.setattr(
        model, "Conditioner", type("", (), {"__call__": lambda _, support: support})
    )
    drawn = []

    def choose(draw, table, grid):
        drawn.append(draw.keywords["condition"])
        return {"temperature": float(table.query().sum()), "grid": grid}

    monkeypatch.setattr(model, "choose_temperature", choose)
    form = dict.fromkeys(("encoder", "transform", "condition", "heads", "caml", "source"))
    codec = result(module={}, latent_shape=())
    more = {"codec": codec, "flow": result(params={}), "velocity": ConfigDict()}
    found = run(
        model._assemble,
        tmp_path,
        **form,
        **more,
        image_shape=(),
        trained_on="",
        sampling={"samples": 6},
        temperatures=(0.05, 5.0),
        seed=0,
        train={2: small.table(tasks=8, query=6, seed=4)},
        validation={"other": tables[1], SHAPE: tables[0]},
        main=SHAPE,
    )
    temperatures = {name: of["temperature"] for name, of in found["chosen"].items()}
    expected = [float(table.query().sum()) for table in tables]
    assert temperatures == {SHAPE: expected[0], "other": expected[1]}
    assert found["description"]["sampling"]["temperature"] == expected[0]
    for support, table in zip(drawn, reversed(tables), strict=True):
        np.testing.assert_array_equal(support, table.support())


def test_camls_checkpoint_is_chosen_on_validation_tasks(tables, tmp_path, monkeypatch):
    """The stage hands its training the validation tasks, whose accuracy picks the checkpoint."""
    found = {}
    monkeypatch.setattr(tasks, "train_caml", lambda *_, **given: found.update(given))
    caml = {**ABOUT["caml"], "query": 2, "noise": 0.1}
    recipe = {"steps": 1, "batch": 4, "learning_rate": 0.1, "clip": 0, "ema_decay": 0}
    caml["recipe"] = {**recipe, "validate_every": 1}
    train = {2: small.table(tasks=8, query=6, seed=4)}
    more = {"train": train, "validation": tables[0]}
    run(tasks._train_caml, tmp_path, caml=ConfigDict(caml), seed=0, **more)
    expected = (tables[0].support(), tables[0].query())
    for array, wanted in zip(found["validate"], expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
