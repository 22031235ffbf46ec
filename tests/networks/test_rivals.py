"""Networks without a generative model, and which data set's networks came out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.networks import rivals
from flown_jax.networks.conditions import centres, nearest_set
from flown_jax.networks.confusion import came_out
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.networks.starts import random_starts
from flown_jax.training import Records, tuning
from flown_jax.training.stages import StageContext
from flown_jax.training.tuning import Training
from flown_jax.weights.matching import matched
from flown_jax.weights.symmetries import permuted
from tests.networks import zoos

NAMES = ("grey", "colour")
COUNT = 4
WEIGHTS = {name: zoos.weights(name, 6) for name in NAMES}


def labelled(name, seed):
    """Images, and what the set's own first network says of them."""
    spec = zoos.SPECS[name]
    x = zoos.images(name, 200, seed)
    scores = spec.module().apply(spec.unflatten(jnp.asarray(zoos.weights(name, 6)[0])), x)
    return x, np.asarray(scores.argmax(-1))


def test_the_set_that_came_out_is_the_one_whose_images_the_networks_classify():
    space = NetworkSpace.fit(zoos.JOINT, WEIGHTS)
    # Copies of the first network, on whose answers the set's labels are.
    members = {name: np.repeat(w[:1], 6, axis=0) for name, w in WEIGHTS.items()}
    own = {name: np.asarray(space.normalise(w, OfSet(name))) for name, w in members.items()}
    # Shown grey images, three networks of the colour zoo and one of the grey zoo came out.
    mixed = np.concatenate([own["colour"][:3], own["grey"][:1]])
    images = {name: labelled(name, 1) for name in NAMES}
    found = came_out(space, {"grey": mixed, "colour": own["colour"]}, members, images)
    assert found == {"grey": ["colour"] * 3 + ["grey"], "colour": ["colour"] * 6}


def test_retrieval_by_condition_hands_out_networks_of_the_nearest_set():
    def bank(*values):
        rng = np.random.default_rng(0)
        return {"features": np.asarray(values)[:, None, None] + 0.01 * rng.normal(size=(4, 3, 2))}

    known = {"grey": bank(-1.0, -1.0, -1.0, -1.0), "colour": bank(1.0, 1.0, 1.0, 1.0)}
    shown = bank(1.0, 1.0, -1.0, 1.0)
    sets = nearest_set(shown, known)
    assert sets == ["colour", "colour", "grey", "colour"]
    # The means of the known draws tell it as well.
    assert nearest_set(shown, jax.tree.map(np.asarray, centres(known))) == sets
    copies = {name: np.repeat(w[:1], 6, axis=0) for name, w in WEIGHTS.items()}
    found = rivals.handed_out(0, zoos.JOINT, "grey", sets, copies)
    assert found.shape == (COUNT, zoos.SPECS["grey"].size)
    np.testing.assert_array_equal(found[2], WEIGHTS["grey"][0])
    read = zoos.JOINT.extract("grey", jnp.asarray(zoos.JOINT.embed("colour", WEIGHTS["colour"])))
    np.testing.assert_array_equal(found[0], np.asarray(read)[0])


def test_averages_are_of_two_different_networks():
    found = rivals.averages(0, np.eye(6, dtype=np.float32), COUNT)
    assert found.shape == (COUNT, 6)
    np.testing.assert_array_equal(np.sort(found, axis=1)[:, -2:], 0.5)
    np.testing.assert_array_equal(found.sum(1), 1.0)


def test_averages_of_many_are_of_different_networks_and_never_of_too_few():
    found = rivals.averages_of(0, np.eye(9, dtype=np.float32), COUNT, 4)
    np.testing.assert_array_equal(np.sort(found, axis=1), [[0] * 5 + [0.25] * 4] * COUNT)
    assert len(np.unique(found, axis=0)) == COUNT
    with pytest.raises(UserError, match="averages of 10 cannot be had of 9 networks"):
        rivals.averages_of(0, np.eye(9), COUNT, 10)


def test_permuted_copies_average_to_the_network_where_units_are_matched():
    spec, images = zoos.SPECS["grey"], zoos.images("grey", 20, 3)
    copies = permuted(spec, np.repeat(zoos.weights("grey", 1), 5, axis=0), np.random.default_rng(0))
    found = rivals.averages_of(0, copies, COUNT, 3, spec, images)
    assert np.abs(found[:, None] - copies).max(2).min(1).max() < 1e-5
    plain = rivals.averages_of(0, copies, COUNT, 3)
    assert np.abs(plain[:, None] - copies).max(2).min() > 0.01


def test_two_permuted_copies_of_a_network_average_to_it():
    spec, images = zoos.SPECS["grey"], zoos.images("grey", 20, 3)
    one = np.repeat(zoos.weights("grey", 1), 2, axis=0)
    copies = permuted(spec, one, np.random.default_rng(0))
    assert np.abs(copies[0] - copies[1]).max() > 0.1
    for shares in (None, "uniform"):
        found = rivals.pair_matched(0, spec, copies, 6, images, shares)
        apart = np.abs(found[:, None] - copies).max(2)
        assert apart.min(1).max() < 1e-6 and apart.max() > 0.1
    plain = rivals.pair_matched(0, spec, copies, 1, None)
    np.testing.assert_allclose(plain[0], copies.mean(0), atol=1e-6)


