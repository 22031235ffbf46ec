"""A few steps of training on the networks of two data sets help."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.meta_model import losses, training
from flown_jax.meta_model.latents import Standardiser, fit_latent_statistics, posterior_means
from flown_jax.meta_model.mixing import Mixing
from flown_jax.networks.batches import ZooExamples, latent_batches, zoo_batches
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.training import Records
from flown_jax.training.recipe import Recipe
from flown_jax.training.stages import StageContext
from flown_jax.velocity.mlp import MLPVelocity
from tests.layers.helpers import quick_jit, random_variables
from tests.networks import zoos


def examples(name):
    """Images whose class is their brightness."""
    labels = np.arange(30) % zoos.CLASSES
    shown = zoos.images(name, 30) + 2 * (labels[:, None, None, None] - 1)
    return ZooExamples(zoos.weights(name), shown.astype(np.float32), labels)


EXAMPLES = {name: examples(name) for name in zoos.SPECS}
SPACE = NetworkSpace.fit(zoos.JOINT, {name: e.weights for name, e in EXAMPLES.items()})
CODEC = MLPVAE(in_dim=zoos.JOINT.size, latent_shape=(2, 2, 2), hidden_dim=8)


@pytest.fixture
def context(tmp_path):
    records = Records(tmp_path)
    yield StageContext("stage", tmp_path / "progress", records)
    records.close()


def test_the_task_loss_falls(context):
    options = {
        "reconstruction": "mse",
        "weights_weight": 0.1,
        "kl_weight": 0.0,
        "sigma_in": 0.0,
        "sigma_lat": 0.1,
        "task_weight": 1.0,
        "mixing": Mixing(mixes=3, members=2),
    }
    # One set is enough of what is slow to compile.
    one = {"grey": EXAMPLES["grey"]}
    batch_at = zoo_batches(one, seed=0, networks=6, images=15)
    recipe = Recipe(steps=120, batch=6, learning_rate=0.01, clip=1.0)
    variables = training.train_codec(context, CODEC, SPACE, batch_at, recipe, seed=3, **options)

    @quick_jit
    def metrics(variables, batch, space):
        key = jax.random.key(9)
        return losses.codec_loss(CODEC, variables, key, batch, space, **options)[1]

    start = quick_jit(CODEC.init)(jax.random.key(3), jnp.zeros((1, zoos.JOINT.size)))
    before, after = (metrics(v, batch_at(1000), SPACE) for v in (start, variables))
    assert after["task"] < 0.8 * before["task"]


@pytest.mark.parametrize(
    ("parts", "mixing", "whole"),
    [(True, Mixing(mixes=3, members=2), True), (True, None, True), (False, None, False)],
)
def test_a_loss_that_looks_at_pairs_stays_on_one_device(context, monkeypatch, parts, mixing, whole):
    given = []

    def train(*_, whole, **__):
        given.append(whole)
        raise InterruptedError

    monkeypatch.setattr(training, "train", train)
    batch = zoo_batches(EXAMPLES, seed=0, networks=6, images=15)(0)
    flat = {"weights": np.zeros((2, zoos.JOINT.size), np.float32)}
    with pytest.raises(InterruptedError):
        training.train_codec(
            context,
            CODEC,
            SPACE,
            lambda step: batch if parts else flat,
            Recipe(steps=1, batch=6, learning_rate=0.01),
            seed=3,
            mixing=mixing,
        )
    assert given == [whole]


def test_latent_statistics_are_those_of_all_sets():
    variables = random_variables(CODEC, jnp.zeros((1, zoos.JOINT.size)))
    means = {
        name: posterior_means(CODEC, variables, SPACE, part.weights, OfSet(name), chunk=4)
        for name, part in EXAMPLES.items()
    }
    statistics = fit_latent_statistics(CODEC, means.values())
    assert {name: z.shape for name, z in means.items()} == dict.fromkeys(EXAMPLES, (6, 2, 2, 2))
    x = SPACE.normalise(EXAMPLES["colour"].weights, OfSet("colour"))
    posterior = CODEC.apply(variables, x, method="encode")
    np.testing.assert_allclose(means["colour"], posterior.mode(), atol=1e-5)
    standard = statistics.apply(np.concatenate(list(means.values())))
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(0), 1, rtol=1e-3)


# Latents that tell their network, conditions that tell their set and draw.
LATENTS = {"grey": np.eye(5, 10, dtype=np.float32), "colour": np.eye(5, 10, 5, dtype=np.float32)}
CONDITIONS = {
    name: {
        "a": np.full((4, 2, 3), i) + np.arange(4)[:, None, None] / 10,
        "b": np.full((4, 2, 1), i),
    }
    for i, name in enumerate(LATENTS)
}
STATISTICS = Standardiser(jnp.full(10, 0.25), jnp.full(10, 2.0))


def test_a_generator_is_trained(context):
    network = MLPVelocity(hidden_dims=(16,), embedding_dim=4)
    batch_at = latent_batches(
        LATENTS,
        STATISTICS,
        CONDITIONS,
        seed=0,
        batch=64,
        target="members",
        members=2,
        concentration=1.0,
        noise=0.0,
    )

    def loss(params, key, batch, latents):
        # To the set's mean, which the condition tells.
        found = network.apply(params, batch["latent"], jnp.zeros(64), batch["condition"])
        side = jnp.where(jnp.arange(10) < 5, 1.0, -1.0) * (1 - 2 * batch["group"][:, None])
        value = jnp.mean((found - side) ** 2)
        return value, {"error": value}

    recipe = Recipe(steps=60, batch=64, learning_rate=0.02, ema_decay=0.5)
    first = batch_at(0)
    start = quick_jit(network.init)(
        jax.random.key(4), first["latent"], jnp.zeros(()), first["condition"]
    )
    params = training.train_generator(
        context, network, loss, batch_at, recipe, seed=4, name="one of several"
    )
    assert jax.tree.structure(params) == jax.tree.structure(start)
    error = quick_jit(lambda params, batch: loss(params, None, batch, None)[0])
    before, after = (float(error(p, batch_at(1000))) for p in (start, params))
    assert after < 0.3 * before
    assert (context.directory / "one of several").is_dir()
