"""The gradient cut's benchmark on few steps; nothing here is about speed."""

from __future__ import annotations

import pytest

from benchmarks import solver_gradient

TINY = {"hidden_dims": (8,), "embedding_dim": 8}


def test_the_twin_has_the_same_gradient_and_the_states_follow_their_law():
    cases, rows = solver_gradient.measure(
        0.0, steps=10, batch=16, times=(0.4,), kind="mlp", sizes=TINY
    )
    assert [case.name for case in cases] == ["forward", "gradient"]
    assert all(case.twins["scan"].median > 0 for case in cases)
    assert rows[0]["time_law"] < 1 and rows[0]["memory_law"] == pytest.approx(0.6)
    assert rows[0]["memory"] == pytest.approx(0.6, abs=0.1)
