"""What an encoder of graphs fixes before it is trained."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.graph_statistics import layer_scales, neutral, whitened, whitening
from flown_jax.weights.graph_symmetries import permuted, random_permutations
from tests.encoders.graphs import DEEP, SMALL, networks

RANDOM = np.random.default_rng(4)


def test_scales_are_of_layers():
    """Vectors are W (4, 3), b, W (2, 4), b."""
    w = networks(SMALL, 5) * np.repeat([0.1, 10.0, 3.0, 7.0], [12, 4, 8, 2]).astype(np.float32)
    nodes, edges = layer_scales(SMALL, w, 1)
    parts = np.split(w, [12, 16, 24], axis=1)
    first, second, third, last = (np.sqrt(np.mean(p.astype(np.float64) ** 2)) for p in parts)
    np.testing.assert_allclose(edges, [first, third], rtol=1e-6)
    np.testing.assert_allclose(nodes[:, 0], [second, last], rtol=1e-6)
    # Layers that no network of the topology has, and weights that are all zero.
    nodes, edges = layer_scales(SMALL, np.zeros_like(w), 3)
    assert nodes.shape == (4, 1) and (nodes == 1).all() and (edges == 1).all()


def test_scales_know_no_order_of_units():
    w = networks(DEEP, 4)
    other = [np.asarray(permuted(DEEP, row, random_permutations(DEEP, RANDOM))) for row in w]
    for own, expected in zip(
        layer_scales(DEEP, np.stack(other), 3), layer_scales(DEEP, w, 3), strict=True
    ):
        np.testing.assert_allclose(own, expected, rtol=1e-6)


def test_after_whitening_all_directions_count_alike():
    scales = np.concatenate([np.ones(4), 0.1 * np.ones(4), 1e-5 * np.ones(8)])
    basis = np.linalg.qr(RANDOM.normal(size=(16, 16)))[0]
    features = (RANDOM.normal(size=(64, 16)) * scales) @ basis + 5.0
    found = np.asarray(whitened(jnp.asarray(features, jnp.float32), whitening(features)))
    assert np.abs(found.mean(0)).max() < 1e-3
    assert np.mean(found**2) == pytest.approx(1.0, rel=1e-3)
    variance = np.linalg.svd(found, compute_uv=False) ** 2
    before = np.linalg.svd((features - features.mean(0)) / features.std(0), compute_uv=False) ** 2
    above = before > 0.02 * before[0]
    # The ridge is a thousandth of the largest.
    assert above.sum() >= 4 and variance[above].max() < 1.1 * variance[above].min()
    assert before[above].max() > 2 * before[above].min()


@pytest.mark.parametrize("count", [1, 4])
def test_equal_networks_leave_finite_statistics(count):
    features = np.full((count, 6), 0.3, np.float32)
    found = whitening(features)
    assert all(np.isfinite(value).all() for value in found.values())
    np.testing.assert_array_equal(whitened(features, found), np.zeros_like(features))
    none = neutral(6)
    assert {n: v.shape for n, v in none.items()} == {n: v.shape for n, v in found.items()}
    np.testing.assert_array_equal(whitened(features, none), features)
