"""What training sees: batches of several shots, with their latents and conditions."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flown_jax.few_shot.batches import (
    Examples,
    condition_batches,
    episode_batches,
    head_batches,
)
from flown_jax.meta_model.latents import LatentSpace
from tests.few_shot import small
from tests.layers.helpers import quick_jit


def setup_module():
    """What the tests share, made before the first of them and not when all are collected."""
    global PARTS, LATENTS, EXAMPLES
    PARTS = small.parts(entries=("features", "shots"))
    LATENTS = PARTS.latents
    EXAMPLES = [_examples(1, 0), _examples(4, 1)]


def _examples(shot, seed):
    table = small.table(tasks=8, shot=shot, seed=seed)
    shape = (len(table), small.WAY, small.WIDTH + 1)
    return Examples(table, np.random.default_rng(seed).normal(size=shape).astype(np.float32))


encode = quick_jit(LatentSpace.encode)


@pytest.mark.parametrize("permute", [False, True])
def test_a_batch_has_latents_and_conditions_of_its_own_tasks_and_shot(permute):
    batch_at = condition_batches(
        EXAMPLES, PARTS.conditioner, LATENTS, seed=3, batch=6, query=2, permute=permute
    )
    for step in (0, 1, 2):
        batch, shot = batch_at(step), (1, 4)[step % 2]
        condition, context = batch["condition"], batch["context"]
        for known in (batch["shot"], context["shot"]):
            np.testing.assert_array_equal(known, shot)
        np.testing.assert_allclose(condition["features"], context["prototypes"], atol=1e-5)
        np.testing.assert_allclose(condition["shots"], np.log2(shot), atol=1e-6)
        assert "support" not in batch and batch["query"].shape == (6, small.WAY, 2, small.WIDTH)
        if permute:
            expected = encode(LATENTS, batch["weights"], context)
            np.testing.assert_allclose(batch["latent"], expected, atol=1e-5)
    again = batch_at(1)
    jax.tree.map(np.testing.assert_array_equal, again, batch_at(1))


def test_known_latents_are_those_of_the_heads():
    only = EXAMPLES[1:]
    batch_at = condition_batches(
        only, PARTS.conditioner, LATENTS, seed=3, batch=6, query=2, permute=False
    )
    table, heads = only[0].table, only[0].heads
    known = encode(LATENTS, heads, table.context())
    prototypes = table.prototypes()
    batch = batch_at(0)
    for row, latent in zip(batch["context"]["prototypes"], batch["latent"], strict=True):
        (task,) = np.flatnonzero((prototypes == row).all((1, 2)))
        np.testing.assert_allclose(latent, known[task], atol=1e-5)


def test_batches_of_heads_have_one_shape_for_all_shots():
    batch_at = head_batches(EXAMPLES, seed=3, batch=6, query=2)
    first, second = batch_at(0), batch_at(1)
    assert set(first) == {"weights", "context", "shot", "query"}
    shapes = jax.tree.map(np.shape, first)
    assert jax.tree.map(np.shape, second) == shapes
    assert shapes["weights"] == (6, small.WAY, small.WIDTH + 1)
    for batch, part in ((first, EXAMPLES[0]), (second, EXAMPLES[1])):
        np.testing.assert_array_equal(batch["shot"], part.table.shot)
        # Classes in another order at every step, and a head is still that of its classes.
        rows = part.heads.reshape(-1, small.WIDTH + 1)
        means = part.table.prototypes().reshape(-1, small.WIDTH)
        found = batch["weights"].reshape(-1, small.WIDTH + 1)
        for row, mean in zip(
            found, batch["context"]["prototypes"].reshape(-1, small.WIDTH), strict=True
        ):
            (place,) = np.flatnonzero((rows == row).all(-1))
            np.testing.assert_array_equal(means[place], mean)


def test_episodes_have_support_and_query_of_the_same_classes():
    tables = [part.table for part in EXAMPLES]
    batch_at = episode_batches(tables, seed=3, batch=6, query=2)
    for step, shot in ((0, 1), (1, 4)):
        batch = batch_at(step)
        assert batch["support"].shape == (6, small.WAY, shot, small.WIDTH)
        assert batch["query"].shape == (6, small.WAY, 2, small.WIDTH)
        means = batch["context"]["prototypes"]
        np.testing.assert_allclose(batch["support"].mean(2), means, atol=1e-5)
