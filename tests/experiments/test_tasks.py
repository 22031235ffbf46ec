"""Tasks of a run: whose they are, and what leaves them as they were."""

from __future__ import annotations

import pathlib

import jax
import numpy as np

from experiments import tasks
from flown_jax.data.episodes import Episodes
from flown_jax.few_shot.tasks import TaskTable
from flown_jax.training.stages import StageResult
from tests.experiments.fewshot.configs import GLYPHS, changed

IMAGES = {
    "split": {"train": np.arange(6), "validation": np.arange(6, 12), "test": np.arange(12, 20)},
    "classes": "letters",
    "foreign": {"out_of_distribution": "images"},
}
DATA = StageResult("data", "", pathlib.Path(), IMAGES, 0.0)


def test_tasks_are_those_of_their_own_seed(monkeypatch):
    # A table is a function of its key and sizes; drawing it would only take time.
    monkeypatch.setattr(
        tasks,
        "draw_tasks",
        lambda key, features, ids, **sizes: (jax.random.key_data(key).tolist(), len(ids), sizes),
    )
    rng = np.random.default_rng(0)
    raw = {
        name: [rng.normal(size=(8, 4)).astype(np.float32) for _ in range(count)]
        for name, count in {"classes": 20, "out_of_distribution": 10}.items()
    }

    def tables(**fields):
        return tasks.draw_tables(changed("tiny", **{**GLYPHS, **fields}), DATA, raw)

    own, again, other = tables(), tables(seed=3, tasks__seed=0), tables(seed=3)
    assert own.test == again.test != other.test
    assert (own.train, own.validation, own.test) == (again.train, again.validation, again.test)
    (setting,) = own.validation
    assert setting == "5-way 1-shot" and set(own.test) == {"in_distribution", "out_of_distribution"}
    drawn = [own.train[1], own.validation[setting], *(part[setting] for part in own.test.values())]
    assert len({str(key) for key, *_ in drawn}) == 4
    assert own.train[1] != other.train[1]
    # More test tasks are other tasks to measure on, and nothing else to learn from.
    more = tables(tasks__test=5)
    learned = [(t.train, t.held_out, t.validation) for t in (more, own)]
    assert learned[0] == learned[1] and more.test != own.test
    # Another setting behind the first one leaves the tasks of the first as they were.
    two = tables(tasks__settings=("5-way 1-shot", "3-way 2-shot"))
    assert two.validation[setting] == own.validation[setting]
    assert two.validation["3-way 2-shot"][0] != own.validation[setting][0]


def test_a_unit_is_of_images_and_draws_whatever_the_features():
    def tables(features, seed=0, images="letters"):
        drawn = draw_episodes(seed, features)
        marks = {"in_distribution": images}
        return tasks.Tables(None, {}, {}, {}, {"in_distribution": {"s": drawn}}, marks)

    features = np.random.default_rng(0).normal(size=(3, 8, 4)).astype(np.float32)
    unit = tables(features).unit("in_distribution", "s")
    # Another encoder sees the same tasks.
    assert tables(2 * features).unit("in_distribution", "s") == unit
    assert tables(features, seed=1).unit("in_distribution", "s") != unit
    assert tables(features, images="digits").unit("in_distribution", "s") != unit


def draw_episodes(seed, features):
    rng = np.random.default_rng(seed)
    classes = np.stack([rng.permutation(3)[:2] for _ in range(4)])
    images = rng.permuted(np.broadcast_to(np.arange(8), (4, 2, 8)), axis=-1)
    episodes = Episodes(classes, images[..., :1], images[..., 1:4])
    return TaskTable(features, episodes, images[..., :1])
