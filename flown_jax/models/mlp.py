"""The plain network of linear layers on flattened images."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.initializers import torch_kernel, torch_uniform
from flown_jax.models import state_names
from flown_jax.models.activations import get_activation


class MLP(nn.Module):
    """Class logits of images, which are flattened as PyTorch does: channel, row, column.

    Attributes:
      hidden: widths of the layers before the classifier.
      activation: a name of `activations.get_activation`.
      dtype: of the computation; parameters are float32.
    Raises:
      UserError: an unknown activation.
    """

    hidden: tuple[int, ...] = (64, 64)
    num_classes: int = 10
    activation: str = "relu"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        get_activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, return_stages: bool = False
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Logits, (B, num_classes).

        Args:
          images: (B, H, W, C), preprocessed.
          train: has no effect, the network is the same in training.
          return_stages: also return {"act_0": (B, n), ...}, the output of each activation.
        Raises:
          UserError: images of another rank or of another size than the parameters.
        """
        del train
        if images.ndim != 4:
            raise UserError(f"images {images.shape} must be (B, H, W, C).")
        x = images.astype(self.dtype).transpose(0, 3, 1, 2).reshape(images.shape[0], -1)
        if self.has_variable("params", "dense_0"):
            rows = self.get_variable("params", "dense_0")["kernel"].shape[0]
            if rows != x.shape[1]:
                raise UserError(
                    f"images of {images.shape[1:]} have {x.shape[1]} values, where the parameters "
                    f"of this MLP have {rows}."
                )
        stages: dict[str, Array] = {}
        for i, width in enumerate((*self.hidden, self.num_classes)):
            x = nn.Dense(
                width,
                kernel_init=torch_kernel,
                bias_init=torch_uniform(x.shape[1]),
                dtype=self.dtype,
                name=f"dense_{i}",
            )(x)
            if i < len(self.hidden):
                x = stages[f"act_{i}"] = get_activation(self.activation)(x)
        return (x, stages) if return_stages else x

    def state_dict_names(self) -> dict[str, str]:
        """PyTorch's names in the zoos' code, in order, and the paths of the same tensors here.

        There a network is one list of modules, so an index counts the activations before it.
        """
        names: dict[str, str] = {}
        for i in range(len(self.hidden) + 1):
            names |= state_names.layer(f"module_list.{2 * i}", f"dense_{i}")
        return names
