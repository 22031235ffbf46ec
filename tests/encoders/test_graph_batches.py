"""Graphs of mixed networks in one batch, padded and alone, and vectors in chunks."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from flown_jax.encoders.graph_pooling import POOLINGS, pool, pool_graphs
from flown_jax.encoders.losses import vae_loss, vae_loss_from_noise
from flown_jax.encoders.posterior import Posterior
from flown_jax.weights.graphs import chain, topology
from tests.encoders.graphs import (
    BACKBONES,
    DEEP,
    SMALL,
    apply,
    assert_close,
    assert_finite,
    encoder,
    initial,
    networks,
)
from tests.layers.helpers import quick_jit
from tests.weights import base_models

_RANDOM = np.random.default_rng(2)


def draws(*shape):
    return _RANDOM.normal(size=shape).astype(np.float32)


def without_edges():
    """Inputs and outputs, and nothing between them."""
    top = chain([(2, 3)])
    keep = np.zeros(0, np.int32)
    ends = {"senders": keep, "receivers": keep, "linear": keep.astype(bool)}
    return replace(top, **ends, edge_source=top.edge_source[:0])


ARCHITECTURES = [SMALL, DEEP, chain([(1, 3), (2, 1)]), chain([(2, 3)]), without_edges()]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_is_in_no_mean(backbone):
    """The graph without edges has empty segments."""
    graphs = jraph.batch([top.graph(networks(top, 1)[0]) for top in ARCHITECTURES])
    padded = jraph.pad_with_graphs(
        graphs, graphs.n_node.sum() + 7, graphs.n_edge.sum() + 5, len(ARCHITECTURES) + 3
    )
    module = encoder(DEEP, 8, backbone=backbone)
    variables = initial(module, networks(DEEP, 1))
    targets, noise, decoder = draws(8, 5), draws(8, 4), draws(4, 5)
    targets[5:] = noise[5:] = 1e3

    def loss(params, graphs, present):
        count = len(graphs.n_node)
        y = module.apply({**variables, "params": params}, graphs)
        return vae_loss_from_noise(
            lambda _: Posterior.from_moments(y),
            lambda z: z @ decoder,
            jnp.asarray(targets[:count]),
            jnp.asarray(noise[:count]),
            reconstruction="l1_sum_plus_1000mse",
            kl_weight=0.1,
            present=present,
        )[0]

    run = quick_jit(jax.value_and_grad(loss))
    expected = run(variables["params"], graphs, None)
    assert_finite(expected)
    found = run(variables["params"], padded, np.arange(8) < 5)
    for own, other in zip(found, expected, strict=True):
        assert_close(own, other, 1e-5)


@pytest.mark.parametrize("name", ["sse", "l1_sum", "mse", "l1_sum_plus_1000mse"])
def test_networks_that_are_not_present_do_not_count(name):
    w, moments = draws(4, 3), draws(4, 1, 4)
    w[2:], moments[2:] = 1e3, 5.0

    def loss(count, present):
        posterior = Posterior.from_moments(jnp.asarray(moments[:count]))
        settings = {"reconstruction": name, "kl_weight": 0.5, "present": present}
        decode, key = lambda z: jnp.zeros((count, 3)), jax.random.key(0)
        return vae_loss(lambda _: posterior, decode, key, jnp.asarray(w[:count]), **settings)[0]

    expected = loss(2, None)
    for present in (np.arange(4) < 2, (np.arange(4) < 2).astype(np.float32)):
        np.testing.assert_allclose(loss(4, jnp.asarray(present)), expected, rtol=1e-6)
    assert loss(4, None) > 2 * expected
    assert np.isfinite(loss(4, jnp.zeros(4)))


@pytest.mark.parametrize(
    ("name", "flattening", "backbone"),
    [("vit", "as_conv", "transformer"), ("cnn", "repeat_nodes", "pna")],
)
def test_graphs_of_one_topology_are_their_vectors(name, flattening, backbone):
    top = topology(base_models.spec(name), flattening=flattening)
    w = networks(top, 3)
    module = encoder(top, backbone=backbone, activations=True)
    variables = initial(module, w)
    graphs = jraph.batch([top.graph(each) for each in w])
    assert_close(apply(module, variables, graphs), apply(module, variables, w), 1e-5)


@pytest.mark.parametrize("pooling", [p for p in POOLINGS if p != "class_token"])
def test_pooling_is_of_each_graph(pooling):
    x, count = draws(3, len(DEEP.role), 4), len(DEEP.role)
    of, at = np.repeat(np.arange(3), count), jraph.batch([DEEP.graph(networks(DEEP, 1)[0])] * 3)
    named = type("At", (), {name: at.nodes[name] for name in ("role", "index")})
    found = pool_graphs(x.reshape(-1, 4), of, 3, named, pooling, 3, 2)
    np.testing.assert_allclose(found, pool(x, DEEP, pooling, 3), atol=1e-6)
