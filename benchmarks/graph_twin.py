"""A PyTorch twin of the published dense encoder of networks' graphs, and the batches that it reads.

Every pair of nodes has features, whether the networks have a weight there or not, and no pair is
masked. Written for speed: queries, keys, shifts and scales of pairs are products of their own, so
that all maps are contiguous and sums go in place; random Fourier features are written where they
are read, outside of the gradient.
Sources: Kofinas et al. 2024 (graphs, inputs, pooling), Diao and Loynd 2023 (layer), Soro et al.
2025, Table 7 (sizes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Table 7; what it leaves open is the published code's default.
PUBLISHED: dict[str, Any] = {
    "input_channels": 3,
    "num_classes": 10,
    "max_kernel": 7,
    "max_spatial_resolution": 49,
    "max_num_hidden_layers": 5,
    "flattening": "repeat_nodes",
    "linear_as_conv": False,
    "sin_emb_dim": 128,
    "inp_factor": 1,
    "d_node": 64,
    "d_edge": 32,
    "d_attn_hid": 128,
    "d_node_hid": 128,
    "d_edge_hid": 64,
    "d_out_hid": 128,
    "d_out": 512,
    "n_layers": 4,
    "n_heads": 8,
}


@dataclass
class DenseGraphs:
    """Networks of one architecture.

    Attributes:
      nodes: biases (B, n, 1). edges: kernels (B, n, n, K^2), zero where there are none.
      linear: numbers of the pairs of linear layers among all n^2 (L,).
      position, spatial: rows of the two tables (n,), (s,). repeated: the nodes of `spatial` (s,).
    """

    nodes: Tensor
    edges: Tensor
    linear: Tensor
    position: Tensor
    spatial: Tensor
    repeated: Tensor

    def to(self, device: torch.device) -> DenseGraphs:
        """The same on a device."""
        return DenseGraphs(**{name: x.to(device) for name, x in vars(self).items()})


def dense_graphs(
    networks: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], config: Mapping[str, Any]
) -> DenseGraphs:
    """The graphs of chains of convolutions, then linear layers, in the published order of nodes.

    Args:
      networks: of each its (weight, bias), (out, in, k, k) or (out, in), all of one architecture.
      config: see `PUBLISHED`.
    """
    k, inputs = config["max_kernel"], config["input_channels"]
    shapes = [w.shape for w, _ in networks[0]]
    flat = next(i for i, shape in enumerate(shapes) if len(shape) == 2)
    times = [1] * len(shapes)
    times[flat - 1] = shapes[flat][1] // shapes[flat - 1][0]
    sizes = [shapes[0][1]] + [s[0] * t for s, t in zip(shapes, times, strict=True)]
    starts = np.cumsum([0, *sizes])
    n, batch = int(starts[-1]), len(networks)
    nodes = np.zeros((batch, n, 1), np.float32)
    edges = np.zeros((batch, n, n, k * k), np.float32)
    linear = np.zeros((n, n), bool)
    position = [np.arange(inputs)]
    for i, (shape, t) in enumerate(zip(shapes, times, strict=True)):
        rows = slice(starts[i], starts[i + 1])
        columns = slice(starts[i + 1], starts[i + 2])
        w = np.stack([network[i][0] for network in networks])
        b = np.stack([network[i][1] for network in networks])
        nodes[:, columns, 0] = np.tile(b, t)
        linear[rows, columns] = len(shape) == 2
        if len(shape) == 4:
            before = (k - shape[-1]) // 2
            after = k - shape[-1] - before
            w = np.pad(w, ((0, 0), (0, 0), (0, 0), (before, after), (before, after)))
        w = w.reshape(batch, *shape[:2], -1).swapaxes(1, 2)
        edges[:, rows, columns, : w.shape[-1]] = np.tile(w, (1, 1, t, 1))
        position.append(np.full(shape[0] * t, inputs + i))
    position[-1] = inputs + config["max_num_hidden_layers"] + np.arange(config["num_classes"])
    repeated = np.arange(starts[flat], starts[flat + 1])
    return DenseGraphs(
        nodes=torch.from_numpy(nodes),
        edges=torch.from_numpy(edges),
        linear=torch.from_numpy(np.flatnonzero(linear)),
        position=torch.from_numpy(np.concatenate(position)),
        spatial=torch.from_numpy((repeated - starts[flat]) // shapes[flat - 1][0]),
        repeated=torch.from_numpy(repeated),
    )


class GraphEncoder(nn.Module):
    """Outputs (B, d_out) of `DenseGraphs`; the state dict has the published names.

    Args:
      config: see `PUBLISHED`; the nodes of the last layer are concatenated.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.num_classes, hidden = config["num_classes"], config["d_out_hid"]
        self.construct_graph = _Constructor(config)
        self.layers = nn.ModuleList(
            _Layer(config, update=i < config["n_layers"] - 1) for i in range(config["n_layers"])
        )
        self.proj_out = nn.Sequential(
            nn.Linear(self.num_classes * config["d_node"], hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, config["d_out"]),
        )

    def forward(self, graphs: DenseGraphs) -> Tensor:
        x, e = self.construct_graph(graphs)
        for layer in self.layers:
            x, e = layer(x, e)
        return self.proj_out(x[:, -self.num_classes :].flatten(1))


