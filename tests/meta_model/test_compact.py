"""Arrays in few bytes: how far they move, what is left out, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax import MetaModel
from flown_jax.errors import UserError
from flown_jax.meta_model.compact import pack, unpack
from tests.networks import model

RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((64, 48)).astype(np.float32) * np.geomspace(0.01, 10, 48)
MATRIX = MATRIX.astype(np.float32)
ARRAYS = {
    "codec": {"params": {"encoder": {"kernel": MATRIX}, "decoder": {"kernel": MATRIX}}},
    "latents": {"mean": RNG.standard_normal(2000).astype(np.float32)},
    "target": {"order": np.arange(4000).reshape(2, 2000)},
}


@pytest.mark.parametrize(("bits", "error"), [(32, 0.0), (16, 2.0**-11), (8, 0.5 / 127)])
def test_no_entry_moves_more_than_half_a_step(bits, error):
    found = unpack(pack(ARRAYS, bits))
    kernel = found["codec"]["params"]["decoder"]["kernel"]
    assert kernel.dtype == np.float32
    # A half's step goes by the entry, a whole number's by the largest entry of its column.
    size = np.abs(MATRIX) if bits == 16 else np.abs(MATRIX).max(0)
    assert (np.abs(kernel - MATRIX) <= 1.001 * error * size + 1e-7).all()
    assert list(found["codec"]["params"]) == ["decoder"]
    np.testing.assert_array_equal(found["latents"]["mean"], ARRAYS["latents"]["mean"])
    np.testing.assert_array_equal(found["target"]["order"], ARRAYS["target"]["order"])


def test_columns_of_zeros_and_entries_beyond_a_halfs_range_stay():
    zeros, huge = np.zeros((64, 32), np.float32), np.full((64, 32), 1e6, np.float32)
    for bits in (8, 16):
        found = unpack(pack({"codec": {}, "a": zeros, "b": huge}, bits))
        np.testing.assert_array_equal(found["a"], zeros)
        np.testing.assert_allclose(found["b"], huge, rtol=1e-6)


def test_another_number_of_bits_is_refused():
    for bits in (4, 0, True, "16"):
        with pytest.raises(UserError, match="must be one of 8, 16, 32"):
            pack(ARRAYS, bits)


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_a_model_generates_the_same_as_far_as_bits_go(tmp_path, bits):
    whole = model.meta_model()
    whole.export(tmp_path / "whole")
    stored = MetaModel.restore(whole.export(tmp_path / "few", bits=bits), allow_functions=True)
    few, all_of_it = (
        (tmp_path / name / "arrays.safetensors").stat().st_size for name in ("few", "whole")
    )
    assert few < all_of_it
    support = model.support("grey")
    first, second = (m.generate(*support, samples=3, seed=1) for m in (whole, stored))
    apart = np.linalg.norm(first.weights - second.weights) / np.linalg.norm(first.weights)
    assert apart <= {32: 1e-6, 16: 2e-3, 8: 3e-2}[bits]
