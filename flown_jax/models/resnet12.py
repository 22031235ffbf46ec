"""ResNet-12, the few-shot backbone (paper section 3.2; Meta-Baseline's form of it).

Four blocks of three 3x3 convolutions beside a 1x1 shortcut, LeakyReLU 0.1 and a 2x2 max-pooling
that floors, then the mean over positions. No stem, no dropout. Convolutions are linen's own, the
fastest form in straight code: train in a Python loop over one jitted step, not in a scan.
Source: Chen et al., Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning, 2021.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.layers.conv_norm import conv_norm
from flown_jax.models import state_names

_SLOPE = 0.1
# N(0, 2 / (k^2 c_out)), untruncated.
_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet12(nn.Module):
    """Pooled image features, with a linear classifier beside them if asked for.

    Attributes:
      channels: widths of the four blocks; 64-128-256-512 is the published backbone.
      num_classes: classes of `logits`; None leaves the classifier out.
      dtype: of the computation; parameters and statistics are float32.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    num_classes: int | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        for i, width in enumerate(self.channels, start=1):
            setattr(self, f"layer{i}", _Block(width, dtype=self.dtype))
        if self.num_classes is not None:
            self.classifier = nn.Dense(self.num_classes, dtype=self.dtype)

    def __call__(
        self, images: Array, train: bool = False, return_stages: bool = False
    ) -> Array | tuple[Array, dict[str, Array]]:
        """Features, (B, channels[-1]).

        Args:
          images: (B, H, W, C) with H, W >= 2 ** len(channels), so that no map is empty.
          train: normalise by the batch and update `batch_stats` (momentum 0.9).
          return_stages: also return {"layer1": (B, H/2, W/2, channels[0]), ...}.
        Raises:
          ValueError: images without four axes or too small.
        """
        smallest = 2 ** len(self.channels)
        if images.ndim != 4 or min(images.shape[1:3]) < smallest:
            raise ValueError(
                f"images {images.shape} must be (B, H, W, C) with sides of at least {smallest}."
            )
        x, stages = images.astype(self.dtype), {}
        for i in range(1, len(self.channels) + 1):
            x = getattr(self, f"layer{i}")(x, train)
            stages[f"layer{i}"] = x
        features = jnp.mean(x, axis=(1, 2))
        if self.is_initializing() and self.num_classes is not None:
            self.classifier(features)
        return (features, stages) if return_stages else features

    def logits(self, images: Array, train: bool = False) -> Array:
        """Class logits, (B, num_classes); arguments as in `__call__`.

        Raises:
          ValueError: the module has no classifier.
        """
        if self.num_classes is None:
            raise ValueError("This ResNet12 has no classifier: give it num_classes.")
        return self.classifier(self(images, train))

    def state_dict_names(self) -> dict[str, str]:
        """Meta-Baseline's names, in order, and the paths of the same tensors here."""
        names: dict[str, str] = {}
        for i in range(1, len(self.channels) + 1):
            torch, ours = f"encoder.layer{i}", f"layer{i}"
            for j in (1, 2, 3):
                names |= state_names.conv_norm(
                    f"{torch}.conv{j}", f"{torch}.bn{j}", f"{ours}/conv{j}", f"{ours}/bn{j}"
                )
            shortcut = f"{torch}.downsample"
            names |= state_names.conv_norm(
                f"{shortcut}.0", f"{shortcut}.1", f"{ours}/shortcut_conv", f"{ours}/shortcut_bn"
            )
        if self.num_classes is not None:
            names |= state_names.layer("classifier.linear", "classifier")
        return names


class _Block(nn.Module):
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = nn.leaky_relu(self._normalised(x, 3, 1, train), _SLOPE)
        h = nn.leaky_relu(self._normalised(h, 3, 2, train), _SLOPE)
        h = self._normalised(h, 3, 3, train)
        shortcut = self._normalised(x, 1, None, train)
        return _max_pool(nn.leaky_relu(h + shortcut, _SLOPE))

    def _normalised(self, x: Array, size: int, index: int | None, train: bool) -> Array:
        names = (
            ("shortcut_conv", "shortcut_bn") if index is None else (f"conv{index}", f"bn{index}")
        )
        return conv_norm(x, self.width, size, train=train, names=names, kernel_init=_CONV_INIT)


def _max_pool(x: Array) -> Array:
    """2x2 maxima, an odd last row or column left out.

    Maxima of four strided slices: their gradient is a third cheaper on CPU than reduce_window's.
    """
    height, width = 2 * (x.shape[1] // 2), 2 * (x.shape[2] // 2)
    x = x[:, :height, :width]
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
