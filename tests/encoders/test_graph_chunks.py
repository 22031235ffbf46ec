"""Encoding a chunk of networks at a time changes the memory alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.encoders.graphs import BACKBONES, DEEP, SMALL, assert_close, encoder, initial, networks
from tests.layers.helpers import quick_jit

W = networks(DEEP, 5)


def value_and_slopes(module, variables):
    def loss(params, w):
        y = module.apply({**variables, "params": params}, w)
        return (y**2).sum(), y

    return jax.value_and_grad(loss, (0, 1), has_aux=True)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_chunks_are_all_at_once(backbone):
    whole = encoder(DEEP, backbone=backbone)
    variables = initial(whole, W)
    found, expected = (
        quick_jit(value_and_slopes(module, variables))(variables["params"], W)
        for module in (whole.clone(chunk=2), whole)
    )
    assert_close(found[0], expected[0], 1e-5)
    for own, other in zip(found[1], expected[1], strict=True):
        assert_close(own, other, 1e-5)


def test_they_are_initialised_and_fitted_alike():
    whole = encoder(SMALL)
    chunked, w = whole.clone(chunk=2), networks(SMALL, 5)
    starts = [quick_jit(module.init)(jax.random.key(0), w) for module in (whole, chunked)]
    jax.tree.map(np.testing.assert_array_equal, *starts)
    fitted = [module.fit(starts[0], w)["constants"] for module in (whole, chunked)]
    assert_close(fitted[1]["whitening"]["mean"], fitted[0]["whitening"]["mean"], 1e-5)
    assert_close(fitted[1]["whitening"]["std"], fitted[0]["whitening"]["std"], 1e-4)


def test_memory_is_that_of_a_chunk():
    sizes = []
    for chunk in (None, 8):
        module = encoder(SMALL, chunk=chunk, num_layers=3)
        w = networks(SMALL, 32)
        variables = initial(module, w)
        run = quick_jit(value_and_slopes(module, variables))
        compiled = run.lower(variables["params"], w).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.6 * sizes[0]
