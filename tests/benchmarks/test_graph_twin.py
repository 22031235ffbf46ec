"""The twin of the graph benchmark is the published dense encoder."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.fixtures import SOURCES, assert_close, load

torch = pytest.importorskip("torch", reason="the twins need PyTorch")

from benchmarks import graph_twin  # noqa: E402


@pytest.mark.parametrize("source", SOURCES)
def test_outputs_are_those_of_the_fixture(source):
    fixture = load("graph_encoder_cnn", source)
    config = fixture.config["main"]
    twin = graph_twin.GraphEncoder(config)
    own = {k: torch.from_numpy(v) for k, v in fixture.params.items() if not k.startswith("wild.")}
    twin.load_state_dict(own)

    def network(name):
        parts = [(f"{name}.{i}.weight", f"{name}.{i}.bias") for i in range(len(config["net_a"]))]
        return [(fixture.inputs[w], fixture.inputs[b]) for w, b in parts]

    graphs = graph_twin.dense_graphs([network("a0"), network("a1")], config)
    np.testing.assert_array_equal(graphs.nodes[0], fixture.outputs["a0.node_raw"])
    np.testing.assert_array_equal(graphs.edges[0], fixture.outputs["a0.edge_raw"])
    with torch.no_grad():
        assert_close(twin(graphs), fixture.outputs["output"], 1e-5, "output")


def test_published_sizes_have_the_published_number_of_parameters():
    twin = graph_twin.GraphEncoder(graph_twin.PUBLISHED)
    assert sum(p.numel() for p in twin.parameters()) == 545_280
