"""Standardised weights: they come back, and each tensor counts alike."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.networks.space import ZooSpace
from tests.layers.helpers import quick_jit
from tests.networks import zoos

WEIGHTS = {name: zoos.weights(name) for name in zoos.SPECS}
SPACE = ZooSpace.fit(zoos.JOINT, WEIGHTS)


@pytest.mark.parametrize("name", zoos.SPECS)
def test_weights_come_back(name):
    new = 3 * zoos.weights(name, seed=7)
    x = SPACE.normalise(name, new)
    assert x.shape == (6, zoos.JOINT.size) and x.dtype == np.float32
    np.testing.assert_allclose(SPACE.restore(name, x), new, atol=1e-5)
    np.testing.assert_allclose(
        SPACE.restore(name, x.reshape(2, 3, -1)), new.reshape(2, 3, -1), atol=1e-5
    )


def test_a_tensor_has_one_scale_and_training_networks_are_of_unit_size():
    x = np.concatenate([SPACE.normalise(name, w) for name, w in WEIGHTS.items()])
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    for place in zoos.JOINT.slices.values():
        np.testing.assert_allclose(np.mean(x[:, place] ** 2), 1, rtol=1e-4)
        assert len(np.unique(SPACE.scale[place])) == 1
    assert len(np.unique(SPACE.scale)) == len(zoos.JOINT.slices)


def test_spacing_is_the_mean_distance_of_two_networks_of_a_set():
    for name, w in WEIGHTS.items():
        x = np.asarray(SPACE.normalise(name, w))
        pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(x, 2)]
        np.testing.assert_allclose(SPACE.spacing[name], np.mean(pairs), rtol=1e-5)


def test_what_does_not_vary_is_not_divided_by():
    w = WEIGHTS["grey"].copy()
    first, second = list(zoos.SPECS["grey"].slices.values())[:2]
    w[:, first], w[:, second] = 0.0, 0.7
    space = ZooSpace.fit(zoos.JOINT, {"grey": w})
    np.testing.assert_array_equal(
        space.scale[zoos.JOINT.slices[zoos.JOINT.spec("grey").names[0]]], 1
    )
    np.testing.assert_allclose(space.restore("grey", space.normalise("grey", w)), w, atol=1e-6)
    one = ZooSpace.fit(zoos.JOINT, {"grey": w[:1]})
    same = ZooSpace.fit(zoos.JOINT, {"grey": w[:1].repeat(3, 0)})
    for known in (one, same):  # a unit of distance of nothing would divide by nothing
        assert known.spacing["grey"] == 1
        np.testing.assert_array_equal(known.normalise("grey", w[:1]), 0)


def test_a_compiled_function_takes_it_as_an_argument():
    x = SPACE.normalise("grey", WEIGHTS["grey"])
    found = quick_jit(lambda space, x: space.restore("grey", x))(SPACE, x)
    np.testing.assert_allclose(found, WEIGHTS["grey"], atol=1e-5)
    moved = jax.tree.map(lambda leaf: leaf + 1, SPACE)
    assert moved.joint == SPACE.joint


def test_another_length_is_named():
    with pytest.raises(UserError, match="weights of colour must be"):
        SPACE.normalise("colour", WEIGHTS["grey"])
    with pytest.raises(UserError, match="no data set 'mnist'"):
        ZooSpace.fit(zoos.JOINT, {"mnist": WEIGHTS["grey"]})
