"""What an evaluation chooses, it chooses on validation tasks: test tasks change none of it."""

from __future__ import annotations

import dataclasses
import pathlib
import types

import numpy as np
import pytest

from experiments.fewshot import measure
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


def evaluated(tmp_path, validation, test):
    caml = {"variables": ARRAYS["caml"], "sizes": ABOUT["caml"]}
    given = types.SimpleNamespace(
        setting="3-way 2-shot",
        way=small.WAY,
        seed=0,
        sampling={"samples": 6, "top": 2, "solver": "euler", "steps": 2},
        temperatures=(0.05, 0.2, 0.5, 1.0, 2.0, 5.0),
        ddpm={"timesteps": 30, "steps": 4, "samples": 6},
        base_weights=(0.1, 1.0, 10.0),
        has_base=True,
        probe={"steps": 3, "learning_rate": 0.1, "weight_decay": 0.0, "use_bias": True},
        noise=0.3,
        curves=False,
        train={},
        validation=validation,
        test={"in_distribution": test},
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
    found = measure._evaluate(StageContext("evaluation", tmp_path, Records(tmp_path), given))
    return {name: found[name] for name in CHOICES}, found["rows"]


@pytest.fixture(scope="module")
def tables():
    return small.table(tasks=8, query=6, seed=1), small.table(tasks=8, query=6, seed=2)


def test_choices_are_made_on_validation_tasks_alone(tables, tmp_path):
    validation, test = tables
    chosen, rows = evaluated(tmp_path, validation, test)
    same, others = evaluated(tmp_path, validation, poisoned(test))
    assert same == chosen and others != rows
    changed, _ = evaluated(tmp_path, poisoned(validation), test)
    for name in CHOICES:
        assert changed[name] != chosen[name], name
