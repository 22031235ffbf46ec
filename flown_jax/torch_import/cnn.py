"""State dicts of the model zoos' convolution networks as variables of `models.cnn.CNN`.

The zoos number the modules of a list, and a dropout takes a number, so that the same network has
several sets of names. Layers are therefore taken by their order (`layer_order`), and their shapes
checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.models import registry
from flown_jax.models.cnn_shapes import open_sizes, torch_kernels
from flown_jax.torch_import import by_names
from flown_jax.torch_import.common import StateReader
from flown_jax.torch_import.layer_order import Shape, layers_in_order


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params"} that compute what the PyTorch network computes.

    Args:
      state_dict: `NAME.weight` and `NAME.bias` of each layer: in the order of the network, or
        with numbers in the names (`module_list.3.weight`), then in any order.
      config: the fields of `CNN`. Also in_channels and image_size; where they are not given, the
        images' channels and the inputs of the first linear layer are those of the state dict.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name; layers that might be in several
        orders.
    """
    module: Any = registry.build("cnn", by_names.sizes(config, "image_size"))
    given = {name: tuple(np.shape(value)) for name, value in state_dict.items()}
    for name in given:
        _check_layer(name)
    inputs, flat = _sizes(given, module, config)
    shapes = module.kernel_shapes(inputs, flat)
    layers = layers_in_order(given, torch_kernels(module, inputs, flat))
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


def _check_layer(name: str) -> None:
    layer, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias") or not layer:
        raise UserError(
            f"The state dict has an entry unknown to this network: {name}, which is neither the "
            "weight nor the bias of a layer."
        )


def _sizes(shapes: Mapping[str, Shape], module: Any, config: Mapping[str, Any]) -> tuple[int, int]:
    """Channels of the images and inputs of the first linear layer."""
    inputs, flat = open_sizes(shapes.values(), module)
    inputs = config.get("in_channels") or inputs or 1
    if "image_size" in config:
        return inputs, module.flat_size(config["image_size"], config["image_size"])
    # A square map of the last convolution's channels; otherwise the shape is refused by name.
    channels = module.channels[-1]
    return inputs, channels * math.isqrt((flat or channels) // channels) ** 2
