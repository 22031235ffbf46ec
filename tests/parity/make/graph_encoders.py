"""The graph encoder of networks: one layer, CNNs, MLPs, and principal neighbourhood aggregation.

Sources: as in `graphs`; Sitzmann et al. 2020 (networks of sines, whose activations on learned
inputs are features of their nodes); Corso et al. 2020 (aggregators and scalers).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.parity.make import graphs
from tests.parity.make.blocks import (
    Case,
    Made,
    Shapes,
    State,
    arrays,
    drawn,
    kernel,
    layer_norm,
    linear,
    norm,
    tensors,
)

Config = dict[str, Any]
Arrays = dict[str, np.ndarray]
_LAYER: Config = {"B": 2, "n": 4, "d_node": 8, "d_edge": 6, "d_attn_hid": 6, "d_node_hid": 5}
_LAYER |= {"d_edge_hid": 7, "n_heads": 2, "modulate_v": True, "use_ln": True, "edge_updates": True}
_PLAIN = _LAYER | {"modulate_v": False, "use_ln": False, "edge_updates": False}
_CHAIN: Config = {
    "input_channels": 1,
    "num_classes": 2,
    "max_kernel": 3,
    "max_spatial_resolution": 5,
    "max_num_hidden_layers": 5,
    "flattening": "repeat_nodes",
    "linear_as_conv": False,
    "sin_emb_dim": 3,
    "inp_factor": 1,
}
_WIDTHS: Config = {"d_node": 6, "d_edge": 4, "d_attn_hid": 6, "d_node_hid": 5, "d_edge_hid": 7}
_WIDTHS |= {"d_out_hid": 6, "d_out": 4, "n_layers": 3, "n_heads": 2}
_NETS: Config = {
    "net_a": [[2, 1, 3, 3], [2, 2, 2, 2], [2, 8], [2, 2]],
    "net_b": [[2, 1, 3, 3], [3, 2, 3, 3], [2, 3, 2, 2], [3, 8], [2, 3]],
}
_WILD = _CHAIN | _WIDTHS | {"max_kernel": 5, "flattening": None, "linear_as_conv": True}
_WILD |= {"net": [[2, 1, 3, 3], [2, 2, 5, 5], [3, 2, 3, 3], [2, 3]]}
_WILD |= {"residual_connections": [-1, -1, 0], "activations": ["gelu", "relu", "tanh"]}
_WILD |= {"pooling": "mean over the output nodes"}
CNN: Config = {"main": _CHAIN | _WIDTHS | _NETS | {"n_layers": 2}, "wild.": _WILD}


def part(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """What stands below a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def below(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """The same, below a prefix."""
    return {f"{prefix}{k}": v for k, v in values.items()}


def rt_layer(state: Arrays, given: Arrays, config: Config) -> dict[str, Tensor]:
    """Outputs of both cases."""
    found: dict[str, Tensor] = {}
    x = tensors(given)
    for case, prefix in (("main", ""), ("plain.", "plain.")):
        c = config[case]
        options = {"modulate": c["modulate_v"], "norms": c["use_ln"], "update": c["edge_updates"]}
        p = tensors(state, prefix)
        made = graphs.layer(p, "", x["node"], x["edge"], c["n_heads"], **options)
        found |= below(prefix, made)
    return found


def _rt_layer(state: Arrays) -> Made:
    rng, c = np.random.RandomState(81), _LAYER
    given = arrays(
        node=drawn(rng, c["B"], c["n"], c["d_node"]),
        edge=drawn(rng, c["B"], c["n"], c["n"], c["d_edge"]),
    )
    config = {"main": _LAYER, "plain.": _PLAIN}
    return given, arrays(**rt_layer(state, given, config)), config


def _network(given: State, name: str) -> graphs.Network:
    count = sum(k.startswith(f"{name}.") and k.endswith("weight") for k in given)
    return [(given[f"{name}.{i}.weight"], given[f"{name}.{i}.bias"]) for i in range(count)]


def _graph(network: graphs.Network, c: Config) -> graphs.Graph:
    return graphs.graph(
        network,
        c["max_kernel"],
        repeat=c["flattening"] == "repeat_nodes",
        linear_as_conv=c["linear_as_conv"],
        residual=c.get("residual_connections"),
        activations=c.get("activations"),
        inputs=c["input_channels"],
        hidden=c["max_num_hidden_layers"],
    )


def graph_of(given: State, name: str, c: Config) -> graphs.Graph:
    """The graph of the network of this name among the inputs."""
    return _graph(_network(given, name), c)


def raw(name: str, g: graphs.Graph) -> dict[str, Tensor]:
    """What is read off a network before anything is learned."""
    found = {"node_raw": g.nodes, "edge_raw": g.edges, "edge_index": g.index.int()}
    return below(f"{name}.", found | {"linear_edge": g.linear[tuple(g.index)]})


def _outputs_of(x: Tensor, batch: list[graphs.Graph]) -> Tensor:
    ends = [(len(g.nodes) - g.outputs, len(g.nodes)) for g in batch]
    return torch.stack([x[i, start:end] for i, (start, end) in enumerate(ends)])


def _encoded(p: State, batch: list[graphs.Graph], c: Config) -> dict[str, Tensor]:
    x, e = graphs.construct(p, batch)
    found = {"node_in": x, "edge_in": e}
    through = graphs.layers(p, x, e, c)
    for i, (node, edge) in enumerate(through):
        found |= {f"node_{i}": node, f"edge_{i}": edge}
    pooled = _outputs_of(through[-1][0], batch)
    pooled = pooled.mean(1) if "pooling" in c else pooled.flatten(1)
    return found | {"pooled": pooled, "output": graphs.head(p, pooled)}


def permuted(network: graphs.Network, orders: list[Tensor]) -> graphs.Network:
    """The same function with hidden units in another order: new unit u was unit order[u]."""
    found, before = [], torch.arange(network[0][0].shape[1])
    for i, (w, b) in enumerate(network):
        order = orders[i] if i < len(orders) else torch.arange(len(b))
        copies = w.shape[1] // len(before)  # positions that a flattening gave each channel
        columns = (before[:, None] * copies + torch.arange(copies)).flatten()
        found.append((w[order][:, columns], b[order]))
        before = order
    return found


def ordered(network: graphs.Network) -> graphs.Network:
    """Inputs of the first linear layer from channel by channel to position by position."""
    flat = next(i for i, (w, _) in enumerate(network) if w.ndim == 2)
    w, b = network[flat]
    channels = len(network[flat - 1][1])
    new = w.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)
    return [*network[:flat], (new, b), *network[flat + 1 :]]


