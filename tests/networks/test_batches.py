"""What the autoencoder and the generators see at each step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.meta_model.latents import Standardiser
from flown_jax.networks.batches import ZooExamples, latent_batches, task_scales, zoo_batches
from flown_jax.networks.space import OfSet
from tests.networks import zoos


def examples(name):
    """Images whose class is their brightness."""
    labels = np.arange(30) % zoos.CLASSES
    shown = zoos.images(name, 30) + 2 * (labels[:, None, None, None] - 1)
    return ZooExamples(zoos.weights(name), shown.astype(np.float32), labels)


EXAMPLES = {name: examples(name) for name in zoos.SPECS}


def where(row, rows):
    """Which of the rows it is."""
    (found,) = np.flatnonzero((np.asarray(rows) == row).reshape(len(rows), -1).all(1))
    return found


def test_a_batch_has_different_networks_and_labelled_images_of_every_set():
    batch_at = zoo_batches(EXAMPLES, seed=1, networks=4, images=5)
    seen = {name: set() for name in EXAMPLES}
    for step in range(8):
        parts = batch_at(step)["parts"]
        for name, part in EXAMPLES.items():
            batch = parts[name]
            assert batch["context"] == OfSet(name)
            rows = [where(row, part.weights) for row in batch["weights"]]
            assert len(rows) == len(set(rows)) == 4
            seen[name] |= set(rows)
            images = [where(image, part.images) for image in batch["images"]]
            assert len(images) == 5
            np.testing.assert_array_equal(batch["labels"], part.labels[images])
    assert all(len(rows) == 6 for rows in seen.values())
    jax.tree.map(np.testing.assert_array_equal, batch_at(3), batch_at(3))
    other = zoo_batches(EXAMPLES, seed=2, networks=4, images=5)
    first, second = (at(3)["parts"]["grey"]["weights"] for at in (other, batch_at))
    assert np.any(first != second)


def test_a_batch_may_have_all_networks_and_no_images():
    weights = {name: ZooExamples(part.weights) for name, part in EXAMPLES.items()}
    parts = zoo_batches(weights, seed=1, networks=50, images=5)(0)["parts"]
    assert {name: len(part["weights"]) for name, part in parts.items()} == {"grey": 6, "colour": 6}
    assert all(set(part) == {"weights", "context"} for part in parts.values())


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
        found = task_scales(zoos.JOINT, EXAMPLES, balance)
        assert found == pytest.approx({k: v**-balance for k, v in own.items()}, rel=1e-4)
    # Originals that are never wrong do not take all of the loss.
    high = task_scales(zoos.JOINT, EXAMPLES, 1.0, floor=100.0)
    assert high == pytest.approx({name: 0.01 for name in own})


OPTIONS = {"seed": 0, "batch": 64, "members": 2, "concentration": 1.0, "noise": 0.0}


def generator_batch(step=0, **options):
    """A batch with its latents as they were before they were standardised."""
    batch_at = latent_batches(LATENTS, STATISTICS, CONDITIONS, **(OPTIONS | options))
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


def test_generators_may_have_no_condition():
    batch_at = latent_batches(LATENTS, STATISTICS, None, target="members", **OPTIONS)
    batch, known = batch_at(0), generator_batch(target="members")[0]
    assert batch["condition"] is None and batch["latent"].shape == known["latent"].shape
    assert set(batch) == set(known)


def test_noise_is_in_units_of_the_latents():
    _, plain = generator_batch(target="mixes", members=5, concentration=1e8)
    _, noisy = generator_batch(target="mixes", members=5, concentration=1e8, noise=0.5)
    # Means of all: the same but for the set, which the first draws decide.
    np.testing.assert_allclose((noisy - plain).std(), 0.5, rtol=0.1)


def test_an_unknown_target_is_named():
    with pytest.raises(UserError, match="flow.target is 'mean'; it must be one of members, mixes"):
        generator_batch(target="mean")
