"""The graph benchmark's forms, measures and result; nothing here is about speed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import graph_encoder, harness
from benchmarks.graph_encoder import FORMS, NETWORKS, Contestant
from benchmarks.harness import Case, Timing

TINY = {"d_node": 4, "d_edge": 4, "d_attn_hid": 4, "d_node_hid": 4, "d_edge_hid": 4}
TINY |= {"max_kernel": 3, "n_layers": 2, "n_heads": 2, "sin_emb_dim": 2, "d_out_hid": 4, "d_out": 3}


@pytest.fixture
def tiny(monkeypatch):
    """The name of a network whose step takes milliseconds, on a thread that waits for no other."""
    pytest.importorskip("torch", reason="the twins need PyTorch")
    monkeypatch.setattr("benchmarks.unet_pair.available_cores", lambda: 1)
    monkeypatch.setitem(NETWORKS, "tiny", ((2, 1, 3, 3), (2, 2, 2, 2), (3, 8), (2, 3)))
    return "tiny"


@pytest.mark.parametrize(
    ("network", "parameters", "repeated", "as_conv"),
    [
        ("CNN-small", 2_864, (83, 2_499), (51, 803)),
        ("CNN-medium", 10_853, (141, 7_901), (96, 3_176)),
        ("CNN-medium, 100 classes", 12_743, (231, 11_591), None),
    ],
)
def test_networks_and_forms_have_the_published_sizes(network, parameters, repeated, as_conv):
    shapes = NETWORKS[network]
    assert sum(int(np.prod(s)) + s[0] for s in shapes) == parameters
    assert FORMS["repeat_nodes, sparse"].size(shapes) == repeated
    assert FORMS["repeat_nodes, dense"].size(shapes) == (repeated[0], repeated[0] ** 2)
    if as_conv:
        assert FORMS["as_conv, sparse"].size(shapes) == as_conv


def test_result_is_of_the_default_form_and_survives_json(monkeypatch):
    def timing(seconds):
        return Timing(seconds, seconds, seconds, 2)

    seconds = dict(zip(graph_encoder.RACED, (1.0, 2.0, 5.0), strict=True))
    memory = {"twin": 4.0} | {name: s / 2 for name, s in seconds.items()} | {"as_conv, dense": 2.0}

    def cases(_):
        return [Case(n, timing(s), {"torch": timing(6.0)}, 1.0, 1e9) for n, s in seconds.items()]

    def alone(name, network, batch, steps=1):
        return {"seconds": 1.0, "memory_gib": memory[name]}

    monkeypatch.setattr(graph_encoder, "measure", cases)
    monkeypatch.setattr(graph_encoder, "alone", alone)
    monkeypatch.setattr(graph_encoder, "in_a_process", lambda function: {"nodes": 9613})
    monkeypatch.setattr(harness, "matmul_gflops", lambda: 100.0)
    result = graph_encoder.run(0.0)
    assert json.loads(json.dumps(result)) == result
    assert (result["ratio"], result["memory_ratio"]) == (6.0, 8.0)
    assert result["ratios"] == {"CNN-medium": 6.0}
    assert {name: form["ratio"] for name, form in result["forms"].items()} == {
        "as_conv, sparse": 6.0,
        "repeat_nodes, sparse": 3.0,
        "repeat_nodes, dense": 1.2,
    }
    # All but the largest in the dense form.
    assert len(result["growth"]) == 2 * len(NETWORKS) - 1
    assert result["resnet18"] == {"nodes": 9613}
    assert "| CNN-small | as_conv, sparse | 803 | 1.00 | 0.50 |" in graph_encoder.growth_table(
        result["growth"]
    )


def test_a_small_step_of_the_twin_is_measured(tiny):
    found = graph_encoder.measured_here("twin", tiny, 1, 1, **TINY)
    assert found["seconds"] > 0 and found["memory_gib"] >= 0


def test_our_published_form_is_the_twin(monkeypatch, tiny):
    monkeypatch.setattr(harness, "_SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(graph_encoder, "RACED", (graph_encoder.PUBLISHED_FORM,))
    (case,) = graph_encoder.measure(0.0, tiny, 2, **TINY)
    assert case.ours.rounds == 2 and case.ratio() > 0


def test_forms_are_raced_and_other_outputs_are_refused(monkeypatch, tiny):
    monkeypatch.setattr(harness, "_SAMPLE_SECONDS", 0.0)
    shift = 0.0

    def ours(networks, form, config, state):
        made = graph_encoder.twin(networks, config)
        return Contestant(made.work, made.outputs + shift)

    monkeypatch.setattr(graph_encoder, "ours", ours)
    cases = graph_encoder.measure(0.0, tiny, 2, **TINY)
    assert [case.name for case in cases] == list(graph_encoder.RACED)
    assert 0 < cases[0].flops < cases[1].flops < cases[2].flops
    shift = 1.0
    with pytest.raises(RuntimeError, match="not the same network"):
        graph_encoder.measure(0.0, tiny, 2, **TINY)
