"""PNA models of mkofinas/neural-graphs as variables of `encoders.graph_encoder.GraphEncoder`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.torch_import.common import StateReader, setting
from flown_jax.torch_import.graph_encoder import head, ignored, inputs

_MOST_LAYERS = 100
# Buffers of PyG's aggregation; delta is an attribute here, see `encoders.pna.log_degree_of`.
_BUFFERS = tuple(f"gnn.convs.{layer}.aggr_module." for layer in range(_MOST_LAYERS))


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params", "constants"} of a graph encoder whose backbone is PNA.

    Args:
      state_dict: of a DynamicGNN with PNA's convolutions.
      config: d_hid, n_layers, sin_emb_dim, input_channels, num_classes, with the names of the
        original code.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    reader = StateReader(state_dict, ignore=(*ignored(config), *_BUFFERS))
    params, constants = inputs(reader, state_dict, config)
    width, layers = int(setting(config, "d_hid")), int(setting(config, "n_layers"))
    gnn: dict[str, Any] = {}
    for layer in range(layers):
        conv = f"gnn.convs.{layer}."
        gnn[f"edge_encoder_{layer}"] = reader.linear(f"{conv}edge_encoder", width, 2 * width)
        gnn[f"pre_{layer}"] = reader.linear(f"{conv}pre_nns.0.0", 2 * width, width)
        gnn[f"post_{layer}"] = reader.linear(f"{conv}post_nns.0.0", 9 * width, width)
        gnn[f"linear_{layer}"] = reader.linear(f"{conv}lin", width, width)
        if layer == layers - 1:
            break
        gnn[f"norm_{layer}"] = reader.norm(f"gnn.norms.{layer}", width)
        update = f"gnn.edge_update.{layer}."
        gnn[f"edge_linear_{layer}"] = reader.linear(f"{update}lin_e", width, width)
        gnn[f"source_linear_{layer}"] = reader.linear(f"{update}lin_s", width, width)
        gnn[f"target_linear_{layer}"] = reader.linear(f"{update}lin_t", width, width)
        gnn[f"edge_out_{layer}"] = reader.linear(f"{update}lin1", width, width)
    params["gnn"] = gnn
    constants |= head(reader, state_dict, params)
    reader.finish()
    return {"params": params, "constants": constants}