def graph_encoder_cnn(state: Arrays, given: Arrays, config: Config) -> dict[str, Tensor]:
    """Outputs of all cases."""
    c, p, inputs = config["main"], tensors(state), tensors(given)
    nets = {name: _network(inputs, name) for name in ("a0", "a1", "b")}
    made = {name: _graph(net, c) for name, net in nets.items()}
    found = raw("a0", made["a0"]) | raw("b", made["b"])
    found |= _encoded(p, [made["a0"], made["a1"]], c)
    few = ("pooled", "output")

    def case(name: str, batch: list[graphs.Graph], kept: tuple[str, ...]) -> None:
        values = _encoded(p, batch, c)
        found.update({f"{name}{k}": values[k] for k in kept})

    case("b_alone.", [made["b"]], (*few, "node_in"))
    case("mixed.", [made["a0"], made["b"]], ("node_in", *few))
    sizes = torch.tensor([len(made["a0"].nodes), len(made["b"].nodes)])
    found["mixed.node_mask"] = torch.arange(int(sizes.max())) < sizes[:, None]
    orders = [inputs[f"a0_permutation.{i}"].long() for i in range(len(nets["a0"]) - 1)]
    case("permuted.", [_graph(permuted(nets["a0"], orders), c)], few)
    position_major = [_graph(ordered(nets[name]), c) for name in ("a0", "a1")]
    case("ordered.", position_major, (*few, "node_0", "edge_0"))
    c, p = config["wild."], tensors(state, "wild.")
    net = _graph(_network(inputs, "wild.net"), c)
    found |= raw("wild.net", net)
    wild = _encoded(p, [net], c)
    kept = ("node_in", "edge_in", "node_0", "edge_0", "pooled", "output")
    return found | {f"wild.{k}": wild[k] for k in kept}


def drawn_network(rng: np.random.RandomState, name: str, shapes: list[list[int]]) -> Arrays:
    """Weights and biases that keep the size of what they are applied to."""
    found: Arrays = {}
    for i, shape in enumerate(shapes):
        w = drawn(rng, *shape) / np.sqrt(np.prod(shape[1:]))
        b = 0.3 * drawn(rng, shape[0])
        found |= arrays(**{f"{name}.{i}.weight": w, f"{name}.{i}.bias": b})
    return found


def typed(**values: Tensor) -> Arrays:
    """Results as float32, indices and flags as they are."""
    return {
        k: v.numpy().astype(np.float32) if v.is_floating_point() else v.numpy()
        for k, v in values.items()
    }


