"""The sentence on zoos of several seeds whose networks are read as graphs."""

from __future__ import annotations

import pytest

from flown_jax.networks.order import order_remark

pytestmark = pytest.mark.fast

TRAJECTORY = {"seed": [3, 3, 3], "epoch": [1, 2, 3]}
SEEDS = {"seed": [0, 1, 0, 1], "epoch": [1, 1, 2, 2]}
FILES = {"seed": [None, None], "epoch": [5, 5], "file": ["a.pt", "b.pt"]}


def test_states_of_one_network_have_one_order():
    assert order_remark({"cifar10": TRAJECTORY, "mnist": TRAJECTORY}) is None


def test_zoos_of_several_networks_are_named():
    found = order_remark({"cifar10": TRAJECTORY, "mnist": SEEDS})
    assert "mnist (2 networks) is a zoo of several seeds" in found and "cifar10" not in found
    assert found.endswith("networks of other seeds cannot be encoded.")
    both = order_remark({"mnist": SEEDS, "stl10": FILES})
    assert "mnist (2 networks), stl10 (2 networks) are zoos of several seeds" in both
