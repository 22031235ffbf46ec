"""Units that change places in what goes in change places in what comes out."""

from __future__ import annotations

import numpy as np

from flown_jax.encoders.weight_transformer import WeightTransformer
from flown_jax.weights.graph_symmetries import permuted, random_permutations
from flown_jax.weights.graphs import topology
from tests.encoders.graphs import apply, assert_close, distance, encoder, initial, networks
from tests.weights import base_models


def test_it_is_equivariant():
    top = topology(base_models.spec("cnn"))
    orders = random_permutations(top, np.random.default_rng(0))
    w = networks(top, 2)
    module = WeightTransformer(encoder(top, None, last_edge_update=True, reference=False))
    variables = initial(module, w)
    other = np.asarray(permuted(top, w, orders))
    found = np.asarray(apply(module, variables, np.concatenate([w, other])))
    assert_close(found[2:], np.asarray(permuted(top, found[:2], orders)), 1e-5)
    assert distance(found[2:], found[:2]) > 1e-2
