"""Published CAML checkpoints (cfifty/CAML, `model.pth`) as variables of `conditioning.CAML`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.errors import UserError

_PREFIX = "transformer_encoder."
_IGNORED = "feature_extractor."


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params", "constants"} that compute what the checkpoint's transformer computes.

    Args:
      state_dict: with or without the prefix `transformer_encoder.`; the image encoder's entries
        (`feature_extractor.`) may be there and are left out.
      config: image_dim, label_dim, num_layers, mlp_dim, num_classes (hidden_dim, if given, must be
        image_dim + label_dim).
    Raises:
      UserError: missing, unused or mis-shaped entries, by name; a hidden_dim that does not fit.
    """
    width = config["image_dim"] + config["label_dim"]
    if config.get("hidden_dim", width) != width:
        raise UserError(
            f"hidden_dim={config['hidden_dim']} must be image_dim + label_dim = {width}."
        )
    state = {
        name.removeprefix(_PREFIX): value
        for name, value in state_dict.items()
        if not name.startswith(_IGNORED)
    }
    label_dim, num_classes = config["label_dim"], config["num_classes"]
    params: dict[str, Any] = {
        "unknown": _take(state, "unk_emb", (1, 1, label_dim)).reshape(label_dim),
        "elmes_scale": _take(state, "elmes_scale", (1,)).reshape(()),
        "head": {"kernel": _take(state, "output_proj.weight", (num_classes, width)).T},
        "norm": _layer_norm(state, "encoder.ln", width),
    }
    table = _take(state, "label_elmes", (num_classes, label_dim))
    for i in range(config["num_layers"]):
        prefix = f"encoder.layers.encoder_layer_{i}"
        attention, mlp_dim = f"{prefix}.self_attention", config["mlp_dim"]
        in_proj = _take(state, f"{attention}.in_proj_weight", (3 * width, width))
        params[f"blocks_{i}"] = {
            "norm_1": _layer_norm(state, f"{prefix}.ln_1", width),
            "in_proj": {
                "kernel": in_proj.T,
                "bias": _take(state, f"{attention}.in_proj_bias", (3 * width,)),
            },
            "out_proj": _linear(state, f"{attention}.out_proj", width, width),
            "norm_2": _layer_norm(state, f"{prefix}.ln_2", width),
            "mlp_in": _linear(state, f"{prefix}.mlp.0", width, mlp_dim),
            "mlp_out": _linear(state, f"{prefix}.mlp.3", mlp_dim, width),
        }
    if state:
        raise UserError(f"A CAML of this config has no entry {', '.join(sorted(state))}.")
    return {"params": params, "constants": {"elmes": table}}


def _linear(state: dict[str, Any], name: str, inputs: int, outputs: int) -> dict[str, Any]:
    return {
        "kernel": _take(state, f"{name}.weight", (outputs, inputs)).T,
        "bias": _take(state, f"{name}.bias", (outputs,)),
    }


def _layer_norm(state: dict[str, Any], name: str, width: int) -> dict[str, Any]:
    return {
        "scale": _take(state, f"{name}.weight", (width,)),
        "bias": _take(state, f"{name}.bias", (width,)),
    }


def _take(state: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Removes and returns an entry of the wanted shape."""
    if name not in state:
        raise UserError(f"The CAML state dict has no entry {name!r}.")
    value = np.asarray(state.pop(name), dtype=np.float32)
    if value.shape != shape:
        raise UserError(f"{name} has shape {value.shape}, where this config needs {shape}.")
    return value
