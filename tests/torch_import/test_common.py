"""StateReader: layouts, shapes, leftovers."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.torch_import.common import StateReader, setting


def _state():
    random = np.random.default_rng(0)
    return {
        "fc.weight": random.normal(size=(3, 2)),
        "fc.bias": random.normal(size=3),
        "conv.weight": random.normal(size=(4, 2, 3, 3)),
        "conv.bias": random.normal(size=4),
        "loss.scale": np.zeros(()),
    }


def test_layouts_are_transposed_contiguous_float32():
    state = _state()
    reader = StateReader(state, ignore=("loss.",))
    linear, conv = reader.linear("fc", 2, 3), reader.conv2d("conv", 2, 4)
    np.testing.assert_allclose(linear["kernel"], state["fc.weight"].T, rtol=1e-6)
    assert conv["kernel"].shape == (3, 3, 2, 4)
    np.testing.assert_allclose(conv["kernel"][0, 2, 1, 3], state["conv.weight"][3, 1, 0, 2])
    for leaf in (*linear.values(), *conv.values()):
        assert leaf.flags["C_CONTIGUOUS"] and leaf.dtype == np.float32
    reader.finish()


def test_sequence_layouts():
    state = {"c.weight": np.arange(24.0).reshape(2, 3, 4), "c.bias": np.zeros(2)}
    assert StateReader(state).conv1d("c", 3, 2, 4)["kernel"].shape == (4, 3, 2)
    state["c.bias"] = np.zeros(3)
    kernel = StateReader(state).conv_transpose1d("c", 2, 3, 4)["kernel"]
    assert kernel[1, 0, 2] == state["c.weight"][0, 2, 1]


def test_missing_wrong_and_left_entries_are_named():
    reader = StateReader(_state())
    with pytest.raises(UserError, match=r"no entry 'other.weight', expected with shape \(3, 2\)"):
        reader.linear("other", 2, 3)
    with pytest.raises(UserError, match=r"'fc.weight' .* has shape \(3, 2\), not \(5, 2\)"):
        reader.linear("fc", 2, 5)
    reader.conv2d("conv", 2, 4)
    with pytest.raises(
        UserError, match=r"unknown to this network: fc\.bias, fc\.weight, loss\.scale"
    ):
        reader.finish()


def test_missing_setting_is_named():
    assert setting({"ch": 3}, "ch") == 3
    with pytest.raises(UserError, match="no entry 'ch_mult'"):
        setting({"ch": 3}, "ch_mult")
