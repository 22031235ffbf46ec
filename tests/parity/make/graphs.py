"""Networks as dense graphs and the relational transformer, in plain PyTorch functions.

Sources: Kofinas et al. 2024 (graphs, inputs, pooling, dense pairs and no mask), Diao and Loynd 2023
(the layer), in the form that Soro et al. 2025 use. Pairs are [row = presynaptic unit, column].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.parity.make.blocks import Shapes, State, kernel, layer_norm, linear, norm

Config = dict[str, Any]
Network = list[tuple[Tensor, Tensor]]
ACTIVATIONS = ("none", "relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu")


@dataclass
class Graph:
    """One network.

    Attributes:
      nodes: biases (n, 1). edges: kernels (n, n, K^2). exists, linear: flags of pairs (n, n).
      position, spatial, activation: rows of the three tables (n,), -1 for none.
      added: rows and columns of residual pairs (2, E'). outputs: how many nodes, at the end.
    """

    nodes: Tensor
    edges: Tensor
    exists: Tensor
    linear: Tensor
    position: Tensor
    spatial: Tensor
    activation: Tensor
    added: Tensor
    outputs: int

    @property
    def index(self) -> Tensor:
        """Rows and columns of the pairs that exist, (2, E), row by row, residual ones last."""
        layers = self.exists.clone()
        layers[self.added[0], self.added[1]] = False
        return torch.cat([layers.nonzero().T, self.added], 1)

    def padded(self, size: int) -> Graph:
        """The same with absent nodes behind."""
        more = size - len(self.nodes)

        def wider(x: Tensor, axes: int, value: float = 0) -> Tensor:
            tail = (0, 0) * (x.ndim - axes)
            return functional.pad(x, (*tail, *(0, more) * axes), value=value)

        return Graph(
            wider(self.nodes, 1),
            wider(self.edges, 2),
            wider(self.exists, 2),
            wider(self.linear, 2),
            wider(self.position, 1, -1),
            wider(self.spatial, 1, -1),
            wider(self.activation, 1, -1),
            self.added,
            self.outputs,
        )


def graph(
    network: Network,
    width: int,
    *,
    repeat: bool,
    linear_as_conv: bool,
    residual: list[int] | None = None,
    activations: list[str] | None = None,
    inputs: int | None = None,
    hidden: int | None = None,
) -> Graph:
    """The graph of a chain of layers.

    Args:
      network: (weight, bias) of each layer, (out, in, k, k) or (out, in).
      width: K, every kernel is padded to K x K.
      repeat: the last convolution's units are repeated for every position that is flattened,
        all units of the first position before those of the second.
      residual: for each hidden layer, the hidden layer that is added to it, or -1.
      inputs, hidden: rows of the table of positions kept for inputs and hidden layers.
    """
    first = network[0][0].shape[1]
    last = len(network) - 1
    flat = next((i for i, (w, _) in enumerate(network) if w.ndim == 2), 0)
    times = [1] * len(network)
    if repeat and flat:
        times[flat - 1] = network[flat][0].shape[1] // network[flat - 1][0].shape[0]
    sizes = [first] + [len(b) * t for (_, b), t in zip(network, times, strict=True)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    n, features = sum(sizes), width**2
    double = {"dtype": network[0][0].dtype}
    nodes, edges = torch.zeros(n, 1, **double), torch.zeros(n, n, features, **double)
    exists, flags = torch.zeros(n, n, dtype=torch.bool), torch.zeros(n, n, dtype=torch.bool)
    position, spatial = torch.arange(n), torch.full((n,), -1)
    activation = torch.full((n,), -1)
    inputs = first if inputs is None else inputs
    hidden = last if hidden is None else hidden
    for i, ((w, b), t) in enumerate(zip(network, times, strict=True)):
        rows = slice(starts[i], starts[i] + sizes[i])
        columns = slice(starts[i + 1], starts[i + 1] + sizes[i + 1])
        nodes[columns, 0] = b.repeat(t)
        plain = w.ndim == 2 and not linear_as_conv
        if w.ndim == 2:
            w = w[:, :, None, None]
        if not plain:
            before = (width - w.shape[-1]) // 2
            after = width - w.shape[-1] - before
            w = functional.pad(w, (before, after, before, after))
        w = w.flatten(2).transpose(0, 1).repeat(1, t, 1)
        edges[rows, columns, : w.shape[-1]] = w
        exists[rows, columns] = True
        flags[rows, columns] = plain
        if i < last:
            position[columns] = inputs + i
            if activations:
                activation[columns] = ACTIVATIONS.index(activations[i])
        else:
            position[columns] = inputs + hidden + torch.arange(len(b))
        if t > 1:
            spatial[columns] = torch.arange(t).repeat_interleave(len(b))
    added = torch.zeros(2, 0, dtype=torch.long)
    for i, e in enumerate(residual or []):
        if e >= 0:
            at = torch.arange(min(sizes[i + 1], sizes[e + 1]))
            added = torch.cat([added, torch.stack([starts[e + 1] + at, starts[i + 1] + at])], 1)
    edges[added[0], added[1], features // 2] = 1
    exists[added[0], added[1]] = True
    count = len(network[-1][1])
    return Graph(nodes, edges, exists, flags, position, spatial, activation, added, count)


def fourier(p: State, name: str, x: Tensor) -> Tensor:
    """Cosines, then sines, of 2 pi x b^T through a linear layer."""
    phase = 2 * math.pi * x @ p[f"{name}.0.b"].T
    return linear(p, f"{name}.1", torch.cat([phase.cos(), phase.sin()], -1))


def table(rows: Tensor, index: Tensor) -> Tensor:
    """Rows of a table; zeros for -1."""
    return rows[index.clamp(min=0)] * (index >= 0)[..., None]


def construct(
    p: State, graphs: list[Graph], reverse: bool = False, probes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Features of nodes (B, n, d_node) and of all pairs (B, n, n, d_edge).

    Args:
      reverse: kernels are those of the pair, of the reversed pair, and their sum.
      probes: (B, n, d_node), added to the biases' features.
    """
    at = "construct_graph"
    size = max(len(g.nodes) for g in graphs)
    graphs = [g.padded(size) for g in graphs]

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(g, name) for g in graphs])

    x = fourier(p, f"{at}.proj_bias", stacked("nodes"))
    x = linear(p, f"{at}.proj_node_in", x if probes is None else x + probes)
    x = x + table(p[f"{at}.pos_embed"], stacked("position"))
    if f"{at}.spatial_embed" in p:
        x = x + table(p[f"{at}.spatial_embed"], stacked("spatial"))
    if f"{at}.act_emb.embedding.weight" in p:
        x = x + table(p[f"{at}.act_emb.embedding.weight"], stacked("activation"))
    e = stacked("edges")
    width = e.shape[-1]
    if reverse:
        e = torch.cat([e, e.transpose(1, 2), e + e.transpose(1, 2)], -1)
    h = fourier(p, f"{at}.proj_weight", e)
    if f"{at}.proj_mlp_weight.0.b" in p:
        single = fourier(p, f"{at}.proj_mlp_weight", e[..., ::width])
        h = torch.where(stacked("linear")[..., None], single, h)
    return x, linear(p, f"{at}.proj_edge_in", h)


