"""ResNet-18 state dicts with a CIFAR stem as variables of `models.resnet.ResNet18`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.models import registry
from flown_jax.torch_import import by_names

_ANY_SIZE = 32  # no tensor's shape depends on it


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params", "batch_stats"} that compute what the PyTorch network computes.

    Args:
      state_dict: names of kuangliu/pytorch-cifar (shortcut.0, linear) or of torchvision
        (downsample.0, fc), told apart by themselves.
      config: width and num_classes, 64 and 10 unless given; in_channels, 3 unless given.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    torchvision = any(name.startswith("fc.") or ".downsample." in name for name in state_dict)
    style = {"names": "torchvision" if torchvision else "cifar"}
    module = registry.build("resnet18", by_names.sizes(config, "names") | style)
    return by_names.read(state_dict, module, by_names.image_shape(config, _ANY_SIZE))
