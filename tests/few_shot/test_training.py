"""What training sees: batches of several shots, statistics of all of them, chosen scales."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.few_shot import losses, training
from flown_jax.few_shot.generator import LatentSpace
from flown_jax.few_shot.space import HeadSpace
from flown_jax.few_shot.training import Examples
from tests.few_shot import small
from tests.layers.helpers import quick_jit

PARTS = small.parts(entries=("features", "shots"))
LATENTS = PARTS.latents


def _examples(shot, seed):
    table = small.table(tasks=8, shot=shot, seed=seed)
    shape = (len(table), small.WAY, small.WIDTH + 1)
    return Examples(table, np.random.default_rng(seed).normal(size=shape).astype(np.float32))


EXAMPLES = [_examples(1, 0), _examples(4, 1)]
base = quick_jit(lambda latents, prototypes, shot: latents.space.base(prototypes, shot))
encode = quick_jit(LatentSpace.encode)


@pytest.mark.parametrize("permute", [False, True])
def test_a_batch_has_latents_and_conditions_of_its_own_tasks_and_shot(permute):
    batch_at = training.generator_batches(
        EXAMPLES, PARTS.conditioner, LATENTS, seed=3, batch=6, query=2, permute=permute
    )
    for step in (0, 1, 2):
        batch, shot = batch_at(step), (1, 4)[step % 2]
        np.testing.assert_array_equal(batch["shot"], shot)
        condition = batch["condition"]
        np.testing.assert_allclose(condition["features"], batch["prototypes"], atol=1e-5)
        np.testing.assert_allclose(condition["shots"], np.log2(shot), atol=1e-6)
        assert "support" not in batch and batch["query"].shape == (6, small.WAY, 2, small.WIDTH)
        if permute:
            expected = encode(LATENTS, batch["heads"], base(LATENTS, batch["prototypes"], shot))
            np.testing.assert_allclose(batch["latent"], expected, atol=1e-5)
    again = batch_at(1)
    jax.tree.map(np.testing.assert_array_equal, again, batch_at(1))


def test_known_latents_are_those_of_the_heads():
    only = EXAMPLES[1:]
    batch_at = training.generator_batches(
        only, PARTS.conditioner, LATENTS, seed=3, batch=6, query=2, permute=False
    )
    table, heads = only[0].table, only[0].heads
    known = encode(LATENTS, heads, base(LATENTS, table.prototypes(), 4))
    prototypes = table.prototypes()
    batch = batch_at(0)
    for row, latent in zip(batch["prototypes"], batch["latent"], strict=True):
        (task,) = np.flatnonzero((prototypes == row).all((1, 2)))
        np.testing.assert_allclose(latent, known[task], atol=1e-5)


def test_latent_statistics_are_those_of_all_examples():
    codec, space = LATENTS.codec, LATENTS.space
    statistics = training.fit_latent_statistics(codec, LATENTS.variables, space, EXAMPLES, chunk=8)
    standard = LATENTS.replace(statistics=statistics)
    found = np.concatenate(
        [
            encode(standard, e.heads, base(standard, e.table.prototypes(), e.table.shot))
            for e in EXAMPLES
        ]
    )
    np.testing.assert_allclose(found.mean((0, 1)), 0.0, atol=1e-4)
    np.testing.assert_allclose(found.std((0, 1)), 1.0, rtol=1e-3)


def test_the_base_scale_and_the_temperature_are_the_likeliest_of_their_grids():
    table = small.table(tasks=20, query=8, seed=2)
    prototypes, query = table.prototypes(), table.query()
    grid = (0.1, 2.0, 40.0)
    scores = []
    for scale in grid:
        space = HeadSpace(jnp.asarray([scale]), jnp.ones(small.WIDTH + 1), (1,), True)
        scores.append(losses.query_cross_entropy(space.base(jnp.asarray(prototypes), 1), query))
    assert training.best_base_scale(prototypes, query, grid) == grid[int(np.argmin(scores))] == 2.0
    # The heads of the last scale are 20 times too long.
    heads = np.asarray(space.base(jnp.asarray(prototypes), 1))
    found = training.best_head_temperature(heads, query, (1.0, 20.0, 400.0))
    assert found == 20.0


def test_excess_sharpness_is_the_ratio_of_the_best_scales_and_never_below_one():
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(200, 3, 8)).astype(np.float32)

    def query(noise):
        shift = noise * rng.normal(size=(200, 3, 6, 8))
        return (prototypes[:, :, None] + shift).astype(np.float32)

    easy, hard = (prototypes, query(0.7)), (prototypes, query(2.0))
    excess = training.excess_sharpness(easy, hard)
    assert excess > 1.5
    assert training.excess_sharpness(hard, easy) == 1.0
    # Features twice as long need logits half as sharp.
    longer = (prototypes, 2 * hard[1])
    assert training.excess_sharpness(hard, longer) == pytest.approx(2.0, rel=0.06)
