"""Attention over neighbours is the same in each form of the pairs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.pairs import DensePairs, SegmentPairs, SparsePairs, neighbours
from flown_jax.encoders.relational_transformer import RelationalTransformerLayer
from flown_jax.errors import UserError
from flown_jax.weights.graphs import chain, topology
from tests.encoders.graphs import DEEP, apply, assert_close, distance, encoder, initial, networks
from tests.layers.helpers import quick_jit
from tests.weights import base_models

_RANDOM = np.random.default_rng(0)


def random_chain(seed):
    """A convolutional network of random widths, with a residual connection."""
    random = np.random.default_rng(seed)
    a, b = random.integers(1, 6, 2)
    shapes = [(a, 2, 3, 3), (b, a, 2, 2), (b, b, 1, 1), (b, b, 1, 1), (3, b)]
    return chain(shapes, residual=(-1, -1, -1, 1), flattening="as_conv")


def union(parts):
    """Senders, receivers and the number of nodes of graphs side by side."""
    sizes = [len(part.role) for part in parts]
    starts = np.cumsum([0, *sizes])
    ends = [
        np.concatenate([getattr(p, end) + s for p, s in zip(parts, starts[:-1], strict=True)])
        for end in ("senders", "receivers")
    ]
    return (*ends, int(starts[-1]))


def pairs_of(form, senders, receivers, count):
    if form == "dense":
        return DensePairs(senders, receivers, count, neighbours(senders, receivers, count))
    return {"sparse": SparsePairs, "segments": SegmentPairs}[form](senders, receivers, count)


def draws(*shape):
    return _RANDOM.normal(size=shape).astype(np.float32)


def test_of_small_base_models_and_of_chains_the_forms_are_the_same():
    """Side by side they are one graph, so that each form is compiled once."""
    names = ("cnn", "cnn_of_wide_maps", "mlp", "resnet12")
    parts = [topology(base_models.spec(name)) for name in names]
    ends = union([*parts, *(random_chain(seed) for seed in range(2))])
    layer = RelationalTransformerLayer(8, 2, 8, 6)
    x, edges, absent = draws(ends[2], 8), draws(len(ends[0]), 4), draws(4)
    few = draws(2, 8), draws(2, 2, 4), DensePairs((), (), 2)
    layers = [layer.init(jax.random.key(seed), *few) for seed in range(2)]
    given = layers, x, edges, absent, draws(*edges.shape)
    slopes = draws(*x.shape), draws(*edges.shape)

    def computed(form):
        pairs = pairs_of(form, *ends)

        def run(layers, x, edges, absent, backward):
            e = pairs.spread(edges, absent, backward)
            for own in layers:
                x, e = layer.apply(own, x, e, pairs)
            return x, pairs.edges(e)

        def both(given, slopes):
            out, back = jax.vjp(run, *given)
            return out, back(slopes)

        return jax.device_get(quick_jit(both)(given, slopes))

    expected = computed("sparse")
    for form in ("dense", "segments"):
        found = computed(form)
        assert_close(found[0], expected[0], 1e-5)
        for own, other in zip(found[1], expected[1], strict=True):
            assert_close(own, other, 1e-4)


def test_of_an_encoder_the_forms_are_the_same():
    """With features of reverse edges, which have pairs of their own."""
    w = networks(DEEP, 3)
    sizes = {"reverse_features": True, "d_out": None, "reference": False}
    sparse = encoder(DEEP, **sizes)
    variables = initial(sparse, w)
    expected = apply(sparse, variables, w)
    assert_close(
        apply(encoder(DEEP, form="dense", masked=True, **sizes), variables, w), expected, 1e-5
    )
    # Without the mask all nodes look at all.
    other = apply(encoder(DEEP, form="dense", **sizes), variables, w)
    assert distance(other, expected) > 1e-3


@pytest.mark.parametrize("form", ["dense", "sparse", "segments"])
def test_rows_columns_and_reverses(form):
    """By names: node i has the value i, the edge from i to j the value 10 i + j."""
    senders, receivers = np.array([0, 0, 1, 3]), np.array([1, 2, 3, 2])
    pairs = pairs_of(form, senders, receivers, 5)
    x, edges = jnp.arange(5.0)[:, None], (10.0 * senders + receivers)[:, None]
    spread = pairs.spread(edges, jnp.asarray([-1.0]), 100.0 + edges)
    np.testing.assert_array_equal(pairs.edges(spread), edges)
    np.testing.assert_array_equal(pairs.edges(pairs.reverse(spread)), 100.0 + edges)
    np.testing.assert_array_equal(pairs.reverse(pairs.reverse(spread)), spread)
    rows, columns = (
        jnp.broadcast_to(value, spread.shape) for value in (pairs.rows(x), pairs.columns(x))
    )
    np.testing.assert_array_equal(10.0 * pairs.edges(rows) + pairs.edges(columns), edges)
    np.testing.assert_array_equal(pairs.reverse(rows), columns)
    only = pairs.spread(edges, jnp.zeros(1))
    np.testing.assert_array_equal(pairs.total(only)[:, 0], [3.0, 13.0, 0.0, 32.0, 0.0])
    shares = pairs.softmax(jnp.log1p(jnp.abs(spread)))
    np.testing.assert_allclose(pairs.total(shares), 1.0, rtol=1e-6)
    # The last node has itself alone.
    assert float(pairs.total(shares * columns)[4, 0]) == pytest.approx(4.0)


def test_attention_of_large_logits_stays_finite():
    pairs = pairs_of("segments", np.array([0, 1]), np.array([1, 2]), 4)
    logits = 1e6 * draws(8, 2)
    value, slope = jax.value_and_grad(lambda x: (pairs.softmax(x) ** 2).sum())(logits)
    assert value > 0 and np.isfinite(slope).all()


def test_too_many_pairs_are_refused():
    with pytest.raises(UserError, match="^the graph has 5000 nodes, and its dense form 25000000 p"):
        DensePairs((), (), 5000)
