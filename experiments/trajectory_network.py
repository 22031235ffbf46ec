"""The network of a trajectory, what of it is saved, and the images that it learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from experiments.zoo_training import preprocessing
from flown_jax.data import splits
from flown_jax.data.image_sets import ImageSet
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from flown_jax.models import registry
from flown_jax.models.subsets import last_norms
from flown_jax.training.augmentation import augmentation
from flown_jax.training.trajectory import Examples
from flown_jax.weights.spec import WeightSpec

PARTS = ("all", "last_norms")
SPLIT_SEED = 0  # images are drawn once and for all


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network and what of it is saved.

    Attributes:
      module: the network.
      inputs: from images to its input.
      spec: of the tensors that are saved.
      buffers_spec: of the running statistics, where each state has its own; else None.
      has_statistics: whether there are running statistics.
    """

    module: nn.Module
    inputs: Preprocessing
    spec: WeightSpec
    buffers_spec: WeightSpec | None
    has_statistics: bool

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of its images."""
        return self.inputs.size, self.inputs.size, self.inputs.channels

    def initial(self, key: jax.Array) -> Any:
        """Random variables."""
        return _initial(self.module, self.input_shape, key)


def build(network: Mapping[str, Any], inputs: ConfigDict, part: str) -> Network:
    """The network of a config.

    Args:
      network: its `name` and `sizes`, classes included.
      inputs: the group `inputs` of the config.
      part: what is saved: one of PARTS.
    Raises:
      UserError: an unknown network, sizes or images that do not fit it, no such part of it.
    """
    module, seen = registry.build(network["name"], network["sizes"]), preprocessing(inputs)
    shape = (seen.size, seen.size, seen.channels)
    shapes = jax.eval_shape(lambda key: _initial(module, shape, key), jax.random.key(0))
    spec = WeightSpec.from_module(module, shapes, inputs=seen.to_dict())
    has_statistics, buffers_spec = "batch_stats" in shapes, None
    if part == "last_norms":
        spec = spec.subset(set(last_norms(network["name"], module)).__contains__)
    elif has_statistics:
        buffers_spec = WeightSpec.from_module(
            module, shapes, inputs=seen.to_dict(), collections=("batch_stats",)
        )
    return Network(module, seen, spec, buffers_spec, has_statistics)


def examples(images: ImageSet, wanted: int, kind: str, inputs: Preprocessing) -> Examples:
    """What a network is trained on.

    Args:
      images: the training images.
      wanted: how many of them are used; 0 for all.
      kind: of the augmentation.
      inputs: of the network.
    Raises:
      UserError: there are not that many images, or an unknown augmentation.
    """
    rows = chosen(len(images.labels), wanted, "data.train_images")
    black = np.broadcast_to(-np.divide(inputs.mean, inputs.std), inputs.channels)
    augment = augmentation(kind, tuple(black.tolist()))
    return Examples(images.images[rows], images.labels[rows], inputs.apply, augment)


def chosen(count: int, wanted: int, field: str) -> np.ndarray:
    """Indices of as many of `count` images as wanted, drawn once and for all; 0 means all.

    Raises:
      UserError: there are not that many; `field` is named.
    """
    if not 0 <= wanted <= count:
        raise UserError(f"{field} is {wanted}; there are {count} images (0 takes all).")
    return splits.rows(count, wanted or count, SPLIT_SEED)[0]


def _initial(module: nn.Module, shape: tuple[int, int, int], key: jax.Array) -> Any:
    return module.init(key, jnp.zeros((1, *shape), jnp.float32))