def _graph_encoder_cnn(state: Arrays) -> Made:
    rng, c = np.random.RandomState(82), CNN["main"]
    given = drawn_network(rng, "a0", c["net_a"]) | drawn_network(rng, "a1", c["net_a"])
    given |= drawn_network(rng, "b", c["net_b"])
    for i, shape in enumerate(c["net_a"][:-1]):
        given[f"a0_permutation.{i}"] = np.roll(np.arange(shape[0], dtype=np.int32), 1)
    given |= drawn_network(rng, "wild.net", CNN["wild."]["net"])
    return given, typed(**graph_encoder_cnn(state, given, CNN)), CNN


def _cnn_shapes(c: Config) -> Shapes:
    positions = c["input_channels"] + c["max_num_hidden_layers"] + c["num_classes"]
    found = graphs.construct_shapes(
        c, c["d_node"], c["d_edge"], positions, c["max_kernel"] ** 2, 1 - c["linear_as_conv"]
    )
    for i in range(c["n_layers"]):
        found |= graphs.layer_shapes(f"layers.{i}.", c, update=i < c["n_layers"] - 1)
    pooled = c["d_node"] * (1 if "pooling" in c else c["num_classes"])
    return found | graphs.head_shapes(pooled, c["d_out_hid"], c["d_out_hid"], c["d_out"])


_STATS = {"weights_mean": [0.0625, -0.125, 0.25], "weights_std": [0.5, 0.75, 0.25]}
_STATS |= {"biases_mean": [-0.25, 0.125, 0.0], "biases_std": [0.5, 1.0, 0.75]}
_MLP: Config = {"layout": [1, 3, 2, 2]} | _WIDTHS | {"sin_emb_dim": 3, "inp_factor": 1}
MLP: Config = {
    "main": _MLP | {"stats": _STATS, "pooling": "cat of output nodes"},
    "cls.": _MLP | {"stats": None, "pooling": "cls token"},
    "rev.": _MLP | {"stats": None, "rev_edge_features": True, "pooling": "mean of all nodes"},
    "probe.": _MLP | {"layout": [2, 3, 3, 1], "num_probe_features": 4, "w0": 30},
    "equi.": _MLP | {"stats": _STATS, "normalize": True},
}


def _mlp_graphs(given: State, stats: Config | None) -> list[graphs.Graph]:
    """One graph a network; layer by layer standardised by `stats`."""
    found = []
    count = sum(k.startswith("weight.") for k in given)
    for row in range(len(given["weight.0"])):
        network = []
        for i in range(count):
            w, b = given[f"weight.{i}"][row, :, :, 0].T, given[f"bias.{i}"][row, :, 0]
            if stats:
                w = (w - stats["weights_mean"][i]) / stats["weights_std"][i]
                b = (b - stats["biases_mean"][i]) / stats["biases_std"][i]
            network.append((w, b))
        found.append(graphs.graph(network, 1, repeat=False, linear_as_conv=True))
    return found


def _probes(p: State, given: State, w0: float) -> Tensor:
    """What the nodes of a network of sines give on learned inputs, (B, n, d_node)."""
    x = p["construct_graph.gpf.inputs"].expand(len(given["weight.0"]), -1, -1)
    values, count = [x], sum(k.startswith("weight.") for k in given)
    for i in range(count):
        x = x @ given[f"weight.{i}"][..., 0] + given[f"bias.{i}"].transpose(1, 2)
        x = (w0 * x).sin() if i < count - 1 else x + 0.5
        values.append(x)
    found = []
    for i, x in enumerate(values):
        at = f"construct_graph.gpf.proj.{i}"
        h = linear(p, f"{at}.0", x.transpose(1, 2))
        found.append(layer_norm(p, f"{at}.1", h, eps=1e-5))
    return torch.cat(found, 1)


def _equivariant(p: State, nodes: Tensor, edges: Tensor, c: Config) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    starts = np.cumsum([0, *c["layout"]])

    def mapped(name: str, x: Tensor) -> Tensor:
        return linear(p, f"{name}.2", linear(p, f"{name}.0", x).relu())

    for i in range(len(c["layout"]) - 1):
        rows, columns = slice(starts[i], starts[i + 1]), slice(starts[i + 1], starts[i + 2])
        w, b = mapped("proj_edge", edges[:, rows, columns]), mapped("proj_node", nodes[:, columns])
        w = w * c["stats"]["weights_std"][i] + c["stats"]["weights_mean"][i]
        b = b * c["stats"]["biases_std"][i] + c["stats"]["biases_mean"][i]
        found[f"weight.{i}"] = p[f"weight_scale.{i}"] * w
        found[f"bias.{i}"] = p[f"bias_scale.{i}"] * b
    return found


