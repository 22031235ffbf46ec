"""CAML on episodes: its predictions in parts, and the checkpoint that is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.conditioning import CAML, predict
from flown_jax.few_shot.batches import episode_batches
from flown_jax.meta_model import caml_training
from flown_jax.meta_model.caml_training import caml_log_probs, train_caml
from flown_jax.training import Records
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from tests.few_shot import small

MODULE = CAML(**small.description(entries=("caml",))["caml"])
TABLE = small.table(tasks=7, query=2)


@pytest.mark.parametrize("chunk", [3, 7, 25])
def test_predictions_in_parts_are_those_of_all_tasks_at_once(chunk):
    variables = small.parts(entries=("caml",)).conditioner.variables
    support, query = TABLE.support(), TABLE.query()
    found = caml_log_probs(MODULE, variables, support, query, chunk)
    assert found.shape == (7, 2 * small.WAY, small.WAY)
    expected = predict(MODULE, variables, jnp.asarray(support), jnp.asarray(query))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0, atol=1e-5)


def test_the_best_validated_checkpoint_is_kept(tmp_path, monkeypatch):
    seen = []

    def log_probs(module, variables, support, query):
        # The second checkpoint is right about every image, the others about none.
        seen.append(jax.tree.map(np.asarray, variables))
        np.testing.assert_array_equal(support, TABLE.support())
        right = np.repeat(np.eye(small.WAY), query.shape[2], axis=0)
        return np.broadcast_to(right if len(seen) == 2 else 1 - right, (7, *right.shape))

    monkeypatch.setattr(caml_training, "caml_log_probs", log_probs)
    context = StageContext("caml", tmp_path / "progress", Records(tmp_path))
    batch_at = episode_batches([TABLE], seed=1, batch=4, query=2)
    recipe = Recipe(3, 4, 1e-2, save_every=3, validate_every=1)
    options = {"seed": 1, "noise": 0.1, "validate": (TABLE.support(), TABLE.query())}
    found = train_caml(context, MODULE, batch_at, recipe, **options)
    assert len(seen) == 3
    jax.tree.map(np.testing.assert_array_equal, found, seen[1])
    kernels = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(v)]) for v in seen]
    assert not np.array_equal(kernels[1], kernels[2])
