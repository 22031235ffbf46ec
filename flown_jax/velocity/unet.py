"""UNet velocity network (paper A.2.3): the one of ADM, torchcfm and D2NWG.

Given the same sizes it computes what those three compute; `torch_import` reads their parameters.
Every residual block sees an embedding of time and condition. The last layers start at zero, so the
velocity is zero before training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError
from flown_jax.layers.attention import MultiHeadAttention
from flown_jax.layers.conv import Conv
from flown_jax.layers.dense import Dense
from flown_jax.layers.embeddings import sinusoidal_embedding
from flown_jax.layers.normalization import GroupNorm
from flown_jax.layers.resampling import ALL_SIDES, Downsample, Upsample
from flown_jax.layers.residual import TimeResidualBlock

CONDITION_ENTRIES = ("label", "channels", "embedding")


class UNet(nn.Module):
    """velocity(x, t, condition) on maps x (B, H, W, C), v (B, H, W, out_channels).

    The condition is None or a dict with any of
    - `label` (B,) integers below num_classes, embedded and added to the time embedding;
    - `channels` (B, H, W, c), appended to the input's channels (paper sec. 2.2, D2NWG);
    - `embedding` (B, e), joined with the sinusoid of time by a linear layer (paper A.4.2).
    Which entries a network takes is settled when its parameters are made.

    Attributes:
      model_channels: base width and width of the sinusoid.
      out_channels: of the velocity.
      channel_mult: width of each level over model_channels; every level but the last halves the
        side.
      num_res_blocks: residual blocks a level (one more on the way up).
      attention_resolutions: factors by which the map is smaller where attention follows a block;
        the middle always attends.
      num_heads, num_head_channels: heads, or their width when that is given.
      num_heads_upsample: heads on the way up; None for num_heads.
      use_scale_shift_norm: embeddings scale and shift instead of being added.
      resblock_updown: residual blocks change the side instead of convolutions.
      use_new_attention_order: layout of the attention's qkv, see `layers.attention`.
      num_classes: of the label; None for no label.
      num_groups, epsilon: of the normalisations.
      time_scale: t is multiplied by it first (1 feeds t in [0, 1] as torchcfm does).
      form: of the convolutions, see `layers.conv`.
      dtype: of the computation; None keeps the input's.
    """

    model_channels: int
    out_channels: int
    channel_mult: Sequence[float]
    num_res_blocks: int
    attention_resolutions: Sequence[int] = ()
    num_heads: int = 1
    num_head_channels: int | None = None
    num_heads_upsample: int | None = None
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    num_classes: int | None = None
    num_groups: int = 32
    epsilon: float = 1e-5
    time_scale: float = 1.0
    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, t: Array | float, condition: Mapping | None = None) -> Array:
        """Returns the velocity at x and t.

        Args:
          x: (B, H, W, C), H and W multiples of 2^(levels - 1).
          t: times, (B,) or scalar.
          condition: None or a dict, see the class.
        Returns:
          (B, H, W, out_channels).
        Raises:
          UserError: sides, times or conditions that do not fit.
        """
        condition = self._checked(x, condition)
        if "channels" in condition:
            x = jnp.concatenate([x, condition["channels"].astype(x.dtype)], -1)
        embedding = self._embedding(x.shape[0], t, condition)

        widths = [int(mult * self.model_channels) for mult in self.channel_mult]
        last = len(widths) - 1
        h = Conv(widths[0], form=self.form, dtype=self.dtype, name="input_blocks_0_0")(x)
        skips, factor = [h], 1
        for level, width in enumerate(widths):
            for _ in range(self.num_res_blocks):
                at = f"input_blocks_{len(skips)}"
                h = self._block(width, f"{at}_0")(h, embedding)
                if factor in self.attention_resolutions:
                    h = self._attention(h, f"{at}_1")
                skips.append(h)
            if level < last:
                h = self._resample("down", h, embedding, f"input_blocks_{len(skips)}_0")
                skips.append(h)
                factor *= 2

        h = self._block(widths[-1], "middle_block_0")(h, embedding)
        h = self._attention(h, "middle_block_1")
        h = self._block(widths[-1], "middle_block_2")(h, embedding)

        n = 0
        for level in reversed(range(len(widths))):
            for j in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = self._block(widths[level], f"output_blocks_{n}_0")(h, embedding)
                part = 1
                if factor in self.attention_resolutions:
                    h = self._attention(h, f"output_blocks_{n}_1", up=True)
                    part = 2
                if level > 0 and j == self.num_res_blocks:
                    h = self._resample("up", h, embedding, f"output_blocks_{n}_{part}")
                    factor //= 2
                n += 1

        h = jax.nn.silu(GroupNorm(self.num_groups, self.epsilon, self.dtype, name="out_norm")(h))
        zeros = nn.initializers.zeros
        return Conv(
            self.out_channels,
            form=self.form,
            kernel_init=zeros,
            bias_init=zeros,
            dtype=self.dtype,
            name="out_conv",
        )(h)

    def _embedding(self, batch: int, t: Array | float, condition: Mapping) -> Array:
        t = jnp.asarray(t, jnp.float32)
        if t.shape not in ((), (batch,)):
            raise UserError(f"t must be a scalar or of shape ({batch},), got {t.shape}.")
        times = jnp.broadcast_to(t, (batch,)) * self.time_scale
        sinusoid = sinusoidal_embedding(times, self.model_channels)
        if "embedding" in condition:
            joined = jnp.concatenate([sinusoid, condition["embedding"].astype(sinusoid.dtype)], -1)
            project = Dense(self.model_channels, dtype=self.dtype, name="condition_projection")
            sinusoid = project(joined)
        embedding = TimeEmbedding(4 * self.model_channels, self.dtype, name="time_embed")(sinusoid)
        if "label" in condition:
            table = nn.Embed(
                int(self.num_classes or 0),
                4 * self.model_channels,
                embedding_init=nn.initializers.normal(1.0),
                dtype=self.dtype,
                name="label_emb",
            )
            embedding = embedding + table(condition["label"])
        return embedding

    def _block(self, width: int, name: str, resample: str = "none") -> TimeResidualBlock:
        return TimeResidualBlock(
            width,
            self.num_groups,
            self.epsilon,
            scale_shift=self.use_scale_shift_norm,
            resample=resample,
            form=self.form,
            dtype=self.dtype,
            name=name,
        )

    def _attention(self, h: Array, name: str, up: bool = False) -> Array:
        heads = self.num_heads_upsample or self.num_heads if up else self.num_heads
        if self.num_head_channels is not None:
            heads = h.shape[-1] // self.num_head_channels
        attention = MultiHeadAttention(
            heads,
            self.num_groups,
            self.epsilon,
            new_order=self.use_new_attention_order,
            dtype=self.dtype,
            name=name,
        )
        return attention(h)

    def _resample(self, direction: str, h: Array, embedding: Array, name: str) -> Array:
        if self.resblock_updown:
            return self._block(h.shape[-1], name, direction)(h, embedding)
        if direction == "down":
            return Downsample(ALL_SIDES, form=self.form, dtype=self.dtype, name=name)(h)
        return Upsample(form=self.form, dtype=self.dtype, name=name)(h)

    def _checked(self, x: Array, condition: Mapping | None) -> Mapping:
        step = 2 ** (len(self.channel_mult) - 1)
        if x.ndim != 4 or x.shape[1] % step or x.shape[2] % step:
            raise UserError(
                f"A UNet of {len(self.channel_mult)} levels takes maps (B, H, W, C) with sides "
                f"that are multiples of {step}, got {x.shape}."
            )
        condition = {} if condition is None else condition
        if not isinstance(condition, Mapping) or set(condition) - set(CONDITION_ENTRIES):
            given = list(condition) if isinstance(condition, Mapping) else type(condition).__name__
            raise UserError(
                f"The UNet's condition is None or a dict with entries of "
                f"{', '.join(CONDITION_ENTRIES)}, got {given}."
            )
        if ("label" in condition) != (self.num_classes is not None):
            raise UserError(
                f"A UNet with num_classes={self.num_classes} "
                f"{'takes no' if self.num_classes is None else 'needs a'} condition 'label'."
            )
        self._check_parameters(x, condition)
        return condition

    def _check_parameters(self, x: Array, condition: Mapping) -> None:
        """Parameters made with a condition and applied without would give another network."""
        if "channels" in condition and condition["channels"].shape[:-1] != x.shape[:-1]:
            raise UserError(
                f"Condition 'channels' must be {(*x.shape[:-1], 'c')}, got "
                f"{condition['channels'].shape}."
            )
        if self.is_initializing():
            return
        projects = self.has_variable("params", "condition_projection")
        if projects != ("embedding" in condition):
            raise UserError(
                f"The UNet's parameters were made {'with' if projects else 'without'} a condition "
                f"'embedding'; give the same entries as then."
            )
        taken = self.variables["params"]["input_blocks_0_0"]["kernel"].shape[2]
        extra = condition["channels"].shape[-1] if "channels" in condition else 0
        if taken != x.shape[-1] + extra:
            raise UserError(
                f"The UNet's parameters take {taken} input channels, got {x.shape[-1]} of x and "
                f"{extra} of the condition 'channels'."
            )


class TimeEmbedding(nn.Module):
    """Two linear layers of the same width with a SiLU between: (B, C) to (B, features)."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, sinusoid: Array) -> Array:
        """Returns the embedding."""
        h = jax.nn.silu(Dense(self.features, dtype=self.dtype, name="in")(sinusoid))
        return Dense(self.features, dtype=self.dtype, name="out")(h)
