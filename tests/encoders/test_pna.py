"""Principal neighbourhood aggregation: whom a graph's output depends on."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flown_jax.encoders.pna import PNA, log_degree
from tests.encoders.graphs import assert_finite, distance
from tests.layers.helpers import quick_jit

SENDERS, RECEIVERS = np.array([0, 1, 2, 4, 4]), np.array([2, 2, 3, 5, 6])
GRAPH = np.array([0, 0, 0, 0, 1, 1, 1])
RANDOM = np.random.default_rng(0)
X, E = (RANDOM.normal(size=(n, 4)).astype(np.float32) for n in (7, 5))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_normalised_by_graph_a_graph_does_not_know_its_neighbour(batch_norm):
    module = PNA(4, 2, log_degree([0, 1, 2]), batch_norm=batch_norm)

    def outputs(v, x):
        return module.apply(v, x, E, SENDERS, RECEIVERS, GRAPH, 2)

    variables = quick_jit(module.init, static_argnums=6)(
        jax.random.key(0), X, E, SENDERS, RECEIVERS, GRAPH, 2
    )
    run = quick_jit(outputs)
    other = X.copy()
    other[4:] *= 3
    first, second = run(variables, X)[:4], run(variables, other)[:4]
    assert (distance(second, first) > 1e-3) == batch_norm
    if not batch_norm:
        np.testing.assert_allclose(second, first, atol=1e-6)
        # Nodes that are all alike have no variance, those without edges no message.
        slopes = quick_jit(jax.grad(lambda v, x: (outputs(v, x) ** 2).sum(), (0, 1)))
        assert_finite(slopes(variables, np.zeros_like(X)))
        zeros = jax.tree.map(np.zeros_like, variables)
        assert_finite(slopes(zeros, X))


def test_a_graph_without_edges_has_a_degree_to_divide_by():
    assert log_degree([0, 0]) == 1.0
    assert log_degree([1, 3]) == pytest.approx(np.log(8) / 2)
