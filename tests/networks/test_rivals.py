"""Networks without a generative model, and which data set's networks came out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.networks import rivals
from flown_jax.networks.conditions import centres, nearest_set
from flown_jax.networks.confusion import came_out
from flown_jax.networks.space import NetworkSpace, OfSet
from flown_jax.networks.starts import random_starts
from flown_jax.training import Records, tuning
from flown_jax.training.stages import StageContext
from flown_jax.training.tuning import Training
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
