"""Relational transformers, graph encoders and PNA against PyTorch's numbers."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.encoders.graph_encoder import GraphEncoder
from flown_jax.encoders.pairs import DensePairs
from flown_jax.encoders.pna import log_degree_of
from flown_jax.encoders.relational_transformer import RelationalTransformerLayer
from flown_jax.encoders.weight_transformer import WeightTransformer
from flown_jax.torch_import import convert
from flown_jax.weights.graphs import chain
from tests.layers.helpers import quick_jit
from tests.parity.fixtures import assert_close, load

EPS = 1e-6  # of what must not change at all but for float32


def case(values, prefix):
    """Entries of a case, without its prefix; of the main case those without any."""
    if prefix:
        return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return {k: v for k, v in values.items() if k.split(".")[0] not in _CASES}


_CASES = (
    *("plain", "b_alone", "a_alone", "mixed", "permuted", "ordered", "wild", "cls", "rev"),
    *("probe", "equi"),
)


def intermediates(module, variables, *args, **kwargs):
    """Output, and what was sown, the first of each name by its path."""

    @quick_jit
    def apply(variables, *args):
        return module.apply(variables, *args, mutable="intermediates", **kwargs)

    out, state = apply(variables, *args)
    flat = jax.tree_util.tree_leaves_with_path(state["intermediates"])
    return out, {".".join(str(k.key) for k in path[:-1]): leaf for path, leaf in flat}


@pytest.mark.parametrize("prefix", ["", "plain."])
def test_layer(source, prefix):
    fixture = load("rt_layer", source)
    config = fixture.config[prefix or "main"]
    module = RelationalTransformerLayer(
        config["d_attn_hid"],
        config["n_heads"],
        config["d_node_hid"],
        config["d_edge_hid"],
        softmax_scale="width",
        modulate=config["modulate_v"],
        layer_norm=config["use_ln"],
        edge_update=config["edge_updates"],
    )
    variables = convert("relational_transformer", case(fixture.params, prefix), config)
    pairs = DensePairs(np.zeros(0, int), np.zeros(0, int), config["n"])
    (node, edge), found = intermediates(
        module, variables, fixture.inputs["node"], fixture.inputs["edge"], pairs=pairs
    )
    found |= {"node": node, "edge": edge}
    ours = {
        "logits": found["logits"].transpose(0, 3, 1, 2),
        "attn": found["attention"].transpose(0, 3, 1, 2),
        "attn_out": found["attended"],
        "node_after_ln0": found["node_after_norm_0"],
        "node": node,
        "edge": edge,
        "edge_after_ln0": found.get("edge_after_norm_0"),
    }
    for name, expected in case(fixture.outputs, prefix).items():
        assert_close(ours[name], expected, 2e-6, name)


def test_another_softmax_scale_is_told_apart():
    fixture = load("rt_layer", "own")
    config = fixture.config["main"]
    sizes = [config[n] for n in ("d_attn_hid", "n_heads", "d_node_hid", "d_edge_hid")]
    module = RelationalTransformerLayer(*sizes, softmax_scale="head")
    variables = convert("relational_transformer", case(fixture.params, ""), config)
    pairs = DensePairs(np.zeros(0, int), np.zeros(0, int), config["n"])
    node, _ = module.apply(variables, fixture.inputs["node"], fixture.inputs["edge"], pairs)
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(node, fixture.outputs["node"], 2e-6)


def sizes(config):
    """Of a `GraphEncoder` with the original's settings."""
    return {
        "form": "dense",
        "node_dim": config.get("d_node", config.get("d_hid")),
        "edge_dim": config.get("d_edge", config.get("d_hid")),
        "attention_dim": config.get("d_attn_hid", 4),
        "num_heads": config.get("n_heads", 1),
        "num_layers": config["n_layers"],
        "node_hidden": config.get("d_node_hid", 1),
        "edge_hidden": config.get("d_edge_hid", 1),
        "softmax_scale": "width",
        "frequencies": config["sin_emb_dim"],
        "edge_levels": False,
        "head_activation": "relu",
        "skip": False,
        "reference": False,
        "pooling": "outputs",
        "d_out": config.get("d_out"),
    }


