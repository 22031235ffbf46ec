"""Graph encoders of mkofinas/neural-graphs as variables of `encoders.graph_encoder.GraphEncoder`.

The CNN and the MLP models with a relational transformer, their equivariant form as variables of
`encoders.weight_transformer.WeightTransformer`, and (`pna`) the models with PNA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.encoders.graph_statistics import neutral
from flown_jax.torch_import.common import StateReader, setting
from flown_jax.torch_import.relational_transformer import layer

_INPUTS = "construct_graph."
# Parameters that no computation of the original reads.
_DEAD = (f"{_INPUTS}proj_mlp_edge_in.",)
_TABLE = f"{_INPUTS}act_emb."


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params", "constants"} of a graph encoder without what is not published there.

    That is `edge_levels`, `skip` and `reference` False, head_activation `relu`, softmax_scale
    `width`, pooling `outputs`, form `dense`.

    Args:
      state_dict: of a DynamicRelationalTransformer, a RelationalTransformer of perceptrons or a
        RelationalTransformerParams.
      config: the sizes with the names of the original code: d_node, d_edge, d_attn_hid, d_node_hid,
        d_edge_hid, n_layers, n_heads, sin_emb_dim; input_channels and num_classes, or `layout`;
        `activations`, where nodes know them. Whether the last layer updates edges is told by its
        entries.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    reader = StateReader(state_dict, ignore=ignored(config))
    params, constants = inputs(reader, state_dict, config)
    for number in range(int(setting(config, "n_layers"))):
        prefix = f"layers.{number}."
        updates = reader.has(f"{prefix}edge_updates.edge_mlp0.lin1.weight")
        params[f"layers_{number}"] = layer(reader, prefix, config, edge_update=updates)
    if reader.has("cls_token"):
        params["class_token"] = reader.take("cls_token", (int(config["d_node"]),))
    if not reader.has("proj_edge.0.weight"):
        constants |= head(reader, state_dict, params)
        reader.finish()
        return {"params": params, "constants": constants}
    constants["whitening"] = neutral(int(config["layout"][-1]) * int(config["d_node"]))
    found = {"encoder": params, **_equivariant(reader, state_dict, config)}
    reader.finish()
    return {"params": found, "constants": {"encoder": constants}}


def ignored(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Prefixes of entries that the network does not read."""
    return _DEAD if config.get("activations") else (*_DEAD, _TABLE)


def inputs(
    reader: StateReader, state_dict: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and constants of `GraphInputs`, under their names in the encoder."""
    node = int(config.get("d_node", config.get("d_hid", 0)))
    edge = int(config.get("d_edge", config.get("d_hid", 0)))
    frequencies = int(setting(config, "sin_emb_dim"))
    rows = _rows(state_dict, f"{_INPUTS}pos_embed")
    embed: dict[str, Any] = {"position": reader.take(f"{_INPUTS}pos_embed", (rows, node))}
    fixed: dict[str, Any] = {}
    fourier = {"node": ("proj_bias", node), "edge": ("proj_weight", edge)}
    if reader.has(f"{_INPUTS}proj_mlp_weight.0.b"):
        fourier["single"] = ("proj_mlp_weight", edge)
    for ours, (theirs, width) in fourier.items():
        name = f"{_INPUTS}{theirs}"
        columns = int(np.shape(state_dict[f"{name}.0.b"])[-1]) if reader.has(f"{name}.0.b") else 1
        b = reader.take(f"{name}.0.b", (frequencies, columns))
        fixed[f"{ours}_fourier"] = {"frequencies": b}
        embed[f"{ours}_hidden"] = reader.linear(f"{name}.1", 2 * frequencies, width)
    embed["node_in"] = reader.linear(f"{_INPUTS}proj_node_in", node, node)
    embed["edge_in"] = reader.linear(f"{_INPUTS}proj_edge_in", edge, edge)
    if reader.has(f"{_INPUTS}spatial_embed"):
        places = _rows(state_dict, f"{_INPUTS}spatial_embed")
        embed["spatial"] = reader.take(f"{_INPUTS}spatial_embed", (places, node))
    if config.get("activations"):
        table = f"{_TABLE}embedding.weight"
        embed["activation"] = reader.take(table, (_rows(state_dict, table), node))
    params: dict[str, Any] = {"embed": embed}
    if reader.has(f"{_INPUTS}gpf.inputs"):
        params["probe"] = _probes(reader, state_dict, config)
    depth = rows - _ends(config)
    constants = {
        "embed": fixed,
        "node_scale": np.ones((depth + 1, 1), np.float32),
        "edge_scale": np.ones((depth + 1,), np.float32),
    }
    return params, constants


def head(
    reader: StateReader, state_dict: Mapping[str, Any], params: dict[str, Any]
) -> dict[str, Any]:
    """Puts the last MLP's layers into `params`; returns the constants in front of it."""
    numbers = sorted(
        int(name.split(".")[1])
        for name in state_dict
        if name.startswith("proj_out.") and name.endswith(".weight")
    )
    for place, number in enumerate(numbers):
        out, width = (int(n) for n in np.shape(state_dict[f"proj_out.{number}.weight"]))
        params[f"head_{place}"] = reader.linear(f"proj_out.{number}", width, out)
    return {"whitening": neutral(params["head_0"]["kernel"].shape[0])}


def _probes(
    reader: StateReader, state_dict: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    layout, node = config["layout"], int(config["d_node"])
    name = f"{_INPUTS}gpf."
    count = int(setting(config, "num_probe_features"))
    found: dict[str, Any] = {"inputs": reader.take(f"{name}inputs", (1, count, layout[0]))[0]}
    for number in range(len(layout)):
        found[f"linear_{number}"] = reader.linear(f"{name}proj.{number}.0", count, node)
        found[f"norm_{number}"] = reader.norm(f"{name}proj.{number}.1", node)
    return found


def _equivariant(
    reader: StateReader, state_dict: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, width in (("node", int(config["d_node"])), ("edge", int(config["d_edge"]))):
        out = _rows(state_dict, f"proj_{kind}.2.weight")
        found[f"{kind}_head_0"] = reader.linear(f"proj_{kind}.0", width, width)
        found[f"{kind}_head_1"] = reader.linear(f"proj_{kind}.2", width, out)
    layers = len(config["layout"]) - 1
    for kind, theirs in (("node", "bias"), ("edge", "weight")):
        scales = [reader.take(f"{theirs}_scale.{number}", ()) for number in range(layers)]
        found[f"{kind}_scale"] = np.concatenate(scales)  # 1-d each: they were made contiguous
    return found


def _ends(config: Mapping[str, Any]) -> int:
    """How many input and output nodes there are."""
    if "layout" in config:
        return int(config["layout"][0]) + int(config["layout"][-1])
    return int(setting(config, "input_channels")) + int(setting(config, "num_classes"))


def _rows(state_dict: Mapping[str, Any], name: str) -> int:
    """Of a table whose length is told by the state dict alone; 0 where it is absent."""
    return int(np.shape(state_dict[name])[0]) if name in state_dict else 0
