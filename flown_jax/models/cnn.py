"""The convolution networks of the model zoos (paper section 4.1; Schuerholt et al., 2022).

Convolutions without padding, each followed by a 2x2 max-pooling that floors where `pools` says so
and by the activation, in this order: for GELU and SiLU pooling afterwards is another function.
Then linear layers on the maps flattened as PyTorch does, channel, row, column. Every layer has a
bias. Convolutions are linen's own, the fastest form in straight code; `models.many` runs many
networks at once.
Source: Schuerholt et al., Model Zoos: A Dataset of Diverse Populations of Neural Networks, 2022.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.initializers import torch_kernel, torch_uniform
from flown_jax.models import state_names
from flown_jax.models.activations import get_activation


class CNN(nn.Module):
    """Class logits of images; the defaults are CNN-small with tanh.

    Attributes:
      channels, kernels, pools: of each convolution, its outputs, kernel size, and whether it is
        pooled.
      hidden: widths of the linear layers before the classifier.
      activation: a name of `activations.get_activation`.
      dropout: rate after each pooled convolution and each hidden layer.
      dtype: of the computation; parameters are float32.
    Raises:
      UserError: lists of different lengths, an unknown activation.
    """

    channels: tuple[int, ...] = (8, 6, 4)
    kernels: tuple[int, ...] = (5, 5, 2)
    pools: tuple[bool, ...] = (True, True, False)
    hidden: tuple[int, ...] = (20,)
    num_classes: int = 10
    activation: str = "tanh"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.kernels) == len(self.pools) >= 1:
            raise UserError(
                f"a CNN needs channels, kernels and pools of one length, not {self.channels}, "
                f"{self.kernels} and {self.pools}."
            )
        get_activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, return_stages: bool = False
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Logits, (B, num_classes).

        Args:
          images: (B, H, W, C), preprocessed.
          train: drop activations; needs the random stream `dropout` if the rate is not zero.
          return_stages: also return {"act_0": ..., "act_1": ...}, the output of each activation,
            maps (B, H', W', C') and then rows (B, n).
        Raises:
          UserError: images of another rank, too small, or of another size than the parameters.
        """
        if images.ndim != 4:
            raise UserError(f"images {images.shape} must be (B, H, W, C).")
        shapes = self._checked_shapes(images.shape[1:])
        activation = get_activation(self.activation)
        x = images.astype(self.dtype)
        stages: dict[str, Array] = {}
        for i, (width, size, pooled) in enumerate(
            zip(self.channels, self.kernels, self.pools, strict=True)
        ):
            x = nn.Conv(
                width,
                (size, size),
                padding="VALID",
                kernel_init=torch_kernel,
                bias_init=torch_uniform(_fan_in(shapes[f"conv_{i}"])),
                dtype=self.dtype,
                name=f"conv_{i}",
            )(x)
            x = nn.max_pool(x, (2, 2), (2, 2)) if pooled else x
            x = stages[f"act_{len(stages)}"] = activation(x)
            x = self._dropped(x, train) if pooled else x
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        for i, width in enumerate((*self.hidden, self.num_classes)):
            x = nn.Dense(
                width,
                kernel_init=torch_kernel,
                bias_init=torch_uniform(_fan_in(shapes[f"dense_{i}"])),
                dtype=self.dtype,
                name=f"dense_{i}",
            )(x)
            if i < len(self.hidden):
                x = stages[f"act_{len(stages)}"] = activation(x)
                x = self._dropped(x, train)
        return (x, stages) if return_stages else x

    def flat_size(self, height: int, width: int) -> int:
        """Inputs of the first linear layer for images of height x width.

        Raises:
          UserError: nothing is left of the image.
        """
        sides = [height, width]
        for size, pooled in zip(self.kernels, self.pools, strict=True):
            sides = [(side - size + 1) // (2 if pooled else 1) for side in sides]
            if min(sides) < 1:
                raise UserError(f"images of {height}x{width} are too small for this CNN.")
        return self.channels[-1] * sides[0] * sides[1]

    def kernel_shapes(self, inputs: int, flat: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the kernels by layer: (k, k, in, out) and (in, out).

        Args:
          inputs: channels of the images.
          flat: inputs of the first linear layer, `flat_size`.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (width, size) in enumerate(zip(self.channels, self.kernels, strict=True)):
            shapes[f"conv_{i}"] = (size, size, inputs, width)
            inputs = width
        inputs = flat
        for i, width in enumerate((*self.hidden, self.num_classes)):
            shapes[f"dense_{i}"] = (inputs, width)
            inputs = width
        return shapes

    def state_dict_names(self) -> dict[str, str]:
        """PyTorch's names in the zoos' code, in order, and the paths of the same tensors here.

        There a network is one list of modules, so an index counts the activations, poolings and
        dropouts before it. The medium network (all convolutions pooled) lists its dropouts at
        rate zero, too.
        """
        dropouts = self.dropout > 0 or all(self.pools)
        names: dict[str, str] = {}
        index = 0
        for i, pooled in enumerate(self.pools):
            names |= state_names.layer(f"module_list.{index}", f"conv_{i}")
            index += 2 + pooled + (pooled and dropouts)
        index += 1  # nn.Flatten
        for i in range(len(self.hidden) + 1):
            names |= state_names.layer(f"module_list.{index}", f"dense_{i}")
            index += 2 + dropouts
        return names

    def _dropped(self, x: Array, train: bool) -> Array:
        return nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x

    def _checked_shapes(self, image_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        height, width, channels = image_shape
        flat = self.flat_size(height, width)
        if self.has_variable("params", "dense_0"):
            rows = self.get_variable("params", "dense_0")["kernel"].shape[0]
            if rows != flat:
                raise UserError(
                    f"images of {height}x{width} give this CNN {flat} inputs of its first linear "
                    f"layer, whose parameters have {rows}."
                )
        return self.kernel_shapes(channels, flat)


def cnn_small(**overrides: Any) -> CNN:
    """CNN-small, for 28x28 images: 2,464 parameters with 1 channel, 2,864 with 3."""
    return CNN(**overrides)


def cnn_medium(**overrides: Any) -> CNN:
    """CNN-medium, for 32x32 images: 10,565 parameters with 1 channel, 10,853 with 3."""
    sizes = {"channels": (16, 32, 15), "kernels": (3, 3, 3), "pools": (True, True, True)}
    return CNN(**(sizes | overrides))


def _fan_in(kernel_shape: tuple[int, ...]) -> int:
    return math.prod(kernel_shape[:-1])