def cnn_topology(config, net, **more):
    return chain(
        [tuple(shape) for shape in config[net]],
        flattening=config["flattening"],
        order=more.pop("order", "published"),
        kernel=config["max_kernel"],
        linear_as_conv=config["linear_as_conv"],
        **more,
    )


def cnn_encoder(config, topology, **more):
    dims = (config["d_out_hid"],) * 2 if "d_out_hid" in config else (config["d_hid"],) * 2
    more = {"head_dims": dims, "levels": config["max_num_hidden_layers"], **more}
    positions = 0 if config["flattening"] is None else config["max_spatial_resolution"]
    return GraphEncoder(topology, positions=positions, **(sizes(config) | more))


def vector(inputs, net, count):
    """The weights of a chain in PyTorch's layout, one vector (D,)."""
    parts = [inputs[f"{net}.{i}.{kind}"].ravel() for i in range(count) for kind in _TENSORS]
    return np.concatenate(parts)


_TENSORS = ("weight", "bias")


def permuted(inputs, net, count, orders):
    """The same function with hidden units in another order: new unit u is old unit order[u]."""
    tensors = {k: v for k, v in inputs.items() if k.startswith(f"{net}.")}
    for layer in range(count - 1):
        order = orders[layer]
        weight, after = f"{net}.{layer}.weight", f"{net}.{layer + 1}.weight"
        tensors[weight] = tensors[weight][order]
        tensors[f"{net}.{layer}.bias"] = tensors[f"{net}.{layer}.bias"][order]
        value = tensors[after]
        blocks = value.reshape(value.shape[0], len(order), -1)[:, order]
        tensors[after] = blocks.reshape(value.shape)
    return tensors


class Encoders:
    """The CNN fixture's networks and what encodes them."""

    def __init__(self, source, name="graph_encoder_cnn", kind="graph_encoder"):
        self.fixture = load(name, source)
        self.config = self.fixture.config["main"]
        self.kind, self.count = kind, {n: len(self.config[f"net_{n}"]) for n in "ab"}
        self.variables = convert(kind, case(self.fixture.params, ""), self.config)

    def encoder(self, net, order="published", **more):
        return cnn_encoder(
            self.config, cnn_topology(self.config, f"net_{net}", order=order), **more
        )

    def vectors(self, *names):
        found = [vector(self.fixture.inputs, n, self.count[n[0]]) for n in names]
        return jnp.asarray(np.stack(found))

    def outputs(self, prefix=""):
        return case(self.fixture.outputs, prefix)


@functools.cache
def cnn(source):
    return Encoders(source)


def test_cnn_encoder(source):
    made = cnn(source)
    found = _encoded(made.encoder("a"), made.variables, made.vectors("a0", "a1"))
    _check(found, made.outputs(), 1e-5, skip=("a0.", "b."))


def test_cnn_of_other_layers(source):
    made = cnn(source)
    found = _encoded(made.encoder("b"), made.variables, made.vectors("b"))
    _check(found, made.outputs("b_alone."), 1e-5)


def test_units_in_another_order(source):
    """The published order of repeated nodes sees it, the corrected one does not."""
    made = cnn(source)
    count, inputs = made.count["a"], made.fixture.inputs
    orders = [inputs[f"a0_permutation.{layer}"] for layer in range(count - 1)]
    other = jnp.asarray(vector(permuted(inputs, "a0", count, orders), "a0", count))[None]
    found = _encoded(made.encoder("a"), made.variables, other)
    _check(found, made.outputs("permuted."), 1e-5)
    corrected = made.encoder("a", "corrected")
    found = _encoded(corrected, made.variables, made.vectors("a0", "a1"))
    _check(found, made.outputs("ordered."), 1e-5)
    same = corrected.apply(made.variables, other)
    assert_close(same, found["output"][:1], EPS, "permuted, in the corrected order")


