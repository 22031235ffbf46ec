"""Codecs with variables that are fixed before training, and those without, whose runs are kept."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from flown_jax.meta_model import losses
from flown_jax.meta_model.targets import Target
from flown_jax.meta_model.training import first_weights, split, train_codec
from flown_jax.training import Records
from flown_jax.training.recipe import Recipe, train
from flown_jax.training.stages import StageContext
from flown_jax.training.state import averaged
from tests.encoders.stand_in import GraphAutoencoder
from tests.meta_model.test_training import CODEC, TARGET, Numbers, assert_equal, batch_at

LOSS = {"reconstruction": "mse", "kl_weight": 0.0, "sigma_in": 0.0, "sigma_lat": 0.0}
LOSS["task_weight"] = 0.0
# Everything that could move what is fixed.
RECIPE = Recipe(6, 4, 1e-2, weight_decay=0.5, clip=0.1, ema_decay=0.5, save_every=3)


@struct.dataclass
class Scaled(Numbers):
    """With an affine of its own."""

    @property
    def affine(self):
        return jnp.full(3, 7.0), self.scale


@pytest.fixture
def context(tmp_path):
    return StageContext("toy", tmp_path / "progress", Records(tmp_path))


class Spec(types.SimpleNamespace):
    """Equal by size, and hashable, as specs are."""

    def __hash__(self):
        return self.size


def codec():
    return GraphAutoencoder(Spec(size=3), CODEC)


def test_what_is_fixed_is_fitted_first_and_comes_back_as_it_was(context):
    target = Scaled(TARGET.scale)
    found = train_codec(context, codec(), target, batch_at, RECIPE, seed=3, **LOSS)
    start = codec().init(jax.random.key(3), jnp.zeros((1, 3)))
    expected = codec().fit(start, first_weights(target, batch_at), target.affine)
    assert set(found) == {"params", "constants"}
    assert_equal(found["constants"], expected["constants"])
    np.testing.assert_array_equal(found["constants"]["raw_mean"], jnp.full(3, 7.0))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found, dict(start))
    assert min(jax.tree.leaves(moved["params"]["head"])) > 0
    # Neither the average nor the checkpoints have it.
    again = train_codec(context, codec(), target, batch_at, RECIPE, seed=3, **LOSS)
    assert_equal(again, found)


def test_a_loss_sees_all_variables_and_differentiates_those_that_are_trained(context):
    seen = []

    def loss(codec, variables, key, batch, target):
        seen.append((jax.tree.map(jnp.shape, variables), type(target)))
        return sum(leaf.sum() for leaf in jax.tree.leaves(variables)), {}

    recipe = Recipe(1, 4, 1e-2, save_every=1)
    found = train_codec(context, codec(), TARGET, batch_at, recipe, seed=3, loss=loss)
    assert seen[-1] == (jax.tree.map(jnp.shape, found), Numbers)


def as_before(context, recipe, name):
    """A run of a codec that has parameters alone: the whole tree is the state."""
    variables = jax.jit(CODEC.init)(jax.random.key(3), jnp.zeros((1, 3)))

    def loss_fn(params, key, batch, extra):
        value, metrics = losses.codec_loss(CODEC, params, key, batch, batch["frozen"], **LOSS)
        return value, (metrics, extra)

    return averaged(
        train(context, recipe, variables, loss_fn, batch_at, seed=3, frozen=TARGET, name=name)
    )


def test_parameters_alone_are_trained_as_ever_and_old_runs_go_on(context):
    def recipe(steps):
        return Recipe(steps, 4, 1e-2, schedule="constant", ema_decay=0.5, save_every=3)

    whole = as_before(context, recipe(6), "whole")
    found = train_codec(context, CODEC, TARGET, batch_at, recipe(6), seed=3, name="new", **LOSS)
    assert_equal(found, whole)
    as_before(context, recipe(3), "old")
    found = train_codec(context, CODEC, TARGET, batch_at, recipe(6), seed=3, name="old", **LOSS)
    assert_equal(found, whole)


def test_the_first_weights_are_of_all_parts_and_of_the_first_batches():
    asked = []

    def parts(step):
        asked.append(step)
        whole = {}
        for number, name in enumerate("ba"):
            rows = np.full((16, 3), 10.0 * step + number, np.float32)
            rows += np.arange(16, dtype=np.float32)[:, None] / 16
            whole[name] = {"weights": rows, "context": {}}
        return {"parts": whole}

    found = first_weights(TARGET, parts)
    assert asked == [0, 1] and found.shape == (64, 3)
    # Standardised, part a before part b.
    expected = np.repeat([0.5, 0.0, 5.5, 5.0], 16) + np.tile(np.arange(16) / 32, 4)
    np.testing.assert_array_equal(found[:, 0], expected)

    def large(step):
        return {"weights": np.arange(3 * 160, dtype=np.float32).reshape(160, 3), "context": {}}

    rows = first_weights(TARGET, large)[:, 0] * 2 / 3
    assert rows.shape == (64,) and rows[0] == 0 and rows[-1] == 157
    np.testing.assert_array_less(0, np.diff(rows))


def test_weights_that_come_again_count_once():
    """The statistics of 20 networks in batches of 16 are those of all 20."""
    known = np.arange(60, dtype=np.float32).reshape(20, 3)

    def batch_at(step):
        rows = np.random.default_rng(step).permutation(20)[:16]
        return {"weights": known[rows], "context": {}}

    found = first_weights(TARGET, batch_at)
    expected = np.asarray(TARGET.normalise(known, {}))
    np.testing.assert_array_equal(np.sort(found, 0), np.sort(expected, 0))


def test_variables_are_split_by_what_is_trained():
    assert split({"params": 1}) == ({"params": 1}, {})
    assert split({"params": 1, "constants": 2}) == ({"params": 1}, {"constants": 2})
    assert split({}) == ({}, {})


def test_targets_are_no_graphs_unless_they_say_so():
    assert TARGET.affine is None
    with pytest.raises(ValueError, match="^weights of this kind cannot be read as graphs: codec"):
        Target().spec  # noqa: B018