class _Fourier(nn.Module):
    """[cos, sin] of 2 pi x b^T; inputs and frequencies are given, so no gradient passes."""

    b: Tensor

    def __init__(self, inputs: int, frequencies: int, sigma: float) -> None:
        super().__init__()
        self.register_buffer("b", sigma * torch.randn(frequencies, inputs))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        phase = F.linear(x, 2 * math.pi * self.b)
        found = phase.new_empty(*phase.shape[:-1], 2 * phase.shape[-1])
        cos, sin = found.chunk(2, -1)
        torch.cos(phase, out=cos)
        torch.sin(phase, out=sin)
        return found


class _Constructor(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        node, edge, count = config["d_node"], config["d_edge"], config["sin_emb_dim"]
        rows = config["input_channels"] + config["max_num_hidden_layers"] + config["num_classes"]

        def projection(inputs: int, outputs: int) -> nn.Sequential:
            fourier = _Fourier(inputs, count, config["inp_factor"])
            return nn.Sequential(fourier, nn.Linear(2 * count, outputs))

        self.pos_embed = nn.Parameter(torch.randn(rows, node))
        self.spatial_embed = nn.Parameter(torch.randn(config["max_spatial_resolution"], node))
        self.proj_weight = projection(config["max_kernel"] ** 2, edge)
        self.proj_mlp_weight = projection(1, edge)
        self.proj_bias = projection(1, node)
        self.proj_node_in = nn.Linear(node, node)
        self.proj_edge_in = nn.Linear(edge, edge)
        # Published, and used by nothing here.
        self.proj_mlp_edge_in = nn.Linear(edge, edge)
        self.act_emb = nn.ModuleDict({"embedding": nn.Embedding(7, node)})

    def forward(self, graphs: DenseGraphs) -> tuple[Tensor, Tensor]:
        x = self.proj_node_in(self.proj_bias(graphs.nodes)) + self.pos_embed[graphs.position]
        x = x.index_add(
            1, graphs.repeated, self.spatial_embed[graphs.spatial].expand(len(x), -1, -1)
        )
        pairs = graphs.edges.flatten(1, 2)
        h = self.proj_weight(pairs)
        single = self.proj_mlp_weight(pairs[:, graphs.linear, :1])
        h = h.index_copy_(1, graphs.linear, single)
        return x, self.proj_edge_in(h).view(*graphs.edges.shape[:-1], -1)


class _Attention(nn.Module):
    def __init__(self, node: int, edge: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, width**-0.5
        self.qkv_node = nn.Linear(node, 3 * width, bias=False)
        self.qkv_edge = nn.Linear(edge, 4 * width, bias=False)
        self.proj_out = nn.Linear(width, node)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        heads = self.heads
        q, k, v = self.qkv_node(x).unflatten(-1, (heads, 3, -1)).unbind(-2)
        kernels = self.qkv_edge.weight.unflatten(0, (heads, 4, -1)).transpose(0, 1).flatten(1, 2)
        queries, keys, shifts, scales = (
            F.linear(e, kernel).unflatten(-1, (heads, -1)) for kernel in kernels
        )
        queries += q[:, :, None]
        keys += k[:, None]
        weights = ((queries * keys).sum(-1) * self.scale).softmax(2)
        values = torch.addcmul(shifts, v[:, None], scales)
        return self.proj_out((weights[..., None] * values).sum(2).flatten(-2))


class _EdgeMLP(nn.Module):
    def __init__(self, node: int, edge: int, hidden: int) -> None:
        super().__init__()
        self.lin0_e = nn.Linear(2 * edge, hidden)
        self.lin0_s = nn.Linear(node, hidden)
        self.lin0_t = nn.Linear(node, hidden)
        self.lin1 = nn.Linear(hidden, edge)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        own, reverse = self.lin0_e.weight.chunk(2, 1)
        u = F.linear(e, own, self.lin0_e.bias)
        u += F.linear(e, reverse).transpose(1, 2)
        u += self.lin0_s(x)[:, :, None]
        u += self.lin0_t(x)[:, None]
        return self.lin1(F.gelu(u)).add_(e)


class _EdgeUpdate(nn.Module):
    def __init__(self, node: int, edge: int, hidden: int) -> None:
        super().__init__()
        self.edge_mlp0 = _EdgeMLP(node, edge, hidden)
        self.edge_mlp1 = _mlp(edge, hidden)
        self.eln0, self.eln1 = nn.LayerNorm(edge), nn.LayerNorm(edge)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        e = self.eln0(self.edge_mlp0(x, e))
        return self.eln1(self.edge_mlp1(e).add_(e))


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, update: bool) -> None:
        super().__init__()
        node, edge = config["d_node"], config["d_edge"]
        self.self_attn = _Attention(node, edge, config["d_attn_hid"], config["n_heads"])
        self.lin0 = nn.Linear(node, node)
        self.node_ln0, self.node_ln1 = nn.LayerNorm(node), nn.LayerNorm(node)
        self.node_mlp = _mlp(node, config["d_node_hid"])
        self.edge_updates = _EdgeUpdate(node, edge, config["d_edge_hid"]) if update else None

    def forward(self, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        x = self.node_ln0(x + self.lin0(self.self_attn(x, e)))
        x = self.node_ln1(x + self.node_mlp(x))
        return x, e if self.edge_updates is None else self.edge_updates(x, e)


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width))