def test_published_padding_takes_part(source):
    """A graph beside a larger one is another to the published encoder: padding is attended to."""
    made = cnn(source)
    expected, variables = made.outputs("mixed."), made.variables
    mask, pooled = expected["node_mask"], []
    size = mask.shape[1]
    for row, (net, name) in enumerate((("a", "a0"), ("b", "b"))):
        encoder = made.encoder(net)
        _, own = intermediates(encoder, variables, made.vectors(name))
        count = own["node_in"].shape[1]
        x = jnp.asarray(expected["node_in"][row])[None]
        assert_close(x[:, :count], own["node_in"], 1e-5, "node_in")

        def run(m, x=x, own=own, count=count):
            e = jnp.broadcast_to(
                m.embed.absent(m.topology.edge_source.shape[1]), (1, size, size, m.edge_dim)
            )
            e = e.at[:, :count, :count].set(own["edge_in"])
            for layer in m.layers:
                x, e = layer(x, e, DensePairs((), (), size))
            return x

        x = encoder.apply(variables, method=run)
        outputs = np.flatnonzero(encoder.topology.role == 2)
        pooled.append(x[:, outputs].reshape(1, -1))
    assert_close(jnp.concatenate(pooled), expected["pooled"], 1e-5, "pooled")


def test_residual_connections_and_activations(source):
    fixture = load("graph_encoder_cnn", source)
    config = fixture.config["wild."]
    top = chain(
        [tuple(shape) for shape in config["net"]],
        kernel=config["max_kernel"],
        flattening=config["flattening"],
        order="published",
        linear_as_conv=config["linear_as_conv"],
        residual=tuple(config["residual_connections"]),
        activations=tuple(config["activations"]),
    )
    encoder = cnn_encoder(config, top, activations=True, pooling="mean_outputs")
    variables = convert("graph_encoder", case(fixture.params, "wild."), config)
    w = vector(case(fixture.inputs, "wild."), "net", len(config["net"]))
    found = _encoded(encoder, variables, jnp.asarray(w)[None])
    _check(found, case(fixture.outputs, "wild."), 1e-5, skip=("net.",))


class Perceptrons:
    """A case of the MLP fixture."""

    def __init__(self, source, prefix, **more):
        self.fixture = load("graph_encoder_mlp", source)
        self.config = config = self.fixture.config[prefix or "main"]
        layout, self.prefix = config["layout"], prefix
        shapes = [(b, a) for a, b in itertools.pairwise(layout)]
        self.topology = chain(shapes, kernel=1)
        dims = (config["d_out_hid"],)
        self.encoder = GraphEncoder(self.topology, head_dims=dims, **(sizes(config) | more))
        self.variables = convert("graph_encoder", case(self.fixture.params, prefix), config)
        own = case(self.fixture.inputs, prefix)
        inputs = own or case(self.fixture.inputs, "")
        stats, parts = config.get("stats"), []
        for layer in range(len(shapes)):
            for kind, plural in (("weight", "weights"), ("bias", "biases")):
                value = inputs[f"{kind}.{layer}"][..., 0]
                if stats:
                    value = (value - stats[f"{plural}_mean"][layer]) / stats[f"{plural}_std"][layer]
                value = np.swapaxes(value, 1, 2) if kind == "weight" else value
                parts.append(value.reshape(len(value), -1))
        self.vectors = jnp.asarray(np.concatenate(parts, 1), jnp.float32)

    def check(self, tolerance, **more):
        found = _encoded(self.encoder, self.variables, self.vectors)
        outputs = case(self.fixture.outputs, self.prefix)
        if "node_raw" in outputs:
            nodes, edges = self.topology.features(self.vectors)
            dense = np.zeros(outputs["edge_raw"].shape, np.float32)
            dense[:, self.topology.senders, self.topology.receivers] = edges
            found |= {"node_raw": nodes, "edge_raw": dense}
        _check(found, outputs, tolerance, **more)


def test_perceptrons(source):
    Perceptrons(source, "").check(1e-5)


def test_class_token(source):
    Perceptrons(source, "cls.", pooling="class_token").check(1e-5)


