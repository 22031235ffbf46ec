"""Networks as graphs: exact inverses, sizes, where kernels stand, parts, chains, refusals."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from flax import linen as nn

from flown_jax.errors import UserError
from flown_jax.models import ResNet18, cnn_medium, cnn_small, last_norms
from flown_jax.weights.graphs import chain, counts, pairs, topology
from flown_jax.weights.spec import Entry, WeightSpec
from tests.layers.helpers import quick_jit
from tests.weights import base_models

FORMS = [
    {},
    {"linear_as_conv": False},
    {"flattening": "repeat_nodes", "kernel": 8},
    {"flattening": "repeat_nodes", "order": "published", "linear_as_conv": False},
]


def vectors(size: int, count: int = 2) -> jax.Array:
    return jnp.asarray(np.random.default_rng(size).normal(size=(count, size)), jnp.float32)


@pytest.mark.parametrize("name", base_models.MODELS)
def test_the_way_back_is_exact(name):
    _, variables, _ = base_models.random(name)
    for collections in {tuple(variables), *((each,) for each in variables)}:
        spec = base_models.spec(name, collections)
        w = spec.flatten(variables)
        many = jnp.stack([w, 1 - w, w * w])
        for form in FORMS if "cnn" in name else FORMS[:2]:
            found = topology(spec, **form)
            leading, mapped, graph = quick_jit(functools.partial(ways, found))(many)
            np.testing.assert_array_equal(leading, many)
            np.testing.assert_array_equal(mapped, many)
            np.testing.assert_array_equal(found.from_graph(graph), w)


def ways(found, many):
    """There and back with a leading axis and mapped, and the graph of the first."""

    def one(w):
        return found.weights(*found.features(w))

    return one(many), jax.vmap(one)(many), found.graph(many[0])


@pytest.mark.parametrize("name", base_models.MODELS)
def test_arrays_fit_together(name):
    found = topology(base_models.spec(name))
    keys = found.senders.astype(np.int64) * len(found.role) + found.receivers
    assert (np.diff(keys) > 0).all()
    assert [a.dtype for a in (found.node_source, found.edge_source, found.senders)] == ["int32"] * 3
    assert found.edge_source.shape[1] == np.sqrt(found.edge_source.shape[1]).round() ** 2
    start = level = 0
    for group in found.groups:
        part = slice(start, start + group.size)
        assert group.start == start
        assert (found.role[part] == ("input", "hidden", "output").index(group.role)).all()
        hidden = group.role == "hidden"
        assert (found.index[part] == (level if hidden else np.arange(group.size))).all()
        assert group.level == level * hidden
        assert ((found.activation[part] >= 0) == hidden).all()
        start, level = start + group.size, level + hidden
    assert start == len(found.role)
    assert topology(base_models.spec(name)) is found  # made once


@pytest.mark.parametrize(
    "module, side, channels, flattening, n, edges, work",
    [
        (cnn_small(), 28, 1, "repeat_nodes", 81, 1192, 2465),
        (cnn_small(), 28, 3, "repeat_nodes", 83, 1208, 2499),
        (cnn_medium(), 32, 1, "repeat_nodes", 139, 3848, 7835),
        (cnn_medium(), 32, 3, "repeat_nodes", 141, 3880, 7901),
        (cnn_medium(num_classes=100), 32, 3, "repeat_nodes", 231, 5680, 11591),
        (cnn_small(), 28, 1, "as_conv", 49, 360, 769),
        (cnn_small(), 28, 3, "as_conv", 51, 376, 803),
        (cnn_medium(), 32, 3, "as_conv", 96, 1540, 3176),
    ],
)
def test_published_sizes(module, side, channels, flattening, n, edges, work):
    images = jnp.zeros((1, side, side, channels))
    spec = WeightSpec.from_module(module, jax.eval_shape(module.init, jax.random.key(0), images))
    found = topology(spec, flattening=flattening)
    assert (len(found.role), len(found.senders), pairs(found)) == (n, edges, work)
    assert counts(found) == {
        "weights": spec.size,
        "nodes": n,
        "edges": edges,
        "pairs": work,
        "dense_pairs": n * n,
    }
    repeated = found.spatial >= 0
    assert repeated.any() == (flattening == "repeat_nodes")
    assert (found.node_source[repeated] > 1).all()


def test_kernels_stand_in_the_middle_and_linear_weights_where_asked():
    w = jnp.arange(1.0, 1 + 2 * 6 + 2 + 2 * 12 + 2)
    # A 2x3 kernel in 5x5: one row before and two behind, one column on each side.
    found = chain([(2, 1, 2, 3), (2, 12)], kernel=5, flattening="as_conv")
    nodes, edges = found.features(w)
    padded = np.zeros((5, 5))
    padded[1:3, 1:4] = np.arange(1, 7).reshape(2, 3)
    np.testing.assert_array_equal(edges[0].reshape(5, 5), padded)
    # Six positions are no square: row by row from feature 0.
    assert found.senders.tolist()[2:4] == [1, 1] and found.receivers.tolist()[2:4] == [3, 4]
    np.testing.assert_array_equal(edges[2], [*range(15, 21), *[0] * 19])
    np.testing.assert_array_equal(nodes[:, 0], [0, 13, 14, 39, 40])
    # Of four positions a 2x2 kernel; the last layer's weights alone, in feature 0 and flagged.
    shapes = [(2, 1, 3, 3), (2, 8), (1, 2)]
    w = jnp.arange(1.0, 1 + 18 + 2 + 16 + 2 + 2 + 1)
    for conv, at in ((True, 4), (False, 0)):
        found = chain(shapes, flattening="as_conv", linear_as_conv=conv)
        _, edges = found.features(w)
        np.testing.assert_array_equal(edges[2], [21, 22, 0, 23, 24, *[0] * 4])
        assert edges[-1, at] == 40 and (edges[-1] != 0).sum() == 1
        assert found.linear.tolist() == [False] * 6 + [not conv] * 2


def test_repeated_nodes_have_pytorchs_weights_unless_published():
    shapes = [(2, 1, 1, 1), (1, 2 * 3)]
    w = jnp.arange(1.0, 1 + 4 + 7)
    for order, expected in (("corrected", [5, 8, 6, 9, 7, 10]), ("published", range(5, 11))):
        found = chain(shapes, flattening="repeat_nodes", order=order)
        nodes, edges = found.features(w)
        np.testing.assert_array_equal(nodes[:, 0], [0, 3, 4, 3, 4, 3, 4, 11])
        np.testing.assert_array_equal(edges[6:, 0], list(expected))
        assert found.spatial.tolist() == [-1, 0, 0, 1, 1, 2, 2, -1]
        np.testing.assert_array_equal(found.weights(nodes, edges), w)


def test_residual_connections_reach_all_copies_unless_published():
    shapes = [(2, 1, 3, 3), (3, 2, 3, 3), (2, 3, 3, 3), (1, 2 * 3)]
    for order, copies in (("corrected", 3), ("published", 1)):
        found = chain(shapes, flattening="repeat_nodes", order=order, residual=(-1, -1, 0))
        ones = found.edge_source[:, 4] == 1
        assert found.senders[ones].tolist() == sorted([1, 2] * copies)
        receivers = found.receivers[ones].reshape(2, copies)
        np.testing.assert_array_equal(receivers[0], 6 + 2 * np.arange(copies))
        np.testing.assert_array_equal(receivers[1], 7 + 2 * np.arange(copies))
    wider = [(2, 1, 3, 3), (3, 2, 3, 3), (4, 3, 3, 3), (1, 4)]
    with pytest.raises(
        UserError, match="connection to layer 2 adds 2 channels to 4: unequal widths"
    ):
        chain(wider, residual=(-1, -1, 0))
    with pytest.raises(UserError, match="must pass over a layer"):
        chain([(2, 1, 3, 3), (2, 2, 3, 3), (1, 2)], residual=(-1, 0))


def test_graphs_can_be_batched_and_padded():
    found, other = (topology(base_models.spec(name)) for name in ("resnet18", "mlp"))
    (w,), (v,) = vectors(found.size, 1), vectors(other.size, 1)
    graph = found.graph(w)
    assert graph.globals is None and set(graph.edges) == {"features", "linear"}
    assert set(graph.nodes) == {"features", "role", "index", "spatial", "activation"}
    batch = jraph.batch([graph, found.graph(2 * w)])
    padded = jraph.pad_with_graphs(batch, 1024, 4096, 4)
    first, second, *_ = jraph.unbatch(padded)
    np.testing.assert_array_equal(found.from_graph(second), 2 * w)
    np.testing.assert_array_equal(found.from_graph(first), w)
    np.testing.assert_array_equal(found.from_graph(padded), w)
    with pytest.raises(UserError, match="the node features of this network"):
        found.from_graph(other.graph(v))
    with pytest.raises(UserError, match=r"has \d+ values, not shape \(3,\)"):
        found.features(w[:3])


def test_a_whole_resnet_has_the_published_size():
    module = ResNet18()
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    spec = WeightSpec.from_module(module, shapes)
    found = topology.__wrapped__(spec)  # not kept
    assert (spec.size, len(found.role), len(found.senders)) == (11_173_962, 9_613, 1_404_672)
    flat = np.concatenate([found.node_source.reshape(-1), found.edge_source.reshape(-1)])
    np.testing.assert_array_equal(flat[found.places], np.arange(2, 2 + spec.size))


def part(name: str, *wanted: str) -> WeightSpec:
    return base_models.spec(name, ("params",)).subset(lambda n: n.startswith(wanted))


def test_parts_have_what_their_tensors_touch():
    module, *_ = base_models.random("resnet18")
    norms = last_norms("resnet18", module)
    found = topology(part("resnet18", *norms))
    assert [(g.name, g.size, g.level) for g in found.groups] == [
        (f"layer4.1.{name}", 16, i) for i, name in enumerate(("conv1", "bn1", "conv2", "bn2"))
    ]
    assert found.tied == ((0, 1), (2, 3)) and len(found.senders) == 32
    assert found.edge_source.shape == (32, 1) and set(found.role.tolist()) == {1}
    # A sum stays where both of its summands are in the part.
    found = topology(part("resnet18", "layer4.0.bn2", "layer4.1.bn2"))
    assert len(found.groups) == 4 and len(found.senders) == 16 * 3
    assert [g.role for g in topology(part("resnet18", "linear")).groups] == ["hidden", "output"]
    found = topology(part("resnet18", "linear.bias"))
    assert [g.name for g in found.groups] == ["linear"] and found.senders.shape == (0,)
    np.testing.assert_array_equal(found.from_graph(found.graph(vectors(3)[0])), vectors(3)[0])
    found = topology(part("cnn", "module_list.5", "module_list.6"))
    assert [g.role for g in found.groups] == ["hidden", "hidden"]


@pytest.mark.parametrize("name", base_models.MODELS)
def test_the_way_back_is_exact_for_single_tensors(name):
    whole = base_models.spec(name)
    for entry in [*whole.entries[:12], *whole.entries[-4:]]:
        spec = whole.subset(lambda n, entry=entry: n == entry.name)
        found = topology.__wrapped__(spec, flattening="repeat_nodes")
        w = np.arange(2, 2 + spec.size, dtype=np.int32)
        flat = np.concatenate([found.node_source.reshape(-1), found.edge_source.reshape(-1)])
        np.testing.assert_array_equal(flat[found.places], w)


def unregistered(*shapes: tuple[str, tuple[int, ...]]) -> WeightSpec:
    return WeightSpec(tuple(Entry(name, f"params/{name}", shape) for name, shape in shapes))


def test_other_modules_are_read_as_chains():
    spec = unregistered(
        ("0.weight", (4, 3, 3, 3)),
        ("1.weight", (4,)),
        ("1.bias", (4,)),
        ("1.running_mean", (4,)),
        ("2.weight", (2, 4, 2, 2)),
        ("2.bias", (2,)),
        ("4.weight", (3, 8)),
        ("4.bias", (3,)),
    )
    (w,) = vectors(spec.size, 1)
    for flattening, nodes in (("as_conv", 3 + 4 + 4 + 2 + 3), ("repeat_nodes", 22)):
        found = topology(spec, flattening=flattening)
        assert len(found.role) == nodes and set(found.activation.tolist()) == {-1}
        assert [g.name for g in found.groups] == ["input", "0", "1", "2", "4"]
        assert found.tied == ((1, 2),)
        np.testing.assert_array_equal(found.weights(*found.features(w)), w)
    head = topology(unregistered(("weight", (5, 7)), ("bias", (5,))))
    assert [(g.size, g.role) for g in head.groups] == [(7, "input"), (5, "output")]
    module = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(2)])
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 3)))
    found = topology(WeightSpec.from_module(module, variables))
    assert [g.size for g in found.groups] == [3, 4, 4, 2]


FIRST = ("0.weight", (8, 3, 3, 3))


@pytest.mark.parametrize(
    "rest, options, sentence",
    [
        ([("1.weight", (8, 4, 3, 3))], {}, "1 .*kernel takes 4 of 8 channels.*grouped"),
        ([("1.weight", (6, 12, 1, 1))], {}, "1 .*kernel takes 12 channels.*gives 8.*branches"),
        ([("1.weight", (7,))], {}, "1 has 7 values, where the layer before it has 8 units"),
        ([("1.weight", (2, 12))], {}, "1 takes 12 inputs, where the layer before it gives 8"),
        ([("1.weight", (2, 16))], {"flattening": None}, "1 takes 16 inputs, maps of 8 channels"),
        ([("1.weight", (8, 8, 3))], {}, r"1.weight has shape \(8, 8, 3\)"),
        ([("1.bias", (8,))], {}, "1.weight is absent"),
        ([("1.embedding", (8, 2))], {}, "1.embedding is no tensor of a layer"),
        ([("1.weight", (2, 8))], {"kernel": 2}, "0 needs 3x3 features, more than .* 2x2"),
        ([("1.weight", (2, 8 * 7))], {"kernel": 3, "flattening": "repeat_nodes"}, None),
        ([("1.weight", (2, 8 * 10))], {"kernel": 3}, "1 needs 4x4 features"),
        ([("1.weight", (2, 8))], {"flattening": "extra_layer"}, "'extra_layer' is unknown"),
        ([("1.weight", (2, 8))], {"order": "torch"}, "order 'torch' is unknown"),
        ([("1.weight", (2, 8)), ("1.bias", (3,))], {}, "1 has 2 units and a vector of 3 values"),
    ],
)
def test_what_does_not_chain_is_refused_by_name(rest, options, sentence):
    build = functools.partial(topology, unregistered(FIRST, *rest), **options)
    if sentence is None:
        build()
    else:
        with pytest.raises(UserError, match=sentence):
            build()


def test_a_graph_that_is_too_large_is_refused_before_it_is_made():
    with pytest.raises(UserError, match="take a part of it"):
        chain([(300, 300), (3, 300)], kernel=200)
    with pytest.raises(UserError, match="residual must have one entry for each of 1 hidden"):
        chain([(2, 2), (3, 2)], residual=(-1, -1))
    with pytest.raises(UserError, match="activation 'sine' of layer 0 is unknown to graphs"):
        chain([(2, 2), (3, 2)], activations=["sine"])
