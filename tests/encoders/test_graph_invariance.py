"""The order of hidden units changes nothing that an encoder of graphs says; all else does."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.graph_autoencoder import GraphAutoencoder
from flown_jax.encoders.token_vae import MLPVAE
from flown_jax.weights.graph_symmetries import permuted, random_permutations
from flown_jax.weights.graphs import topology
from tests.encoders.graphs import BACKBONES, SIZES, assert_close, distance, initial, networks
from tests.layers.helpers import quick_jit
from tests.weights import base_models

CASES = [(name, "as_conv") for name in base_models.MODELS]
CASES += [("cnn", "repeat_nodes"), ("cnn_of_wide_maps", "repeat_nodes")]
# The gathering of messages knows nothing of a network's parts: PNA is tried on three of them.
CASES = [(*case, BACKBONES[0]) for case in CASES]
CASES += [("cnn", "as_conv", "pna"), ("mlp", "as_conv", "pna"), ("vit", "as_conv", "pna")]
RANDOM = np.random.default_rng(5)


def of_role(found, role):
    """A permutation of the inputs or outputs, and of what is tied to them; {} of one unit."""
    every = replace(found, groups=tuple(replace(g, role="hidden") for g in found.groups))
    numbers = {i for i, group in enumerate(found.groups) if group.role == role}
    for tied in found.tied:
        numbers |= set(tied) if numbers & set(tied) else set()
    orders = random_permutations(every, RANDOM)
    while all(np.array_equal(orders[i], np.arange(len(orders[i]))) for i in numbers):
        if all(len(orders[i]) == 1 for i in numbers):
            return every, {}
        orders = random_permutations(every, RANDOM)
    return every, {i: order for i, order in orders.items() if i in numbers}


def redrawn(spec, w):
    """Another matrix in the middle of the network."""
    matrices = [part for name, part in spec.slices.items() if name.endswith("weight")]
    matrices = [part for part in matrices if part.stop - part.start > 1]
    part, other = matrices[len(matrices) // 2], np.array(w)
    other[part] = RANDOM.normal(size=part.stop - part.start)
    return other


def rows_of(found, spec, w):
    """The network, itself in two other orders, and networks that are none of it."""
    rows = [w] + [permuted(found, w, random_permutations(found, RANDOM)) for _ in range(2)]
    assert np.mean(np.asarray(rows[1]) != np.asarray(w)) > 0.3
    rows += [redrawn(spec, w)]
    for role in ("input", "output"):
        every, orders = of_role(found, role)
        rows += [permuted(every, w, orders)] if orders else []
    return jnp.stack([jnp.asarray(row, w.dtype) for row in rows])


def check(name, flattening, backbone, dtype, tolerances):
    """Before and after statistics are taken of a zoo."""
    spec = base_models.spec(name)
    found = topology(spec, flattening=flattening)
    if flattening == "repeat_nodes":
        assert found.spatial.max() > 0
    graph = {**SIZES, "backbone": backbone, "flattening": flattening, "dtype": dtype}
    codec = GraphAutoencoder(spec, MLPVAE(spec.size, (2, 2, 1), 4), tuple(graph.items()))
    zoo = networks(found, 4).astype(dtype)
    rows, variables = rows_of(found, spec, zoo[0]), initial(codec, zoo)

    @quick_jit
    def moments(variables, w):
        posterior = codec.apply(variables, w, method="encode")
        return jnp.concatenate([posterior.mean, posterior.logvar], -1)

    for own, tolerance in zip((variables, codec.fit(variables, zoo)), tolerances, strict=True):
        first, *others = moments(own, rows)
        for other in others[:2]:
            assert_close(other, first, tolerance)
        for other in others[2:]:
            assert distance(other, first) > 1e-3


@pytest.mark.parametrize(("name", "flattening", "backbone"), CASES)
def test_the_latent_knows_no_order_of_hidden_units(name, flattening, backbone):
    """In float64, where the whitening's gain leaves rounding errors small."""
    with jax.enable_x64(True):
        check(name, flattening, backbone, jnp.float64, (1e-10, 1e-9))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_in_float32_what_is_left_is_rounding(backbone):
    """Fitted, features that differ by thousandths count as much as others, and so do errors."""
    check("cnn", "repeat_nodes", backbone, jnp.float32, (1e-5, 1e-3))