def test_features_of_reverse_edges(source):
    Perceptrons(source, "rev.", reverse_features=True, pooling="mean", last_edge_update=True).check(
        1e-5
    )


def test_probe_features(source):
    count = load("graph_encoder_mlp", source).config["probe."]["num_probe_features"]
    Perceptrons(source, "probe.", probes=count).check(2e-5)


def test_equivariant_network(source):
    made = Perceptrons(source, "equi.", d_out=None, last_edge_update=True)
    config, top = made.config, made.topology
    layers = range(len(config["layout"]) - 1)

    def of_layer(kind):
        """(D,) of numbers of each layer's weights and biases."""
        sizes = [config["layout"][i] * config["layout"][i + 1] for i in layers]
        parts = []
        for i in layers:
            parts.append(np.full(sizes[i], config["stats"][f"weights_{kind}"][i]))
            parts.append(np.full(config["layout"][i + 1], config["stats"][f"biases_{kind}"][i]))
        return jnp.asarray(np.concatenate(parts), jnp.float32)

    normal = (of_layer("mean"), of_layer("std")) if config["normalize"] else (0.0, 1.0)
    out = WeightTransformer(made.encoder).apply(made.variables, made.vectors, *normal)
    nodes, edges = top.features(out)
    start, place = 0, config["layout"][0]
    for i in layers:
        a, b = config["layout"][i : i + 2]
        weight = edges[:, start : start + a * b].reshape(-1, a, b, 1)
        assert_close(weight, made.fixture.outputs[f"equi.weight.{i}"], 1e-5, f"weight {i}")
        bias = nodes[:, place : place + b]
        assert_close(bias, made.fixture.outputs[f"equi.bias.{i}"], 1e-5, f"bias {i}")
        start, place = start + a * b, place + b


class OnPNA(Encoders):
    def __init__(self, source):
        super().__init__(source, "pna_encoder", "pna")

    def encoder(self, net, **more):
        delta = log_degree_of(self.config["deg"])
        more = {"backbone": "pna", "delta": delta, **more}
        return super().encoder(net, **more)


def pna_outputs(found):
    """Without the names of modules in front."""
    found = {
        name.removeprefix("gnn.").replace("normed", "norm"): value for name, value in found.items()
    }
    last = max(int(name.split("_")[1]) for name in found if name.startswith("conv_"))
    return found | {"node_out": found[f"conv_{last}"]}


@pytest.mark.parametrize("net", ["a", "b"])
def test_pna_of_one_graph(source, net):
    made = OnPNA(source)
    found = _encoded(made.encoder(net), made.variables, made.vectors(net))
    _check(pna_outputs(found), made.outputs(f"{net}_alone."), 3e-5)


def test_pna_normalised_over_a_batch(source):
    import jraph

    made = OnPNA(source)
    graphs = [made.encoder(n).topology.graph(made.vectors(n)[0]) for n in "ab"]
    # The reference orders a graph's edges by row; so does a topology.
    batch = jraph.batch(graphs)
    found = _encoded(made.encoder("b", batch_norm=True), made.variables, batch)
    _check(pna_outputs(found), made.outputs(), 3e-5, skip=("a.", "node_in", "edge_in"))


def test_pna_with_reverse_edges(source):
    made = OnPNA(source)
    encoder = made.encoder("a", reverse_features=True)
    variables = convert("pna", case(made.fixture.params, "rev."), made.config)
    found = _encoded(encoder, variables, made.vectors("a"))
    _check(pna_outputs(found), made.outputs("rev."), 3e-5, skip=("edge_in",))


def _encoded(encoder, variables, x):
    out, found = intermediates(encoder, variables, x)
    if encoder.d_out is not None:
        found["output"] = out
    return {name.removeprefix("probe."): value for name, value in found.items()}


def _check(found, expected, tolerance, skip=()):
    compared = 0
    for name, value in expected.items():
        if not name.startswith(skip or ("\0",)):
            assert_close(found[name], value, tolerance, name)
            compared += 1
    assert compared
