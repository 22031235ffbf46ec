"""Target heads: how they are fitted, how large they are, and how sharp."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.few_shot.space import HeadSpace
from flown_jax.few_shot.target_heads import (
    best_base_scale,
    best_head_temperature,
    excess_sharpness,
    fit_heads,
    fit_lda,
    query_cross_entropy,
)
from flown_jax.models import heads as linear
from tests.few_shot import small

pytestmark = pytest.mark.fast

PROBE = {"steps": 5, "learning_rate": 0.01, "weight_decay": 0.0, "use_bias": True}


def test_heads_are_those_of_features_of_the_length_in_chunks_or_at_once():
    table = small.table(tasks=5, targets=3)
    # All images have one length, as transformed features have.
    features = table.features / np.linalg.norm(table.features, axis=-1, keepdims=True)
    table = type(table)(7 * features, table.episodes, table.targets)
    told = []
    heads = fit_heads(table, length=2.0, chunk=2, report=told.append, **PROBE)
    assert told == [2, 4, 5] and heads.shape == (5, small.WAY, small.WIDTH + 1)
    expected = np.array(linear.fit_adamw(jnp.asarray(2 / 7 * table.target_images()), **PROBE))
    # A head of the table's own features, not of those that it was fitted on.
    expected[..., :-1] *= 2 / 7
    np.testing.assert_allclose(heads, expected, atol=1e-5)


def test_discriminant_heads_take_the_covariance_of_the_tables_classes():
    table = small.table(tasks=4, targets=3)
    within = linear.within_class_covariance(jnp.asarray(table.features))
    centre = jnp.asarray(table.features.mean((0, 1)))
    assert len(np.unique(table.episodes.classes)) == len(table.features)
    expected = linear.lda(jnp.asarray(table.target_images()), within, centre, shrinkage=0.2)
    np.testing.assert_allclose(fit_lda(table, shrinkage=0.2), expected, rtol=1e-4, atol=1e-5)


def test_query_cross_entropy_is_the_mean_over_tasks_classes_and_images():
    table = small.table()
    heads = jax.random.normal(jax.random.key(3), (len(table), small.WAY, small.WIDTH + 1))
    found = query_cross_entropy(heads, jnp.asarray(table.query()))
    total, count = 0.0, 0
    for head, images in zip(np.asarray(heads), table.query(), strict=True):
        for label, of_class in enumerate(images):
            for image in of_class:
                scores = head[:, :-1] @ image + head[:, -1]
                total += np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[label]
                count += 1
    assert float(found) == pytest.approx(total / count, rel=1e-5)


def test_the_base_scale_and_the_temperature_are_the_likeliest_of_their_grids():
    table = small.table(tasks=20, query=8, seed=2)
    prototypes, query = table.prototypes(), table.query()
    context = {"prototypes": jnp.asarray(prototypes), "shot": jnp.asarray(1)}
    grid = (0.1, 2.0, 40.0)
    scores = []
    for scale in grid:
        space = HeadSpace(jnp.asarray([scale]), jnp.ones(small.WIDTH + 1), (1,), True)
        scores.append(query_cross_entropy(space.base(context), query))
    assert best_base_scale(prototypes, query, grid) == grid[int(np.argmin(scores))] == 2.0
    # The heads of the last scale are 20 times too long.
    heads = np.asarray(space.base(context))
    found = best_head_temperature(heads, query, (1.0, 20.0, 400.0))
    assert found == 20.0


def test_excess_sharpness_is_the_ratio_of_the_best_scales_and_never_below_one():
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(200, 3, 8)).astype(np.float32)

    def query(noise):
        shift = noise * rng.normal(size=(200, 3, 6, 8))
        return (prototypes[:, :, None] + shift).astype(np.float32)

    easy, hard = (prototypes, query(0.7)), (prototypes, query(2.0))
    excess = excess_sharpness(easy, hard)
    assert excess > 1.5
    assert excess_sharpness(hard, easy) == 1.0
    # Features twice as long need logits half as sharp.
    longer = (prototypes, 2 * hard[1])
    assert excess_sharpness(hard, longer) == pytest.approx(2.0, rel=0.06)
