"""Numbers of a zoo against hand-made ones."""

from __future__ import annotations

import numpy as np

from flown_jax.weights import statistics
from flown_jax.weights.spec import Entry, WeightSpec
from flown_jax.weights.statistics import Spread

SPEC = WeightSpec((Entry("a", "params/a/kernel", (1, 3)), Entry("b", "params/b", ())))


def test_a_spread_is_that_of_a_sample():
    found = statistics.spread([1.0, None, 4.0, float("nan")])
    assert found == Spread(2, 2.5, float(np.std([1, 4], ddof=1)), 1.0, 4.0)
    one = statistics.spread(np.array([3.0]))
    assert (one.n, one.mean, one.smallest) == (1, 3.0, 3.0) and np.isnan(one.std)
    assert statistics.spread([]).n == 0 and np.isnan(statistics.spread([]).mean)


def test_accuracies_are_told_by_epoch_and_split():
    table = {
        "epoch": [2, 1, 1, 1, 2],
        "split": ["held_out", "train", "held_out", "train", "train"],
        "test_accuracy": [0.5, 0.1, 0.9, 0.3, None],
    }
    found = statistics.accuracies(table)
    assert list(found) == [(1, "train"), (1, "held_out"), (2, "held_out")]
    np.testing.assert_allclose(
        [found[1, "train"].mean, found[1, "train"].std], [0.2, 0.02**0.5], rtol=1e-12
    )
    assert found[1, "held_out"].n == 1
    assert statistics.accuracies(table, "train_accuracy") == {}


def test_the_last_state_of_each_network_is_found():
    trials = {"seed": [1, 1, 2, 1], "epoch": [5, 9, 5, 7], "trial": ["x", "x", "x", "y"]}
    assert statistics.last_states(trials) == [1, 2, 3]
    # A single trajectory is all of it; without seeds the files are the networks.
    assert statistics.last_states({"seed": [1, 1], "epoch": [5, 9], "file": ["a", "b"]}) == [0, 1]
    blind = {"seed": [None] * 3, "epoch": [0, 1, 0], "file": ["a", "a", "b"]}
    assert statistics.last_states(blind) == [1, 2]


def test_every_tensor_has_its_spread_over_all_networks():
    weights = np.array([[1, 2, 3, 10], [4, 5, 6, -10]], np.float32)
    found = statistics.tensors(weights, SPEC)
    assert list(found) == ["a", "b"]
    assert found["a"] == statistics.spread([1, 2, 3, 4, 5, 6])
    assert found["b"] == statistics.spread([10, -10])


def test_distances_are_euclidean(monkeypatch):
    a = np.array([[0, 0, 0], [3, 4, 0], [3, 4, 12]], np.float32)
    expected = [[0, 5, 13], [5, 0, 12], [13, 12, 0]]
    np.testing.assert_allclose(statistics.distances(a), expected, rtol=1e-12)
    np.testing.assert_allclose(statistics.distances(a[:1], a), expected[:1], rtol=1e-12)
    monkeypatch.setattr(statistics, "_COLUMNS", 2)  # in blocks of columns
    np.testing.assert_allclose(statistics.distances(a), expected, rtol=1e-12)
    np.testing.assert_allclose(statistics.distances(a[1:], a), expected[1:], rtol=1e-12)


def test_near_duplicates_far_from_the_origin_keep_their_distance():
    a = np.full((2, 100), 1000.0, np.float32)
    a[1, 0] += 0.125  # exact in float32
    found = statistics.distances(a)
    np.testing.assert_allclose(found, [[0, 0.125], [0.125, 0]], rtol=1e-9)
    assert statistics.distances(a[:1], a[:1]) == 0


def test_neighbours_are_others():
    line = np.array([[0.0], [1.0], [5.0]], np.float32)
    pairs, nearest = statistics.within(statistics.distances(line))
    assert (pairs.n, pairs.smallest, pairs.largest) == (3, 1.0, 5.0)
    np.testing.assert_allclose(pairs.mean, 10 / 3)
    assert (nearest.n, nearest.mean, nearest.largest) == (3, 2.0, 4.0)
    pairs, nearest = statistics.between(statistics.distances(line[1:], line[:1]))
    assert (pairs.n, pairs.mean, nearest.mean) == (2, 3.0, 3.0)
    pairs, nearest = statistics.within(np.zeros((1, 1)))
    assert pairs.n == nearest.n == 0
    # A copy of another network is its neighbour at no distance.
    assert statistics.within(statistics.distances(line[[0, 0]]))[1].mean == 0


def test_features_are_those_of_each_tensor():
    found = statistics.features(np.array([[1, 2, 6, 10], [6, 1, 2, -10]], np.float32), SPEC)
    of_a = [3.0, np.std([1, 2, 6]), 1, 1.5, 2, 4, 6]
    np.testing.assert_allclose(found[:, :7], [of_a, of_a])  # whatever the order
    np.testing.assert_allclose(found[:, 7:], [[10, 0, *[10] * 5], [-10, 0, *[-10] * 5]])
