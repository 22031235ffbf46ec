"""Task tables and batches: disjoint images, pure functions of the step, permutations."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from flown_jax.few_shot.tasks import alternate, draw_tasks, make_batches
from tests.few_shot import small

SIZES = {"way": 3, "shot": 2, "query": 4, "count": 30}
# The feature of image i of class c is (c, i): every gathered entry says where it comes from.
GRID = np.stack(np.meshgrid(np.arange(6.0), np.arange(12.0), indexing="ij"), -1)
IDS = np.asarray([5, 0, 2, 3])


@pytest.mark.parametrize("target_shots", [None, 1, 5])
def test_support_and_query_are_different_images_of_the_same_class(target_shots):
    table = draw_tasks(jax.random.key(0), GRID, IDS, target_shots=target_shots, **SIZES)
    support, query, targets = table.support(), table.query(), table.target_images()
    assert support.shape == (30, 3, 2, 2) and query.shape == (30, 3, 4, 2)
    assert targets.shape == (30, 3, max(2, target_shots or 0), 2)
    for entry in (support, query, targets):
        classes = np.broadcast_to(table.episodes.classes[..., None], entry.shape[:-1])
        np.testing.assert_array_equal(entry[..., 0], classes)
    assert set(np.unique(support[..., 0])) == {0, 2, 3, 5}
    for task in range(30):
        for c in range(3):
            shown, asked = set(support[task, c, :, 1]), set(query[task, c, :, 1])
            fitted = set(targets[task, c, :, 1])
            assert len(shown) == 2 and len(asked) == 4 and len(fitted) == targets.shape[2]
            # Target heads may see more than the support, and never a query image.
            assert shown <= fitted and not fitted & asked


def test_a_task_depends_on_its_index_alone():
    many = draw_tasks(jax.random.key(0), GRID, IDS, **SIZES)
    few = draw_tasks(jax.random.key(0), GRID, IDS, **{**SIZES, "count": 5})
    np.testing.assert_array_equal(few.support(), many.support()[:5])
    np.testing.assert_array_equal(few.query(), many.take(slice(0, 5)).query())
    other = draw_tasks(jax.random.key(1), GRID, IDS, **SIZES)
    assert (other.support() != many.support()).any()


def test_classes_with_different_numbers_of_images():
    ragged = [GRID[c, : 7 + c] for c in range(6)]
    table = draw_tasks(jax.random.key(0), ragged, IDS, **SIZES)
    for entry, indices in ((table.support(), "support"), (table.query(), "query")):
        np.testing.assert_array_equal(entry[..., 1], getattr(table.episodes, indices))
        classes = table.episodes.classes[..., None]
        np.testing.assert_array_equal(entry[..., 0], np.broadcast_to(classes, entry.shape[:-1]))
        assert (entry[..., 1] < 7 + classes).all()
    np.testing.assert_array_equal(table.query(slice(2, 4)), table.query()[2:4])


def test_too_few_images_or_classes_are_refused_by_name():
    with pytest.raises(ValueError, match="shot . query = 13 images are wanted"):
        draw_tasks(jax.random.key(0), GRID, IDS, **{**SIZES, "query": 11})
    with pytest.raises(ValueError, match="way=5 needs as many classes; there are 4"):
        draw_tasks(jax.random.key(0), GRID, IDS, **{**SIZES, "way": 5})


def test_the_context_of_tasks_is_their_class_means_and_their_images_a_class():
    table = draw_tasks(jax.random.key(0), GRID, IDS, **SIZES)
    context = table.context()
    np.testing.assert_array_equal(context["prototypes"], table.support().mean(2))
    np.testing.assert_array_equal(context["shot"], np.full(30, 2.0, np.float32))
    some = table.context(slice(3, 5))
    jax.tree.map(lambda part, whole: np.testing.assert_array_equal(part, whole[3:5]), some, context)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_fingerprint_is_that_of_every_index_and_every_feature(ragged):
    features = [GRID[c, : 7 + c] for c in range(6)] if ragged else GRID
    table = draw_tasks(jax.random.key(0), features, IDS, target_shots=3, **SIZES)
    again = draw_tasks(jax.random.key(0), [*map(np.copy, features)], IDS, target_shots=3, **SIZES)
    assert table.fingerprint == again.fingerprint and len(table.fingerprint) == 64

    def changed(array):
        other = np.array(array)
        other.flat[-1] += 1
        return other

    episodes = table.episodes
    others = [
        dataclasses.replace(table, episodes=episodes.replace(**{name: changed(part)}))
        for name, part in vars(episodes).items()
    ]
    others.append(dataclasses.replace(table, targets=changed(table.targets)))
    for c in (0, 5):
        other = [changed(part) if i == c else part for i, part in enumerate(features)]
        others.append(dataclasses.replace(table, features=other if ragged else np.stack(other)))
    others.append(table.take(slice(0, 29)))
    marks = {other.fingerprint for other in others}
    assert len(marks) == len(others) == 7 and table.fingerprint not in marks


def test_a_batch_is_a_pure_function_of_the_step():
    table = small.table(tasks=10)
    arrays = {"heads": np.arange(30.0).reshape(10, 3, 1)}
    options = {"seed": 4, "batch": 8, "query": 2, "permute": True}
    batch_at, again = (make_batches(table, arrays, **options) for _ in range(2))
    for step in (7, 0, 3):
        jax.tree.map(np.testing.assert_array_equal, batch_at(step), again(step))
    assert (batch_at(0)["heads"] != batch_at(1)["heads"]).any()
    other = make_batches(table, arrays, **{**options, "seed": 5})
    assert (batch_at(0)["heads"] != other(0)["heads"]).any()


@pytest.mark.parametrize("permute", [False, True])
def test_all_entries_of_a_batch_speak_of_the_same_classes(permute):
    table = draw_tasks(jax.random.key(0), GRID, IDS, **SIZES)
    classes = table.episodes.classes
    arrays = {"heads": classes[..., None], "condition": {"features": classes[..., None] + 0.5}}
    batch_at = make_batches(table, arrays, seed=0, batch=40, query=3, permute=permute)
    batch = batch_at(2)
    names = batch["heads"][..., 0]
    np.testing.assert_array_equal(batch["context"]["prototypes"][..., 0], names)
    np.testing.assert_array_equal(batch["condition"]["features"][..., 0], names + 0.5)
    np.testing.assert_array_equal(batch["query"][..., 0], np.repeat(names[..., None], 3, -1))
    # One number a task: it has no classes to give another order.
    for shot in (batch["shot"], batch["context"]["shot"]):
        np.testing.assert_array_equal(shot, np.full(40, 2.0, np.float32))
    known = {tuple(row) for row in classes}
    if permute:
        np.testing.assert_array_equal(batch["support"][..., 0], np.repeat(names[..., None], 2, -1))
        assert not {tuple(row) for row in names} <= known
        assert {tuple(sorted(row)) for row in names} <= {tuple(sorted(row)) for row in known}
    else:
        assert "support" not in batch and {tuple(row) for row in names} <= known


def test_query_images_of_a_step_are_distinct_ones_of_the_task():
    table = draw_tasks(jax.random.key(0), GRID, IDS, **SIZES)
    tasks = np.asarray([4, 4, 9])
    drawn = table.query_of(tasks, np.random.default_rng(0), 3)
    for row, task in enumerate(tasks):
        for c in range(3):
            images = set(drawn[row, c, :, 1])
            assert len(images) == 3 and images <= set(table.query()[task, c, :, 1])
    assert (drawn[0] != drawn[1]).any()


def test_prepare_sees_the_permuted_batch_last():
    table = small.table()
    seen = []
    batch_at = make_batches(
        table, {}, seed=0, batch=4, query=2, permute=True, prepare=lambda b: seen.append(b) or b
    )
    assert batch_at(0) is seen[0]
    prototypes = seen[0]["context"]["prototypes"]
    np.testing.assert_allclose(seen[0]["support"].mean(2), prototypes, rtol=1e-5)


@pytest.mark.parametrize("permute", [False, True])
def test_tables_of_several_shots_take_turns(permute):
    tables = [small.table(tasks=10, shot=shot) for shot in (1, 3, 2)]
    options = {"seed": 4, "batch": 8, "query": 2, "permute": permute}
    of_table = [make_batches(table, {}, **options) for table in tables]
    batch_at = alternate(of_table)
    for step in (5, 0, 1, 2, 3):
        batch, expected = batch_at(step), of_table[step % 3](step)
        jax.tree.map(np.testing.assert_array_equal, batch, expected)
        np.testing.assert_array_equal(batch["shot"], tables[step % 3].shot)
        if permute:
            assert batch["support"].shape[2] == tables[step % 3].shot
    only = alternate(of_table[:1])
    jax.tree.map(np.testing.assert_array_equal, only(7), of_table[0](7))