def graph_encoder_mlp(state: Arrays, given: Arrays, config: Config) -> dict[str, Tensor]:
    """Outputs of all cases."""
    inputs, found = tensors(given), {}
    for case, c in config.items():
        prefix = "" if case == "main" else case
        p, own = tensors(state, prefix), inputs
        probes = None
        if case == "probe.":
            own = part(inputs, case)
            probes = _probes(p, own, c["w0"])
        else:
            own = {k: v for k, v in inputs.items() if not k.startswith("probe.")}
        batch = _mlp_graphs(own, c.get("stats"))
        x, e = graphs.construct(p, batch, c.get("rev_edge_features", False), probes)
        values = {"node_in": x, "edge_in": e}
        if case == "main":
            values["node_raw"] = torch.stack([g.nodes for g in batch])
            values["edge_raw"] = torch.stack([g.edges for g in batch])
        if case == "cls.":
            x = torch.cat([p["cls_token"].expand(len(x), 1, -1), x], 1)
            e = functional.pad(e, (0, 0, 1, 0, 1, 0))
        through = graphs.layers(p, x, e, c, every_edge=case in ("rev.", "equi."))
        for i, (node, edge) in enumerate(through):
            values |= {f"node_{i}": node, f"edge_{i}": edge}
        x, e = through[-1]
        if case == "equi.":
            found |= below(case, _equivariant(p, x, e, c))
            continue
        if case == "cls.":
            pooled = x[:, 0]
        else:
            pooled = x.mean(1) if case == "rev." else x[:, -c["layout"][-1] :].flatten(1)
        values |= {"pooled": pooled, "output": graphs.head(p, pooled)}
        kept = {
            "cls.": ("node_0", "edge_0", "output"),
            "rev.": ("edge_in", "pooled", "output"),
            "probe.": ("node_in", "pooled", "output"),
        }.get(case, tuple(values))
        found |= {f"{prefix}{k}": values[k] for k in kept}
        if probes is not None:
            found["probe.probe"] = probes
    return found


def _graph_encoder_mlp(state: Arrays) -> Made:
    rng, given = np.random.RandomState(83), {}
    for prefix in ("", "probe."):
        layout = MLP[prefix or "main"]["layout"]
        for i, (rows, columns) in enumerate(pairwise(layout)):
            # Networks of sines multiply rounding by w0; their weights are smaller.
            scale = 0.1 if prefix else 0.5
            w, b = scale * drawn(rng, 2, rows, columns, 1), scale * drawn(rng, 2, columns, 1)
            given |= arrays(**{f"{prefix}weight.{i}": w, f"{prefix}bias.{i}": b})
    return given, arrays(**graph_encoder_mlp(state, given, MLP)), MLP


def _mlp_shapes(case: str, c: Config) -> Shapes:
    layout, node = c["layout"], c["d_node"]
    reverse = c.get("rev_edge_features", False)
    rows = layout[0] + len(layout) - 2 + layout[-1]
    found: Shapes = {"cls_token": [node]} if case == "cls." else {}
    found |= graphs.construct_shapes(c, node, c["d_edge"], rows, 3 if reverse else 1)
    if case == "probe.":
        at, count = "construct_graph.gpf", c["num_probe_features"]
        found[f"{at}.inputs"] = [1, count, layout[0]]
        for i in range(len(layout)):
            found |= kernel(f"{at}.proj.{i}.0", node, count) | norm(f"{at}.proj.{i}.1", node)
    every = case in ("rev.", "equi.")
    for i in range(c["n_layers"]):
        found |= graphs.layer_shapes(f"layers.{i}.", c, update=every or i < c["n_layers"] - 1)
    if case != "equi.":
        pooled = node * (layout[-1] if case in ("main", "probe.") else 1)
        return found | graphs.head_shapes(pooled, c["d_out_hid"], c["d_out"])
    for name, width in (("proj_edge", c["d_edge"]), ("proj_node", node)):
        found |= kernel(f"{name}.0", width, width) | kernel(f"{name}.2", 1, width)
    for name in ("weight_scale", "bias_scale"):
        found |= {f"{name}.{i}": [] for i in range(len(layout) - 1)}
    return found


def _all_shapes(config: Config, shapes: Any) -> Shapes:
    found: Shapes = {}
    for case, c in config.items():
        found |= below("" if case == "main" else case, shapes(case, c))
    return found


FIXTURES = {
    "rt_layer": Case(
        graphs.layer_shapes("", _LAYER)
        | graphs.layer_shapes("plain.", _PLAIN, modulate=False, norms=False, update=False),
        92,
        _rt_layer,
    ),
    "graph_encoder_cnn": Case(
        _all_shapes(CNN, lambda _, c: _cnn_shapes(c)), 85, _graph_encoder_cnn
    ),
    "graph_encoder_mlp": Case(_all_shapes(MLP, _mlp_shapes), 86, _graph_encoder_mlp),
}
