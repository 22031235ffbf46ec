"""State dicts of networks of linear layers as variables of `models.mlp.MLP`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.models import registry
from flown_jax.torch_import import by_names

_FIRST = "module_list.0.weight"


def convert(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Variables {"params"} that compute what the PyTorch network computes.

    Args:
      state_dict: the zoos' names, `module_list.0.weight` and so on, an activation behind each
        layer but the last.
      config: the fields of `MLP`.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    module = registry.build("mlp", by_names.sizes(config, "image_size"))
    first = (
        np.atleast_1d(value).shape for name, value in state_dict.items() if name.endswith(_FIRST)
    )
    # No tensor's shape depends on how the inputs are arranged as an image.
    return by_names.read(state_dict, module, (1, 1, next(first, (1,))[-1]))
