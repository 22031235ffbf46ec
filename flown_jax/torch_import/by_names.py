"""State dicts of networks that know PyTorch's names of their tensors (`state_dict_names`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flown_jax.models import layout
from flown_jax.torch_import.common import StateReader
from flown_jax.torch_import.names import fitting

# A counter of BatchNorm that no computation uses.
_IGNORED = ".num_batches_tracked"


def read(
    state_dict: Mapping[str, Any],
    module: nn.Module,
    image_shape: tuple[int, int, int],
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Variables of the module that hold the state dict's values.

    Args:
      state_dict: PyTorch names to arrays; `num_batches_tracked` is left out, and parts that all
        names begin with (`model.`) are taken off.
      module: a base model.
      image_shape: (H, W, C) of its images, which decides some tensors' shapes.
      names: PyTorch names to paths; None takes `module.state_dict_names()`.
    Raises:
      UserError: missing, extra or mis-shaped entries, by name.
    """
    shapes = linen_shapes(module, image_shape)
    names = names or module.state_dict_names()
    reader = StateReader(fitting(without_counters(state_dict), set(names).issubset))
    flat = {path: take(reader, name, path, shapes[path]) for name, path in names.items()}
    reader.finish()
    return layout.nested(flat)


def without_counters(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without BatchNorm's counters."""
    return {name: value for name, value in state_dict.items() if not name.endswith(_IGNORED)}


def linen_shapes(
    module: nn.Module, image_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the module's variables by path, such as "params/conv_0/kernel"."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = jax.tree_util.tree_leaves_with_path(
        jax.eval_shape(module.init, jax.random.key(0), images)
    )
    return {"/".join(entry.key for entry in path): leaf.shape for path, leaf in found}


def take(reader: StateReader, name: str, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Entry `name` in the layout of the linen tensor at `path`, which has this shape."""
    value = layout.from_torch(path, reader.take(name, layout.torch_shape(path, shape)))
    # safetensors writes transposed views wrongly, so every array leaves here contiguous.
    return np.ascontiguousarray(value).reshape(shape)


def image_shape(config: Mapping[str, Any], size: int) -> tuple[int, int, int]:
    """(H, W, C) of square images with `in_channels` of the configuration, 3 unless given."""
    return (size, size, int(config.get("in_channels", 3)))


def sizes(config: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """The configuration without entries that are no fields of the module."""
    return {name: value for name, value in config.items() if name not in ("in_channels", *others)}
