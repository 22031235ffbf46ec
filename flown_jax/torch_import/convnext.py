"""timm's ConvNeXt state dicts as variables of `models.convnext.ConvNeXt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.models import registry
from flown_jax.torch_import import by_names


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params"} that compute what the PyTorch network computes.

    Args:
      state_dict: names of timm 1.0; checkpoints of older versions have others and are refused.
      config: depths, dims, num_classes; those of convnext_tiny with 10 classes unless given.
        Also in_channels, 3 unless given.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module: Any = registry.build("convnext", by_names.sizes(config))
    any_size = 4 * 2 ** len(module.depths)  # no tensor's shape depends on it
    return by_names.read(state_dict, module, by_names.image_shape(config, any_size))
