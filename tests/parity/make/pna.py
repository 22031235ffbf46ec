"""Principal neighbourhood aggregation over the pairs of a network's graph that exist.

Source: Corso et al. 2020, in the form of Kofinas et al. 2024: messages are scaled and shifted by
their pair's features, and one mean and deviation normalises all nodes of a batch. They go with the
network, from the row of a pair to its column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity.make import graph_encoders as encoders
from tests.parity.make import graphs
from tests.parity.make.blocks import Case, Made, Shapes, State, kernel, linear, norm, swish, tensors

Config = dict[str, Any]
Arrays = dict[str, np.ndarray]
_NETS: Config = {k: encoders.CNN["main"][k] for k in ("net_a", "net_b")}
_MAIN: Config = {k: encoders.CNN["main"][k] for k in ("input_channels", "num_classes")}
_MAIN |= {"max_kernel": 3, "max_spatial_resolution": 5, "max_num_hidden_layers": 5}
_MAIN |= {"flattening": "repeat_nodes", "linear_as_conv": False, "sin_emb_dim": 3, "inp_factor": 1}
_MAIN |= {"d_out": 4, "d_hid": 4, "n_layers": 3} | _NETS
_MAIN |= {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification"]}
_MAIN |= {"towers": 1, "pre_layers": 1, "post_layers": 1, "act": "silu", "modulate_edges": True}
_MAIN |= {"gating_edges": False, "update_edge_attr": True, "final_edge_update": False}
_MAIN |= {"norm": "layernorm over all nodes and channels of the whole batch, x/(std+1e-5)"}
_MAIN |= {"pooling": "cat of output nodes"}
# How many nodes of net_a have 0, 1, 2 ... incoming edges.
_MAIN |= {"deg": [1, 2, 10, 0, 0, 0, 0, 0, 2]}
_REVERSED = "same with rev_edge_features True, graph a0 alone"


def pna_encoder(state: Arrays, given: Arrays, config: Config) -> dict[str, Tensor]:
    """Outputs of all cases."""
    c, inputs = config["main"], tensors(given)
    made = {name: encoders.graph_of(inputs, name, c) for name in ("a", "b")}
    found = encoders.raw("a", made["a"])
    p = tensors({k: v for k, v in state.items() if not k.startswith("rev.")})
    found |= _encoded(p, [made["a"], made["b"]], c)
    kept = ("conv_0", "norm_0", "edge_0", "node_out", "pooled", "output")
    cases = {
        "a_alone.": (p, "a", False, "node_in"),
        "b_alone.": (p, "b", False, "node_in"),
        "rev.": (tensors(state, "rev."), "a", True, "edge_in"),
    }
    for case, (own, name, reverse, first) in cases.items():
        values = _encoded(own, [made[name]], c, reverse)
        found |= {f"{case}{k}": values[k] for k in (first, *kept)}
    return found


def _encoded(
    p: State, batch: list[graphs.Graph], c: Config, reverse: bool = False
) -> dict[str, Tensor]:
    nodes, edges = graphs.construct(p, batch, reverse)
    found = {"node_in": nodes, "edge_in": edges}
    x = torch.cat([nodes[i, : len(g.nodes)] for i, g in enumerate(batch)])
    features, indices, start = [], [], 0
    for i, g in enumerate(batch):
        index = torch.cat([g.index, g.index.flip(0)], 1) if reverse else g.index
        features.append(edges[i, index[0], index[1]])
        indices.append(index + start)
        start += len(g.nodes)
    e, (source, target) = torch.cat(features), torch.cat(indices, 1)
    for i in range(c["n_layers"]):
        x = found[f"conv_{i}"] = _conv(p, f"gnn.convs.{i}", x, e, source, target)
        if i == c["n_layers"] - 1:
            break
        spread = (x - x.mean()) / (x.var(unbiased=False).sqrt() + 1e-5)
        x = spread * p[f"gnn.norms.{i}.weight"] + p[f"gnn.norms.{i}.bias"]
        found[f"norm_{i}"] = x
        x, at = swish(x), f"gnn.edge_update.{i}"
        u = linear(p, f"{at}.lin_e", e) + linear(p, f"{at}.lin_s", x[source])
        e = linear(p, f"{at}.lin1", swish(u + linear(p, f"{at}.lin_t", x[target])))
        found[f"edge_{i}"] = e
    ends = np.cumsum([len(g.nodes) for g in batch])
    rows = [x[end - g.outputs : end].flatten() for end, g in zip(ends, batch, strict=True)]
    pooled = torch.stack(rows)
    return found | {"node_out": x, "pooled": pooled, "output": graphs.head(p, pooled)}


def _conv(p: State, name: str, x: Tensor, e: Tensor, source: Tensor, target: Tensor) -> Tensor:
    scale, shift = linear(p, f"{name}.edge_encoder", e).chunk(2, -1)
    pair = torch.cat([x[target], x[source]], -1)
    message = scale * linear(p, f"{name}.pre_nns.0.0", pair) + shift
    rows = []
    for i in range(len(x)):
        m = message[target == i]
        if len(m):
            variance = (m**2).mean(0) - m.mean(0) ** 2
            values = [m.mean(0), m.amin(0), m.amax(0), variance.clamp(min=1e-5).sqrt()]
        else:
            zero = torch.zeros_like(x[0])
            values = [zero, zero, zero, zero + 1e-5**0.5]
        values = torch.cat(values)
        more = np.log(len(m) + 1) / p[f"{name}.aggr_module.avg_deg_log"]
        rows.append(torch.cat([x[i], values, values * more]))
    return linear(p, f"{name}.lin", linear(p, f"{name}.post_nns.0.0", torch.stack(rows)))


def _pna_encoder(state: Arrays) -> Made:
    rng = np.random.RandomState(91)
    given = encoders.drawn_network(rng, "a", _MAIN["net_a"])
    given |= encoders.drawn_network(rng, "b", _MAIN["net_b"])
    config = {"main": _MAIN, "rev.": _REVERSED}
    return given, encoders.typed(**pna_encoder(state, given, config)), config


def _fixed() -> Arrays:
    """Means of the degree and of its logarithm."""
    counts = np.array(_MAIN["deg"], float)
    degrees = np.arange(len(counts))
    means = {"avg_deg_lin": degrees, "avg_deg_log": np.log(degrees + 1)}
    return {
        f"{case}gnn.convs.{i}.aggr_module.{name}": np.array(
            [(counts * value).sum() / counts.sum()], np.float32
        )
        for case in ("", "rev.")
        for i in range(_MAIN["n_layers"])
        for name, value in means.items()
    }


def _shapes(c: Config, reverse: bool) -> Shapes:
    width, single = c["d_hid"], 3 if reverse else 1
    rows = c["input_channels"] + c["max_num_hidden_layers"] + c["num_classes"]
    found = graphs.construct_shapes(c, width, width, rows, single * c["max_kernel"] ** 2, single)
    found |= graphs.head_shapes(width * c["num_classes"], width, width, c["d_out"])
    for i in range(c["n_layers"]):
        at = f"gnn.convs.{i}"
        found |= kernel(f"{at}.edge_encoder", 2 * width, width)
        found |= kernel(f"{at}.pre_nns.0.0", width, 2 * width)
        found |= kernel(f"{at}.post_nns.0.0", width, 9 * width)
        found |= kernel(f"{at}.lin", width, width)
        if i < c["n_layers"] - 1:
            found |= norm(f"gnn.norms.{i}", width)
            for part in ("lin_e", "lin_s", "lin_t", "lin1"):
                found |= kernel(f"gnn.edge_update.{i}.{part}", width, width)
    return found


_ALL = _shapes(_MAIN, False) | encoders.below("rev.", _shapes(_MAIN, True))
FIXTURES = {"pna_encoder": Case(_ALL, 92, _pna_encoder, _fixed())}
