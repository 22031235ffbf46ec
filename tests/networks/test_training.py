"""What training sees, and that a few steps of it help."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.errors import UserError
from flown_jax.few_shot.codec import Standardiser
from flown_jax.models import many
from flown_jax.networks import losses, training
from flown_jax.networks.space import ZooSpace
from flown_jax.networks.training import ZooExamples
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
SPACE = ZooSpace.fit(zoos.JOINT, {name: e.weights for name, e in EXAMPLES.items()})
CODEC = MLPVAE(in_dim=zoos.JOINT.size, latent_shape=(2, 2, 2), hidden_dim=8)


@pytest.fixture
def context(tmp_path):
    records = Records(tmp_path)
    yield StageContext("stage", tmp_path / "progress", records)
    records.close()


def where(row, rows):
    """Which of the rows it is."""
    (found,) = np.flatnonzero((np.asarray(rows) == row).reshape(len(rows), -1).all(1))
    return found


def test_a_batch_has_different_networks_and_labelled_images_of_every_set():
    batch_at = training.codec_batches(SPACE, EXAMPLES, seed=1, networks=4, images=5)
    seen = {name: set() for name in EXAMPLES}
    for step in range(8):
        batch = batch_at(step)
        for name, part in EXAMPLES.items():
            known = SPACE.normalise(name, part.weights)
            rows = [where(row, known) for row in batch["weights"][name]]
            assert len(rows) == len(set(rows)) == 4
            seen[name] |= set(rows)
            images = [where(image, part.images) for image in batch["images"][name]]
            assert len(images) == 5
            np.testing.assert_array_equal(batch["labels"][name], part.labels[images])
    assert all(len(rows) == 6 for rows in seen.values())
    jax.tree.map(np.testing.assert_array_equal, batch_at(3), batch_at(3))
    other = training.codec_batches(SPACE, EXAMPLES, seed=2, networks=4, images=5)
    assert np.any(other(3)["weights"]["grey"] != batch_at(3)["weights"]["grey"])


def test_a_batch_may_have_all_networks_and_no_images():
    batch = training.codec_batches(SPACE, EXAMPLES, seed=1, networks=50, images=0)(0)
    assert {name: len(w) for name, w in batch["weights"].items()} == {"grey": 6, "colour": 6}
    assert batch["images"] == batch["labels"] == {}


def test_the_task_loss_falls(context):
    options = {
        "reconstruction": "mse",
        "weights_weight": 0.1,
        "kl_weight": 0.0,
        "sigma_in": 0.0,
        "sigma_lat": 0.1,
        "task_weight": 1.0,
        "mixes": 3,
        "members": 2,
    }
    # One set is enough of what is slow to compile.
    one = {"grey": EXAMPLES["grey"]}
    batch_at = training.codec_batches(SPACE, one, seed=0, networks=6, images=15)
    recipe = Recipe(steps=120, batch=6, learning_rate=0.01, clip=1.0)
    variables = training.train_codec(context, CODEC, SPACE, batch_at, recipe, seed=3, **options)
    logits = {"grey": many.logits(zoos.SPECS["grey"].module())}

    @quick_jit
    def metrics(variables, batch, space):
        key = jax.random.key(9)
        return losses.codec_loss(CODEC, variables, key, batch, space, logits, **options)[1]

    start = quick_jit(CODEC.init)(jax.random.key(3), jnp.zeros((1, zoos.JOINT.size)))
    before, after = (metrics(v, batch_at(1000), SPACE) for v in (start, variables))
    assert after["task"] < 0.8 * before["task"]
    assert after["mix_accuracy"] > before["mix_accuracy"]


def test_latent_statistics_are_those_of_all_sets():
    variables = random_variables(CODEC, jnp.zeros((1, zoos.JOINT.size)))
    means, statistics = training.fit_latent_statistics(CODEC, variables, SPACE, EXAMPLES)
    assert {name: z.shape for name, z in means.items()} == dict.fromkeys(EXAMPLES, (6, 2, 2, 2))
    x = SPACE.normalise("colour", EXAMPLES["colour"].weights)
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


def test_scales_are_powers_of_the_originals_cross_entropies():
    own = {}
    for name, part in EXAMPLES.items():
        scores = np.stack([zoos.SPECS[name].apply(w, part.images) for w in part.weights])
        log_probs = np.asarray(jax.nn.log_softmax(scores))
        own[name] = -np.mean(log_probs[:, np.arange(30), part.labels])
    for balance in (0.0, 0.5, 1.0):
        found = training.task_scales(zoos.JOINT, EXAMPLES, balance)
        assert found == pytest.approx({k: v**-balance for k, v in own.items()}, rel=1e-4)
    # Originals that are never wrong do not take all of the loss.
    high = training.task_scales(zoos.JOINT, EXAMPLES, 1.0, floor=100.0)
    assert high == pytest.approx({name: 0.01 for name in own})


OPTIONS = {"seed": 0, "batch": 64, "members": 2, "concentration": 1.0, "noise": 0.0}


def generator_batch(step=0, **options):
    """A batch with its latents as they were before they were standardised."""
    batch_at = training.generator_batches(LATENTS, STATISTICS, CONDITIONS, **(OPTIONS | options))
    batch = batch_at(step)
    jax.tree.map(np.testing.assert_array_equal, batch, batch_at(step))
    return batch, np.asarray(STATISTICS.invert(batch["latent"]))


@pytest.mark.parametrize("target", ["members", "mixes"])
def test_latent_and_condition_are_of_one_set(target):
    batch, latents = generator_batch(target=target)
    condition, group = batch["condition"], batch["group"]
    assert set(group) == {0, 1} and group.shape == (64,)
    assert condition["a"].shape == (64, 2, 3) and condition["b"].shape == (64, 2, 1)
    np.testing.assert_array_equal(condition["b"][:, 0, 0], group)
    draws = condition["a"] - group[:, None, None]
    np.testing.assert_allclose(np.unique(np.round(draws, 3)), [0.0, 0.1, 0.2, 0.3])
    # All of a latent is in its own set's places.
    own = np.where(group[:, None] == 0, latents[:, :5], latents[:, 5:])
    np.testing.assert_allclose(own.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(latents.sum(1), 1, atol=1e-5)
    assert batch["latent"].dtype == np.float32
    assert np.any(generator_batch(1, target=target)[1] != latents)


def test_targets_are_members_or_means_of_several():
    _, latents = generator_batch(target="members", members=3, noise=5.0)
    np.testing.assert_allclose(np.sort(latents, axis=1)[:, -2:], [[0, 1]] * 64, atol=1e-5)
    assert set(latents.argmax(1)) == set(range(10))
    _, latents = generator_batch(target="mixes", members=3)
    np.testing.assert_array_equal((latents > 1e-6).sum(1), 3)
    _, latents = generator_batch(target="mixes", members=3, concentration=1e8)
    np.testing.assert_allclose(np.sort(latents, axis=1)[:, -3:], 1 / 3, atol=1e-3)
    # No more than there are.
    _, latents = generator_batch(target="mixes", members=50, concentration=1e8)
    np.testing.assert_allclose(np.sort(latents, axis=1)[:, -5:], 1 / 5, atol=1e-3)


def test_noise_is_in_units_of_the_latents():
    _, plain = generator_batch(target="mixes", members=5, concentration=1e8)
    _, noisy = generator_batch(target="mixes", members=5, concentration=1e8, noise=0.5)
    # Means of all: the same but for the set, which the first draws decide.
    np.testing.assert_allclose((noisy - plain).std(), 0.5, rtol=0.1)


def test_an_unknown_target_is_named():
    with pytest.raises(UserError, match="flow.target is 'mean'; it must be one of members, mixes"):
        generator_batch(target="mean")


def test_a_generator_is_trained(context):
    network = MLPVelocity(hidden_dims=(16,), embedding_dim=4)
    batch_at = training.generator_batches(
        LATENTS, STATISTICS, CONDITIONS, target="members", **OPTIONS
    )

    def loss(params, key, batch):
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
    error = quick_jit(lambda params, batch: loss(params, None, batch)[0])
    before, after = (float(error(p, batch_at(1000))) for p in (start, params))
    assert after < 0.3 * before
    assert (context.directory / "one of several").is_dir()
