"""Permutations of the groups of a graph leave the network's function as it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.weights.graph_symmetries import permuted, random_permutations, shuffled
from flown_jax.weights.graphs import topology
from flown_jax.weights.symmetries import Symmetry, transform
from tests.layers.helpers import quick_jit
from tests.weights import base_models


@pytest.mark.parametrize("name", base_models.MODELS)
def test_a_network_with_permuted_units_is_the_same_function(name):
    spec = base_models.spec(name)
    _, variables, images = base_models.random(name)
    found = topology(spec)
    w = spec.flatten(variables)
    orders = random_permutations(found, np.random.default_rng(3))
    free = {i for i, group in enumerate(found.groups) if group.role == "hidden"}
    if name == "resnet12_features":
        (fixed,) = (tied for tied in found.tied if len(found.groups) - 1 in tied)
        free -= set(fixed)
    assert set(orders) == free
    other = permuted(found, w, orders)
    assert np.mean(np.asarray(other) != np.asarray(w)) > 0.5
    apply = quick_jit(lambda many: jax.vmap(lambda w: spec.apply(w, images))(many))
    before, after = apply(jnp.stack([w, other]))
    np.testing.assert_allclose(after, before, atol=1e-5 * float(jnp.abs(before).max()))
    inverse = {i: np.argsort(order) for i, order in orders.items()}
    np.testing.assert_array_equal(permuted(found, other, inverse), w)


@pytest.mark.parametrize("flattening", ["as_conv", "repeat_nodes"])
def test_of_a_cnn_it_is_its_symmetry(flattening):
    spec = base_models.spec("cnn")
    found = topology(spec, flattening=flattening)
    w = np.random.default_rng(0).normal(size=(2, spec.size)).astype(np.float32)
    orders = random_permutations(found, np.random.default_rng(1))
    symmetry = Symmetry(tuple(orders.values()), tuple(np.ones(len(o)) for o in orders.values()))
    expected = transform(spec, w, [symmetry, symmetry])
    np.testing.assert_array_equal(permuted(found, w, orders), expected)


def test_heads_move_as_a_whole():
    found = topology(base_models.spec("vit"))
    w = jnp.arange(found.size, dtype=jnp.float32)
    scores, values = (
        next(i for i, g in enumerate(found.groups) if g.name == f"blocks.0.attn.qkv.{what}")
        for what in ("qk", "v")
    )
    assert found.groups[scores].blocks == 3 and (scores, values) in found.tied
    swapped = np.array([2, 3, 0, 1, 4, 5])
    permuted(found, w, {scores: swapped, values: swapped})
    permuted(found, w, {values: np.array([1, 0, 2, 3, 4, 5])})
    with pytest.raises(UserError, match=r"qkv.qk and blocks.0.attn.qkv.v .* head by head"):
        permuted(found, w, {values: swapped})
    with pytest.raises(UserError, match="head by head"):
        permuted(found, w, {scores: np.roll(swapped, 1), values: np.roll(swapped, 1)})


def test_refusals():
    found = topology(base_models.spec("resnet18"))
    w = jnp.zeros(found.size)
    with pytest.raises(UserError, match="conv1 and bn1 .* must be permuted alike"):
        permuted(found, w, {1: np.array([1, 0])})
    with pytest.raises(UserError, match="conv1 needs a permutation of 0 to 1"):
        permuted(found, w, {1: np.array([0, 0])})
    with pytest.raises(UserError, match="linear is output: its units cannot change places"):
        permuted(found, w, {len(found.groups) - 1: np.array([1, 0, 2])})


def test_every_network_is_shuffled_in_an_order_of_its_own():
    spec = base_models.spec("cnn")
    found = topology(spec)
    w = np.random.default_rng(0).normal(size=(1, spec.size)).astype(np.float32).repeat(2, 0)
    first, second = shuffled(found, w, np.random.default_rng(1))
    orders = random_permutations(found, np.random.default_rng(1))
    np.testing.assert_array_equal(first, permuted(found, w[0], orders))
    assert np.mean(first != second) > 0.5
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