def layer(
    p: State,
    name: str,
    x: Tensor,
    e: Tensor,
    heads: int,
    *,
    modulate: bool = True,
    norms: bool = True,
    update: bool = True,
) -> dict[str, Tensor]:
    """One relational transformer layer: `node`, `edge` and what is computed on the way."""

    def normed(part: str, x: Tensor) -> Tensor:
        return layer_norm(p, f"{name}{part}", x, eps=1e-5) if norms else x

    def mapped(part: str, x: Tensor) -> Tensor:
        return linear(p, f"{name}{part}", x)

    q, k, v = mapped("self_attn.qkv_node", x).unflatten(-1, (heads, 3, -1)).unbind(-2)
    fused = mapped("self_attn.qkv_edge", e).unflatten(-1, (heads, 3 + modulate, -1))
    eq, ek, add, *times = fused.unbind(-2)
    scale = (q.shape[-1] * heads) ** -0.5
    logits = ((q[:, :, None] + eq) * (k[:, None] + ek)).sum(-1).movedim(-1, 1) * scale
    attention = logits.softmax(-1)
    values = v[:, None] * times[0] + add if modulate else v[:, None] + add
    mixed = torch.einsum("bhij,bijhc->bihc", attention, values).flatten(-2)
    attended = mapped("self_attn.proj_out", mixed)
    middle = normed("node_ln0", x + mapped("lin0", attended))
    wide = functional.gelu(mapped("node_mlp.0", middle))
    new = normed("node_ln1", middle + mapped("node_mlp.2", wide))
    found = {"logits": logits, "attn": attention, "attn_out": attended}
    found |= {"node_after_ln0": middle, "node": new, "edge": e}
    if update:
        at = "edge_updates"
        u = mapped(f"{at}.edge_mlp0.lin0_e", torch.cat([e, e.transpose(1, 2)], -1))
        u = u + mapped(f"{at}.edge_mlp0.lin0_s", new)[:, :, None]
        u = u + mapped(f"{at}.edge_mlp0.lin0_t", new)[:, None]
        h = normed(f"{at}.eln0", e + mapped(f"{at}.edge_mlp0.lin1", functional.gelu(u)))
        wide = functional.gelu(mapped(f"{at}.edge_mlp1.0", h))
        found["edge_after_ln0"] = h
        found["edge"] = normed(f"{at}.eln1", h + mapped(f"{at}.edge_mlp1.2", wide))
    return found


