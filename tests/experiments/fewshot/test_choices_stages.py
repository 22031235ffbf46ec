"""Test tasks reach the evaluation alone, validation tasks the stages that choose and no other."""

from __future__ import annotations

import pathlib
import types

import numpy as np
import pytest

from configs.fsl import get_config
from experiments import tasks
from experiments.fewshot import __main__ as command
from tests.experiments import seen
from tests.experiments.fewshot import test_fingerprints as fields

SPLITS = ("train", "validation", "test")


def features(poisoned=""):
    """What `fields.VALUES` has, with other features of one split's classes, or of a foreign set."""

    def of(name, classes, split_of):
        found = fields.features(classes)
        values = found["features"].copy().reshape(classes, -1)
        for i in range(classes):
            if split_of(i) == poisoned:
                values[i] = 9 * np.random.default_rng(i).normal(size=values.shape[1])
        return {**found, "features": values.reshape(found["features"].shape)}

    return {
        "features-classes": lambda _: of(
            "classes", 3 * fields.COUNT, lambda i: SPLITS[i // fields.COUNT]
        ),
        "features-*": lambda _: of("foreign", fields.COUNT, lambda _: "foreign"),
    }


@pytest.fixture(scope="module", params=["tiny", "mini_imagenet_tiny"])
def marks(request, tmp_path_factory):
    """Poisoned features -> fingerprints of all stages."""
    folder = tmp_path_factory.mktemp("seen")
    (folder / "figures").mkdir()
    (folder / "figures" / "contact_sheet.png").touch()
    config, work = get_config(request.param), types.SimpleNamespace(path=pathlib.Path(folder))
    with config.unlocked():
        config.targets.sharpened = True  # or the heads would not look at validation classes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "write", lambda *_: None)
        patch.setattr(tasks, "draw_tasks", fields.draw_tasks)
        return {
            poisoned: seen.marks(
                lambda: command.compute(config, work),
                {**fields.VALUES, **features(poisoned)},
                patch,
            )
            for poisoned in ("", "train", "validation", "test", "foreign")
        }


def evaluations(marks):
    return {name for name in marks[""] if name.startswith("evaluation-")}


@pytest.mark.parametrize("poisoned", ["test", "foreign"])
def test_test_tasks_reach_the_evaluation_alone(marks, poisoned):
    """No transform, head, network or temperature can come from classes that none of them saw."""
    assert evaluations(marks)
    assert seen.differ(marks[""], marks[poisoned]) == evaluations(marks)


def test_validation_tasks_reach_the_stages_that_choose(marks):
    choosing = {"baselines", "heads", "caml", "model"}
    assert seen.differ(marks[""], marks["validation"]) == choosing | evaluations(marks)


def test_training_tasks_reach_all_that_learns(marks):
    without = {"images", "data", "backbone", "features-classes", "features-elsewhere"}
    assert seen.differ(marks[""], marks["train"]) == set(marks[""]) - without
