"""timm's VisionTransformer state dicts as variables of `models.vit.VisionTransformer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flown_jax.models import registry
from flown_jax.torch_import import by_names


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params"} that compute what the PyTorch network computes.

    Args:
      state_dict: timm's names (vit_base_patch16_224 and its kind).
      config: patch_size, embed_dim, depth, num_heads, num_classes; those of
        vit_base_patch16_224 with 10 classes unless given. Also img_size, 224, and in_channels, 3.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module = registry.build("vit", by_names.sizes(config, "img_size"))
    return by_names.read(
        state_dict, module, by_names.image_shape(config, config.get("img_size", 224))
    )
