"""ConvNeXt (paper table 8), timm's form of it.

A 4x4 stem, stages of blocks with a 7x7 depthwise convolution, an MLP over channels and a learned
scale on what the block adds; 2x2 convolutions of stride 2 between the stages. The head averages
over positions before it normalises.
Source: Liu et al., A ConvNet for the 2020s, 2022.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError
from flown_jax.models import state_names

_TRUNCATED = nn.initializers.truncated_normal(0.02)
_LAYER_SCALE = 1e-6  # at the start of training
_MLP_RATIO = 4


class ConvNeXt(nn.Module):
    """Class logits of images; the defaults are timm's convnext_tiny.

    Attributes:
      depths, dims: blocks and channels of each stage.
      epsilon: of LayerNorm; ConvNeXt's variants differ in it.
      dtype: of the computation; parameters are float32.
    Raises:
      UserError: depths and dims of different lengths, a last stage without blocks.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    dims: tuple[int, ...] = (96, 192, 384, 768)
    num_classes: int = 10
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.dims):
            raise UserError(
                f"a ConvNeXt needs depths and dims of one length, not {self.depths} and "
                f"{self.dims}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Array, train: bool = False, return_stages: bool = False
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Logits, (B, num_classes).

        Args:
          images: (B, H, W, C), sides of at least 4 * 2 ** (stages - 1).
          train: has no effect, the network is the same in training.
          return_stages: also return {"stem": ..., "stage_0": ..., ...}, maps (B, H', W', C').
        Raises:
          UserError: images of another rank or too small.
        """
        del train
        smallest = 4 * 2 ** (len(self.depths) - 1)
        if images.ndim != 4 or min(images.shape[1:3]) < smallest:
            raise UserError(
                f"images {images.shape} must be (B, H, W, C) with sides of at least {smallest}."
            )
        x, stages = images.astype(self.dtype), {}
        x = self._conv(self.dims[0], 4, "stem_conv")(x)
        x = stages["stem"] = _layer_norm(self.epsilon, self.dtype, "stem_norm")(x)
        for s, (depth, width) in enumerate(zip(self.depths, self.dims, strict=True)):
            if s:
                x = _layer_norm(self.epsilon, self.dtype, f"downsample_{s}_norm")(x)
                x = self._conv(width, 2, f"downsample_{s}_conv")(x)
            for b in range(depth):
                x = _Block(self.epsilon, self.dtype, name=f"stage_{s}_block_{b}")(x)
            stages[f"stage_{s}"] = x
        pooled = jnp.mean(x, axis=(1, 2))
        features = _layer_norm(self.epsilon, self.dtype, "head_norm")(pooled)
        logits = _dense(self.num_classes, self.dtype, "head")(features)
        return (logits, stages) if return_stages else logits

    def state_dict_names(self) -> dict[str, str]:
        """timm's names, in order, and the paths of the same tensors here."""
        names = _names("stem.0", "stem_conv") | _names("stem.1", "stem_norm")
        for s, depth in enumerate(self.depths):
            if s:
                downsample = f"stages.{s}.downsample"
                names |= _names(f"{downsample}.0", f"downsample_{s}_norm")
                names |= _names(f"{downsample}.1", f"downsample_{s}_conv")
            for b in range(depth):
                torch, ours = f"stages.{s}.blocks.{b}", f"stage_{s}_block_{b}"
                names[f"{torch}.gamma"] = f"params/{ours}/gamma"
                for layer in ("conv_dw", "norm", "mlp.fc1", "mlp.fc2"):
                    names |= _names(f"{torch}.{layer}", f"{ours}/{layer.removeprefix('mlp.')}")
        return names | _names("head.norm", "head_norm") | _names("head.fc", "head")

    def _conv(self, width: int, size: int, name: str) -> nn.Conv:
        """A convolution whose stride is its size, without padding."""
        return nn.Conv(
            width,
            (size, size),
            strides=size,
            padding="VALID",
            kernel_init=_TRUNCATED,
            dtype=self.dtype,
            name=name,
        )


class _Block(nn.Module):
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        h = nn.Conv(
            width,
            (7, 7),
            padding=((3, 3), (3, 3)),
            feature_group_count=width,
            kernel_init=_TRUNCATED,
            dtype=self.dtype,
            name="conv_dw",
        )(x)
        h = _layer_norm(self.epsilon, self.dtype, "norm")(h)
        h = jax.nn.gelu(_dense(_MLP_RATIO * width, self.dtype, "fc1")(h), approximate=False)
        h = _dense(width, self.dtype, "fc2")(h)
        gamma = self.param("gamma", nn.initializers.constant(_LAYER_SCALE), (width,))
        return x + h * gamma.astype(self.dtype)


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=_TRUNCATED, dtype=dtype, name=name)


def _layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)


def _names(torch: str, ours: str) -> dict[str, str]:
    return (state_names.norm if ours.endswith("norm") else state_names.layer)(torch, ours)
