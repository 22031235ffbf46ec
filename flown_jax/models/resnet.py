"""ResNet-18 for small images: 3x3 stem, no max-pooling (paper section 4.1, table 8).

Stride 2 pads one row and column on every side, as PyTorch does; XLA's SAME would pad one side.
In training the running variance is moved by the batch's biased variance, where PyTorch stores the
unbiased one, n / (n - 1) times as large.
Source: He et al., Deep Residual Learning for Image Recognition, 2016, in the form of
kuangliu/pytorch-cifar.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.conv_norm import conv_norm
from flown_jax.layers.initializers import torch_kernel, torch_uniform
from flown_jax.models import state_names

_BLOCKS = tuple((stage, block) for stage in (1, 2, 3, 4) for block in (0, 1))
# PyTorch's names of the shortcut and the classifier, by style.
_STYLES = {"cifar": ("shortcut", "linear"), "torchvision": ("downsample", "fc")}


class ResNet18(nn.Module):
    """Class logits of images.

    Attributes:
      width: channels of the first stage, doubled by each of the next three.
      names: of `state_dict_names`, `cifar` (shortcut.0, linear) or `torchvision` (downsample.0,
        fc); the function is the same.
      dtype: of the computation; parameters and statistics are float32.
    Raises:
      UserError: an unknown style of names.
    """

    width: int = 64
    num_classes: int = 10
    names: str = "cifar"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.names not in _STYLES:
            raise UserError(f"names must be one of {', '.join(_STYLES)}, not {self.names!r}.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, return_stages: bool = False
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Logits, (B, num_classes).

        Args:
          images: (B, H, W, C), of any size; the last map's mean is classified.
          train: normalise by the batch and update `batch_stats` (momentum 0.9).
          return_stages: also return {"layer1": (B, H, W, width), ...}, the maps of the stages.
        Raises:
          UserError: images of another rank.
        """
        if images.ndim != 4:
            raise UserError(f"images {images.shape} must be (B, H, W, C).")
        x, stages = images.astype(self.dtype), {}
        x = nn.relu(_normalised(x, self.width, 3, 1, train, "conv1", "bn1"))
        for stage, block in _BLOCKS:
            width = self.width * 2 ** (stage - 1)
            stride = 2 if _shrinks(stage, block) else 1
            x = _Block(width, stride, self.dtype, name=f"layer{stage}_{block}")(x, train)
            stages[f"layer{stage}"] = x
        features = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(
            self.num_classes,
            kernel_init=torch_kernel,
            bias_init=torch_uniform(8 * self.width),
            dtype=self.dtype,
            name="linear",
        )(features)
        return (logits, stages) if return_stages else logits

    def state_dict_names(self) -> dict[str, str]:
        """PyTorch's names, in order, and the paths of the same tensors here."""
        shortcut, linear = _STYLES[self.names]
        names = state_names.conv_norm("conv1", "bn1", "conv1", "bn1")
        for stage, block in _BLOCKS:
            torch, ours = f"layer{stage}.{block}", f"layer{stage}_{block}"
            for i in (1, 2):
                names |= state_names.conv_norm(
                    f"{torch}.conv{i}", f"{torch}.bn{i}", f"{ours}/conv{i}", f"{ours}/bn{i}"
                )
            if _shrinks(stage, block):
                names |= state_names.conv_norm(
                    f"{torch}.{shortcut}.0",
                    f"{torch}.{shortcut}.1",
                    f"{ours}/shortcut_conv",
                    f"{ours}/shortcut_bn",
                )
        return names | state_names.layer(linear, "linear")


class _Block(nn.Module):
    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = nn.relu(_normalised(x, self.width, 3, self.stride, train, "conv1", "bn1"))
        h = _normalised(h, self.width, 3, 1, train, "conv2", "bn2")
        if self.stride != 1:
            names = ("shortcut_conv", "shortcut_bn")
            x = _normalised(x, self.width, 1, self.stride, train, *names)
        return nn.relu(h + x)


def _normalised(
    x: Array, width: int, size: int, stride: int, train: bool, conv: str, norm: str
) -> Array:
    return conv_norm(
        x, width, size, train=train, names=(conv, norm), kernel_init=torch_kernel, stride=stride
    )


def _shrinks(stage: int, block: int) -> bool:
    """Whether the block has stride 2 and so a convolution in its shortcut."""
    return stage > 1 and block == 0
