"""State dicts of the model zoos' convolution networks as variables of `models.cnn.CNN`.

The zoos number the modules of a list, and a dropout takes a number, so that the same network has
several sets of names. Layers are therefore taken by their order, and their shapes checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.models import registry
from flown_jax.torch_import import by_names
from flown_jax.torch_import.common import StateReader


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params"} that compute what the PyTorch network computes.

    Args:
      state_dict: `NAME.weight` and `NAME.bias` of each layer: in the order of the network, or
        with a number as the last part of NAME (`module_list.3.weight`), then in any order.
      config: the fields of `CNN`. Also in_channels and image_size; where they are not given, the
        images' channels and the inputs of the first linear layer are those of the state dict.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module: Any = registry.build("cnn", by_names.sizes(config, "image_size"))
    layers = _ordered_layers(state_dict)
    inputs, flat = _open_sizes(state_dict, layers, module, config)
    shapes = module.kernel_shapes(inputs, flat)
    if len(layers) != len(shapes):
        raise UserError(
            f"The state dict has {len(layers)} layers ({', '.join(layers)}), where this CNN has "
            f"{len(shapes)}."
        )
    reader = StateReader(state_dict)
    params = {
        ours: {
            "kernel": by_names.take(reader, f"{layer}.weight", f"{ours}/kernel", shape),
            "bias": reader.take(f"{layer}.bias", shape[-1:]),
        }
        for layer, (ours, shape) in zip(layers, shapes.items(), strict=True)
    }
    reader.finish()
    return {"params": params}


def _ordered_layers(state_dict: Mapping[str, Any]) -> list[str]:
    """Names of the layers, by number where all have one under the same parent."""
    layers = list(dict.fromkeys(_layer(name) for name in state_dict))
    parents = {layer.rpartition(".")[0] for layer in layers}
    numbers = [layer.rpartition(".")[2] for layer in layers]
    if len(parents) == 1 and all(number.isdigit() for number in numbers):
        return sorted(layers, key=lambda layer: int(layer.rpartition(".")[2]))
    return layers


def _layer(name: str) -> str:
    layer, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias") or not layer:
        raise UserError(
            f"The state dict has an entry unknown to this network: {name}, which is neither the "
            "weight nor the bias of a layer."
        )
    return layer


def _open_sizes(
    state_dict: Mapping[str, Any], layers: list[str], module: Any, config: Mapping[str, Any]
) -> tuple[int, int]:
    """Channels of the images and inputs of the first linear layer."""
    kernels: list[tuple[int, ...]] = [
        np.shape(state_dict.get(f"{layer}.weight", ())) for layer in layers
    ]
    inputs = config.get("in_channels")
    if inputs is None:
        inputs = kernels[0][1] if kernels and len(kernels[0]) == 4 else 1
    if "image_size" in config:
        return inputs, module.flat_size(config["image_size"], config["image_size"])
    # A square map of the last convolution's channels; otherwise the shape is refused by name.
    convs, channels = len(module.channels), module.channels[-1]
    rows = kernels[convs][-1:] if len(kernels) > convs else ()
    side = math.isqrt(rows[0] // channels) if rows else 1
    return inputs, channels * side**2