def layers(
    p: State, x: Tensor, e: Tensor, c: Config, every_edge: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Nodes and pairs behind each layer; the last updates pairs only with `every_edge`."""
    found = []
    for i in range(c["n_layers"]):
        update = every_edge or i < c["n_layers"] - 1
        made = layer(p, f"layers.{i}.", x, e, c["n_heads"], update=update)
        x, e = made["node"], made["edge"]
        found.append((x, e))
    return found


def head(p: State, x: Tensor) -> Tensor:
    """Linear layers with ReLUs between."""
    names = [k.removesuffix(".weight") for k in p if k.startswith("proj_out.") and "weight" in k]
    for name in names[:-1]:
        x = linear(p, name, x).relu()
    return linear(p, names[-1], x)


def layer_shapes(
    name: str, c: Config, *, modulate: bool = True, norms: bool = True, update: bool = True
) -> Shapes:
    """Of `layer`."""
    node, edge, width = c["d_node"], c["d_edge"], c["d_attn_hid"]
    found = kernel("self_attn.qkv_node", 3 * width, node, bias=False)
    found |= kernel("self_attn.qkv_edge", (3 + modulate) * width, edge, bias=False)
    found |= kernel("self_attn.proj_out", node, width) | kernel("lin0", node, node)
    found |= norm("node_ln0", node) | norm("node_ln1", node) if norms else {}
    found |= kernel("node_mlp.0", c["d_node_hid"], node, bias=False)
    found |= kernel("node_mlp.2", node, c["d_node_hid"])
    if update:
        at, hidden = "edge_updates", c["d_edge_hid"]
        for part, inputs in (("e", 2 * edge), ("s", node), ("t", node)):
            found |= kernel(f"{at}.edge_mlp0.lin0_{part}", hidden, inputs)
        found |= kernel(f"{at}.edge_mlp0.lin1", edge, hidden)
        found |= kernel(f"{at}.edge_mlp1.0", hidden, edge, bias=False)
        found |= kernel(f"{at}.edge_mlp1.2", edge, hidden)
        found |= norm(f"{at}.eln0", edge) | norm(f"{at}.eln1", edge) if norms else {}
    return {f"{name}{k}": shape for k, shape in found.items()}


def construct_shapes(
    c: Config, node: int, edge: int, positions: int, kernel_size: int, single: int = 0
) -> Shapes:
    """Of `construct`.

    Args:
      positions: rows of their table. kernel_size: features of a pair.
      single: of a linear layer's pair, 0 where those are as the others.
    """
    frequencies = c["sin_emb_dim"]
    found: Shapes = {"pos_embed": [positions, node]}
    if c.get("flattening") == "repeat_nodes":
        found["spatial_embed"] = [c["max_spatial_resolution"], node]
    projections = [("proj_weight", kernel_size, edge), ("proj_bias", 1, node)]
    if single:
        projections.append(("proj_mlp_weight", single, edge))
    for name, inputs, outputs in projections:
        found[f"{name}.0.b"] = [frequencies, inputs]
        found |= kernel(f"{name}.1", outputs, 2 * frequencies)
    found |= kernel("proj_node_in", node, node) | kernel("proj_edge_in", edge, edge)
    if single:
        found |= kernel("proj_mlp_edge_in", edge, edge)  # published, and used by nothing
    if "max_kernel" in c:
        found["act_emb.embedding.weight"] = [len(ACTIVATIONS), node]
    return {f"construct_graph.{k}": shape for k, shape in found.items()}


def head_shapes(*widths: int) -> Shapes:
    """Of `head`."""
    found: Shapes = {}
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        found |= kernel(f"proj_out.{2 * i}", outputs, inputs)
    return found