def test_matched_is_the_same_function_and_never_further():
    spec, images = zoos.SPECS["grey"], zoos.images("grey", 20, 3)
    a, b = zoos.weights("grey", 4), zoos.weights("grey", 4, 1)
    found = matched(spec, a, b, images)
    logits = jax.jit(jax.vmap(spec.apply, (0, None)))
    np.testing.assert_allclose(logits(found, images), logits(b, images), atol=1e-4)
    before, after = (np.linalg.norm(x - a, axis=1) for x in (b, found))
    assert np.all(after <= before) and after.mean() < before.mean()
    np.testing.assert_array_equal(matched(spec, a[2:3], b[2:3], images), found[2:3])


def test_noise_has_the_asked_deviation_in_each_tensor():
    spec = zoos.SPECS["grey"]
    factor = np.concatenate([np.full(e.size, 1.0 + i) for i, e in enumerate(spec.entries)])
    members = (np.random.default_rng(0).normal(size=(8, spec.size)) * factor).astype(np.float32)
    scale = rivals.tensor_scales(spec, members)
    for entry in spec.entries:
        own, values = scale[spec.slices[entry.name]], members[:, spec.slices[entry.name]]
        assert len(np.unique(own)) == 1
        expected = np.sqrt(np.square(values - values.mean(0)).sum() / (7 * entry.size))
        np.testing.assert_allclose(own[0], expected, rtol=1e-5)
    found = rivals.noisy(0, members, 400, scale, 1e-3)  # little, so that members are recognised
    rows = np.square(found[:, None] - members).sum(2).argmin(1)
    for start in (0, 8):
        assert set(rows[start : start + 8]) == set(range(8))
    noise = (found - members[rows]) / (1e-3 * scale)
    for place in spec.slices.values():
        np.testing.assert_allclose(noise[:, place].std(), 1, atol=0.1)


def test_gaussians_have_the_mean_and_the_deviation_of_the_networks():
    members = np.random.default_rng(0).normal(size=(9, 40)) * np.linspace(0.1, 2, 40) + 3
    found = rivals.gaussian(0, members.astype(np.float32), 4000)
    assert found.dtype == np.float32
    std = members.std(0, ddof=1)
    assert np.abs((found.mean(0) - members.mean(0)) / std).max() < 0.1
    np.testing.assert_allclose(found.std(0), std, rtol=0.1)
    along = rivals.pca_gaussian(0, members, 4000, 8) - members.mean(0)
    axes = np.linalg.svd(members - members.mean(0), full_matrices=False)[2]
    np.testing.assert_allclose(along @ axes[:8].T @ axes[:8], along, atol=1e-9)  # in their span
    # All 8 components of 9 networks have the networks' covariance.
    np.testing.assert_allclose(along.std(0), std, rtol=0.1)
    two = rivals.pca_gaussian(0, members, 5, 2) - members.mean(0)
    np.testing.assert_allclose(two @ axes[:2].T @ axes[:2], two, atol=1e-9)
    with pytest.raises(UserError, match="9 principal components"):
        rivals.pca_gaussian(0, members, 5, 9)


def test_the_memorising_sampler_returns_networks_of_the_zoo():
    members = WEIGHTS["grey"].copy()
    members[:, 0] = 2.0  # a weight that is the same in all
    found = rivals.memorised(jax.random.key(1), members, 12, 10)
    apart = np.abs(found[:, None] - members).max(2)
    assert apart.min(1).max() < 1e-5 and len(set(apart.argmin(1))) > 2


def test_density_draws_are_near_the_latents_of_the_set_that_is_named():
    latents = {"grey": jnp.zeros((5, 2, 3)), "colour": jnp.full((5, 2, 3), 10.0)}
    sets = ["colour", "grey", "colour"]
    found = rivals.from_density(jax.random.key(0), latents, sets, 0.1)
    assert found.shape == (3, 2, 3) and len(np.unique(found)) == 18
    np.testing.assert_allclose(found.mean((1, 2)), [10, 0, 10], atol=0.3)


def test_rivals_are_trained_with_the_rate_that_validation_chooses(tmp_path):
    spec = zoos.SPECS["grey"]
    keys = jax.random.split(jax.random.key(0), COUNT)
    starts = {"average": zoos.weights("grey", COUNT, 3)}
    starts["kaiming"] = random_starts(keys, spec, "kaiming_normal")
    records = Records(tmp_path)
    found = tuning.train_starts(
        StageContext("rivals", tmp_path / "progress", records),
        spec,
        starts,
        Training(*labelled("grey", 0), *labelled("grey", 1)),
        name="grey",
        seed=0,
        steps=60,
        batch=10,
        rates=(1e-8, 1e-2),
        tuned_on=2,
    )
    records.close()
    for name, start in starts.items():
        assert found[name].shape == start.shape
        # With the rate of 1e-8 nothing would have moved.
        assert np.abs(found[name] - start).max(1).min() > 1e-2
