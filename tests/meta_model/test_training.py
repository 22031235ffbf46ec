"""Training of autoencoders and generators: where they start, what they get, what is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import struct

from flown_jax.encoders.codecs import make_codec
from flown_jax.meta_model.targets import Target
from flown_jax.meta_model.training import initial, train_codec, train_generator
from flown_jax.training import Records
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext

CODEC = make_codec("mlp", (3,), latent_shape=(1, 1, 2), hidden_dim=4)
ONE_STEP = Recipe(1, 4, 1e-2, save_every=1)


@struct.dataclass
class Numbers(Target):
    """Three numbers over a scale."""

    scale: jax.Array
    shape = (3,)

    def normalise(self, weights, context):
        return weights / self.scale

    def restore(self, x1, context):
        return x1 * self.scale

    def task_loss(self, weights, batch):
        return (weights - batch["wanted"]) ** 2


@struct.dataclass
class Wrapped:
    """Whatever has a target."""

    target: Numbers


class Steered(nn.Module):
    """A velocity that is linear in all that it is given."""

    @nn.compact
    def __call__(self, x, t, condition):
        return nn.Dense(x.shape[-1])(jnp.concatenate([x, condition["features"][:, 0]], -1))


TARGET = Numbers(jnp.full(3, 2.0))


def batch_at(step):
    weights = np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32)
    batch = {"weights": weights, "context": {}, "wanted": weights}
    return {**batch, "latent": weights[:, :2], "condition": {"features": weights[:, None]}}


@pytest.fixture
def context(tmp_path):
    return StageContext("toy", tmp_path / "progress", Records(tmp_path))


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_codec_is_trained_on_its_target(context):
    recipe = Recipe(150, 4, 2e-2, save_every=150, ema_decay=0.9)
    options = {"reconstruction": "mse", "kl_weight": 0.0, "sigma_in": 0.0, "sigma_lat": 0.0}
    variables = train_codec(
        context, CODEC, TARGET, batch_at, recipe, seed=3, **options, task_weight=1.0
    )
    start = CODEC.init(jax.random.key(3), jnp.zeros((1, 3)))
    batch = batch_at(1000)

    def error(variables):
        x1 = TARGET.normalise(batch["weights"], {})
        found = TARGET.restore(CODEC.apply(variables, x1), {})
        return float(TARGET.task_loss(found, batch).mean())

    assert error(variables) < 0.6 * error(start)


def test_a_codec_starts_from_its_seed_and_its_loss_gets_what_was_given(context):
    seen = []

    def loss(codec, variables, key, batch, target, **options):
        seen.append((codec, type(target), options, set(batch)))
        return 0.0 * jax.tree.leaves(variables)[0].sum(), {}

    start = CODEC.init(jax.random.key(3), jnp.zeros((1, 3)))
    for name, target in (("one", TARGET), ("two", Wrapped(TARGET))):
        options = {"seed": 3, "name": name, "loss": loss, "power": 2}
        found = train_codec(context, CODEC, target, batch_at, ONE_STEP, **options)
        # Without a gradient nothing has moved.
        assert_equal(found, start)
        assert (context.directory / name).is_dir()
        module, kind, more, entries = seen[-1]
        assert module is CODEC and kind is type(target) and more == {"power": 2}
        assert entries == {*batch_at(0), "frozen"}


def test_a_generator_starts_where_it_is_told_and_its_loss_gets_the_latents(context):
    network, seen = Steered(), []

    def loss(params, key, batch, latents):
        seen.append(latents)
        return 0.0 * jax.tree.leaves(params)[0].sum(), {}

    fresh = initial(network, batch_at, 5)
    assert jax.tree.map(np.shape, fresh) == {
        "params": {"Dense_0": {"kernel": (5, 2), "bias": (2,)}}
    }
    assert_equal(
        train_generator(context, network, loss, batch_at, ONE_STEP, seed=5, name="a"), fresh
    )
    assert seen[-1] is None
    start = jax.tree.map(lambda leaf: leaf + 1.0, fresh)
    options = {"seed": 5, "name": "b", "latents": TARGET, "params": start}
    assert_equal(train_generator(context, network, loss, batch_at, ONE_STEP, **options), start)
    assert isinstance(seen[-1], Numbers)


def test_the_average_is_what_is_kept(context):
    def loss(params, key, batch, latents):
        return sum(leaf.sum() for leaf in jax.tree.leaves(params)), {}

    fresh = initial(Steered(), batch_at, 5)
    moved = {}
    for decay in (None, 0.999):
        recipe = Recipe(4, 4, 1e-2, save_every=4, schedule="constant", ema_decay=decay)
        found = train_generator(
            context, Steered(), loss, batch_at, recipe, seed=5, name=f"ema-{decay}"
        )
        steps = jax.tree.map(lambda a, b: np.abs(a - b).mean(), found, fresh)
        moved[decay] = float(np.mean(jax.tree.leaves(steps)))
    assert moved[None] == pytest.approx(4e-2, rel=1e-3)
    assert 0 < moved[0.999] < 0.9 * moved[None]
