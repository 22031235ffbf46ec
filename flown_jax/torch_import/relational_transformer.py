"""A relational transformer layer of mkofinas/neural-graphs as `RelationalTransformerLayer`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.torch_import.common import StateReader, setting


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params"} of one layer.

    Args:
      state_dict: the layer's entries.
      config: d_node, d_edge, d_attn_hid, d_node_hid, d_edge_hid, n_heads; modulate_v, use_ln and
        edge_updates, True unless given.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    reader = StateReader(state_dict)
    found = layer(reader, "", config, edge_update=config.get("edge_updates", True))
    reader.finish()
    return {"params": found}


def layer(
    reader: StateReader, prefix: str, config: Mapping[str, Any], *, edge_update: bool
) -> dict[str, Any]:
    """Parameters of the layer whose entries begin with `prefix`."""
    node, edge, width, node_hidden, edge_hidden, heads = (
        int(setting(config, name))
        for name in ("d_node", "d_edge", "d_attn_hid", "d_node_hid", "d_edge_hid", "n_heads")
    )
    parts = 4 if config.get("modulate_v", True) else 3
    names = [f"{prefix}self_attn.qkv_node", f"{prefix}self_attn.qkv_edge"]
    found: dict[str, Any] = {
        "qkv_node": {"kernel": _by_part(reader, names[0], 3, heads, width, node)},
        "qkv_edge": {"kernel": _by_part(reader, names[1], parts, heads, width, edge)},
        "attention_out": reader.linear(f"{prefix}self_attn.proj_out", width, node),
        "node_linear": reader.linear(f"{prefix}lin0", node, node),
        "node_mlp_in": reader.linear(f"{prefix}node_mlp.0", node, node_hidden, bias=False),
        "node_mlp_out": reader.linear(f"{prefix}node_mlp.2", node_hidden, node),
    }
    norms = config.get("use_ln", True)
    if norms:
        found |= {f"node_norm_{i}": reader.norm(f"{prefix}node_ln{i}", node) for i in (0, 1)}
    if not edge_update:
        return found
    prefix += "edge_updates."
    first = f"{prefix}edge_mlp0."
    found |= {
        "edge_linear": reader.linear(f"{first}lin0_e", 2 * edge, edge_hidden),
        "source_linear": reader.linear(f"{first}lin0_s", node, edge_hidden),
        "target_linear": reader.linear(f"{first}lin0_t", node, edge_hidden),
        "edge_out_0": reader.linear(f"{first}lin1", edge_hidden, edge),
        "edge_mlp_in": reader.linear(f"{prefix}edge_mlp1.0", edge, edge_hidden, bias=False),
        "edge_mlp_out": reader.linear(f"{prefix}edge_mlp1.2", edge_hidden, edge),
    }
    if norms:
        found |= {f"edge_norm_{i}": reader.norm(f"{prefix}eln{i}", edge) for i in (0, 1)}
    return found


def _by_part(
    reader: StateReader, name: str, parts: int, heads: int, width: int, inputs: int
) -> np.ndarray:
    """The kernel of a fused projection: there head by head and then query, key, value; here all
    heads' queries first."""
    weight = reader.take(f"{name}.weight", (parts * width, inputs))
    weight = weight.reshape(heads, parts, width // heads, inputs).swapaxes(0, 1)
    return np.ascontiguousarray(weight.reshape(-1, inputs).T)
