"""Raw graphs of networks as the original code of neural graphs builds them, bit by bit."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.weights.graphs import Topology, chain
from tests.parity import fixtures


@pytest.fixture(scope="module")
def fixture():
    return fixtures.load("graph_encoder_cnn", "published")


def networks(fixture) -> list[str]:
    """Names of the networks whose raw graph the fixture has."""
    end = ".node_raw"
    return [name.removesuffix(end) for name in fixture.outputs if name.endswith(end)]


def read(fixture, name: str) -> tuple[Topology, np.ndarray]:
    """The topology of a network of the fixture, in the published form, and its vector."""
    case = next((c for c in fixture.config if c.endswith(".") and name.startswith(c)), "main")
    config, start = fixture.config["main"] | fixture.config[case], f"{name}."
    layers = sum(key.startswith(start) and key.endswith(".weight") for key in fixture.inputs)
    tensors = [
        fixture.inputs[f"{start}{layer}.{leaf}"]
        for layer in range(layers)
        for leaf in ("weight", "bias")
    ]
    found = chain(
        [tensor.shape for tensor in tensors[::2]],
        flattening=config["flattening"],
        order="published",
        kernel=config["max_kernel"],
        linear_as_conv=config["linear_as_conv"],
        residual=config.get("residual_connections", ()),
        activations=config.get("activations", ()),
    )
    return found, np.concatenate([tensor.reshape(-1) for tensor in tensors])


def test_raw_graphs(fixture):
    assert networks(fixture)
    for name in networks(fixture):
        found, w = read(fixture, name)
        expected = {
            what: fixture.outputs[f"{name}.{what}"]
            for what in ("node_raw", "edge_raw", "edge_index", "linear_edge")
        }
        nodes, edges = found.features(jnp.asarray(w))
        np.testing.assert_array_equal(nodes, expected["node_raw"], name)
        dense = np.zeros_like(expected["edge_raw"])
        dense[found.senders, found.receivers] = edges
        np.testing.assert_array_equal(dense, expected["edge_raw"], name)
        # There, residual connections stand behind all other edges.
        order = np.lexsort(expected["edge_index"][::-1])
        ends = np.stack([found.senders, found.receivers])
        np.testing.assert_array_equal(ends, expected["edge_index"][:, order], name)
        np.testing.assert_array_equal(found.linear, expected["linear_edge"][order], name)
        np.testing.assert_array_equal(found.weights(nodes, edges), w, name)
