"""The PyTorch twins compute what they are compared with."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the twins need PyTorch")

from benchmarks import (  # noqa: E402
    flow_step,
    heads,
    parallel,
    sampling,
    torch_twins,
    unet_pair,
    zoo_training,
)

SMALL = {"channel_mult": (1, 2), "num_res_blocks": 1}
TINY = {"channel_mult": (1,), "num_res_blocks": 1}


def test_unets_agree_and_a_wrong_network_is_refused(monkeypatch):
    pair = unet_pair.build(32, **SMALL)
    assert pair.difference < 1e-5
    monkeypatch.setattr(torch_twins, "_sinusoid", lambda t, width: torch.zeros(len(t), width))
    with pytest.raises(RuntimeError, match="not the same network"):
        unet_pair.build(32, **SMALL)


def test_multiply_adds_of_a_network_counted_by_hand():
    # One level, one block: every layer on the 8x8 map; the embeddings once a map.
    twin = torch_twins.UNet(4, 32, (1,), 1)
    x, t = torch.zeros(2, 4, 8, 8), torch.zeros(2)
    block, place = 2 * 9 * 32 * 32, 64
    wide = 9 * 64 * 32 + 9 * 32 * 32 + 64 * 32
    maps = place * (2 * 9 * 4 * 32 + 3 * block + 4 * 32 * 32 + 2 * wide)
    embeddings = 32 * 128 + 128 * 128 + 5 * 128 * 32
    assert torch_twins.multiply_adds(twin, x, t) == 2 * (maps + embeddings)


def test_loop_and_batched_heads_agree():
    features = torch.randn(3, 4, 2, 6, generator=torch.Generator().manual_seed(0))
    settings = {"steps": 20, "learning_rate": 1e-2, "weight_decay": 1e-2}
    plain = torch_twins.fit_heads_loop(features, **settings, fused=False)
    fused = torch_twins.fit_heads_loop(features, **settings, fused=True)
    batched = torch_twins.fit_heads_batched(features, **settings, chunk=2)
    np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(batched, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("measure", "twins"),
    [
        (lambda: heads.measure(8, 0.0, ours=4, loop=2, batched=4), 2 + len(heads.CHUNKS)),
        (lambda: flow_step.measure(32, 0.0, batch=2, **TINY), 2),
        (lambda: sampling.measure(32, 0.0, batch=2, steps=2, **TINY), 2),
        (lambda: parallel.measure(1, 0.0, part=2, width=8), 1),
    ],
    ids=["heads", "flow_step", "sampling", "parallel"],
)
def test_a_small_case_runs(monkeypatch, measure, twins):
    monkeypatch.setattr("benchmarks.harness._SAMPLE_SECONDS", 0.0)
    case = measure()
    assert len(case.twins) == twins
    assert case.ours.rounds == 4
    assert case.flops >= 0 and case.ratio() > 0


def test_networks_of_a_zoo_agree_with_their_twins(monkeypatch):
    monkeypatch.setattr(zoo_training, "IMAGES", 60)
    zoo_training.build(10, 2)
    monkeypatch.setattr(torch_twins.F, "max_pool2d", torch_twins.F.avg_pool2d)
    with pytest.raises(RuntimeError, match="differ from ours by"):
        zoo_training.build(10, 2)
