"""Convolutional variational autoencoder of weight vectors (paper A.2.1, Table 6).

It is D2NWG's: latent diffusion's AutoencoderKL between two adapters that turn a vector into a
square map and back. A level of `ch_mult` halves the side, except the last, so the latent's side is
resolution / 2^(len(ch_mult) - 1).

Adapters:
- `linear`: one learned linear layer each way (D2NWG). A weight vector is `rows` rows of `in_dim`;
  the rows share the layer and their outputs of width `fdim` are packed into `in_channels` maps.
- `pad`: zeros fill the vector up to a square; no parameters.
- `none`: the input is a map already (B, R, R, C), as in latent diffusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.encoders.posterior import Posterior
from flown_jax.errors import UserError
from flown_jax.layers.attention import SingleHeadAttention
from flown_jax.layers.conv import Conv
from flown_jax.layers.dense import Dense
from flown_jax.layers.normalization import GroupNorm
from flown_jax.layers.resampling import BOTTOM_RIGHT, Downsample, Upsample
from flown_jax.layers.residual import ResidualBlock

ADAPTERS = ("linear", "pad", "none")
_SLOPE = 0.01  # of the leaky ReLU behind the first adapter


class AutoencoderKL(nn.Module):
    """`encode(w) -> Posterior` and `decode(z) -> w`; w (B, D), z (B, r, r, embed_dim).

    Attributes:
      ch, ch_mult: base width and its multiple at each level.
      num_res_blocks: residual blocks a level (one more in the decoder).
      z_channels: channels before the quantisation convolutions. embed_dim: of the latent.
      in_dim: length of a row, D = rows * in_dim. Not needed by the adapter `none`.
      rows: rows of a weight vector (D2NWG's `my_channels`); 1 for the adapter `pad`.
      resolution: side R of the map. `pad` computes the smallest when it is None.
      fdim: width behind the linear adapter, fdim * rows = R * R * in_channels; None computes it.
      in_channels: of the map. out_channels: None for the same.
      attn_resolutions: sides at which attention follows each residual block, besides the middle.
      num_groups, eps: of the normalisations (D2NWG 2, latent diffusion 32).
      adapter: `linear`, `pad` or `none`.
      form: of the convolutions, see `layers.conv`.
      dtype: of the computation; None keeps the input's.
    """

    ch: int
    ch_mult: Sequence[int]
    num_res_blocks: int
    z_channels: int
    embed_dim: int
    in_dim: int | None = None
    rows: int = 1
    resolution: int | None = None
    fdim: int | None = None
    in_channels: int = 1
    out_channels: int | None = None
    attn_resolutions: Sequence[int] = ()
    num_groups: int = 2
    eps: float = 1e-6
    adapter: str = "linear"
    form: str = "auto"
    dtype: Any = None

    def setup(self):
        self._check()
        common = {
            "ch": self.ch,
            "ch_mult": tuple(self.ch_mult),
            "num_res_blocks": self.num_res_blocks,
            "attn_resolutions": tuple(self.attn_resolutions),
            "num_groups": self.num_groups,
            "eps": self.eps,
            "form": self.form,
            "dtype": self.dtype,
        }
        self.encoder = Encoder(z_channels=self.z_channels, **common)
        self.decoder = Decoder(out_channels=self.out_channels or self.in_channels, **common)
        self.quant_conv = Conv(2 * self.embed_dim, 1, dtype=self.dtype)
        self.post_quant_conv = Conv(self.z_channels, 1, dtype=self.dtype)
        if self.adapter == "linear":
            self.fc_in = Dense(self._width, dtype=self.dtype)
            self.fc_out = Dense(self._length, dtype=self.dtype)

    def __call__(self, w: Array) -> tuple[Array, Posterior]:
        """Returns the reconstruction from the posterior's mean, and the posterior."""
        posterior = self.encode(w)
        return self.decode(posterior.mode()), posterior

    def encode(self, w: Array) -> Posterior:
        """Returns the posterior over latents (B, r, r, embed_dim).

        Args:
          w: weight vectors (B, D), or maps (B, R, R, C) for the adapter `none`.
        Raises:
          UserError: w has another shape.
        """
        return Posterior.from_moments(self.moments(w))

    def decode(self, z: Array) -> Array:
        """Returns weights (B, D), or maps (B, R, R, C) for the adapter `none`.

        Args:
          z: latents (B, r, r, embed_dim).
        Raises:
          UserError: z has another shape.
        """
        if z.ndim != 4 or z.shape[1:] != self.latent_shape:
            raise UserError(
                f"This autoencoder decodes latents (B, {', '.join(map(str, self.latent_shape))}), "
                f"got {z.shape}."
            )
        return self._from_map(self.decoder(self.post_quant_conv(z)))

    def moments(self, w: Array) -> Array:
        """Returns mean and log variance (B, r, r, 2 embed_dim), before the clip."""
        return self.quant_conv(self.features(w))

    def features(self, w: Array) -> Array:
        """Returns the encoder's output (B, r, r, 2 z_channels)."""
        return self.encoder(self.feature_map(w))

    def feature_map(self, w: Array) -> Array:
        """Returns the map (B, R, R, C) that the first adapter makes of w."""
        side = self.side
        if self.adapter == "none":
            if w.ndim != 4 or w.shape[1:] != (side, side, self.in_channels):
                raise UserError(
                    f"This autoencoder takes maps (B, {side}, {side}, {self.in_channels}), "
                    f"got {w.shape}."
                )
            return w
        if w.ndim != 2 or w.shape[1] != self.weight_dim:
            raise UserError(
                f"This autoencoder takes weight vectors (B, {self.weight_dim}), got {w.shape}."
            )
        if self.adapter == "linear":
            rows = w.reshape(-1, self.rows, w.shape[1] // self.rows)
            flat = jax.nn.leaky_relu(self.fc_in(rows), _SLOPE)
        else:
            flat = jnp.pad(w, ((0, 0), (0, side * side * self.in_channels - w.shape[1])))
        # The original fills channel after channel, row after row.
        return flat.reshape(-1, self.in_channels, side, side).transpose(0, 2, 3, 1)

    @property
    def side(self) -> int:
        """Side R of the map."""
        if self.resolution is not None:
            return self.resolution
        step = 2 ** (len(self.ch_mult) - 1)
        places = math.ceil(self._length / self.in_channels)
        return step * math.ceil((math.isqrt(places - 1) + 1) / step)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(r, r, embed_dim)."""
        r = self.side // 2 ** (len(self.ch_mult) - 1)
        return r, r, self.embed_dim

    @property
    def weight_dim(self) -> int:
        """Length D of the weight vectors (entries of the map for the adapter `none`)."""
        if self.adapter == "none":
            return self.side * self.side * self.in_channels
        return self.rows * self._length

    @property
    def _length(self) -> int:
        if self.in_dim is None:
            raise UserError(f"AutoencoderKL with adapter {self.adapter!r} needs in_dim.")
        return self.in_dim

    @property
    def _width(self) -> int:
        return self.fdim or self.side * self.side * self.in_channels // self.rows

    def _from_map(self, y: Array) -> Array:
        if self.adapter == "none":
            return y
        flat = y.transpose(0, 3, 1, 2).reshape(y.shape[0], -1)
        if self.adapter == "pad":
            return flat[:, : self.weight_dim]
        return self.fc_out(flat.reshape(-1, self.rows, self._width)).reshape(y.shape[0], -1)

    def _check(self) -> None:
        if self.adapter not in ADAPTERS:
            raise UserError(
                f"adapter {self.adapter!r} is unknown; choose one of {', '.join(ADAPTERS)}."
            )
        if self.resolution is None and self.adapter != "pad":
            raise UserError(f"AutoencoderKL with adapter {self.adapter!r} needs resolution.")
        side, step = self.side, 2 ** (len(self.ch_mult) - 1)
        if side % step:
            raise UserError(
                f"resolution {side} is not a multiple of {step}, which {len(self.ch_mult)} levels "
                f"of ch_mult need."
            )
        entries = side * side * self.in_channels
        if self.adapter == "linear" and self._width * self.rows != entries:
            raise UserError(
                f"fdim * rows must be resolution^2 * in_channels, but {self._width} * {self.rows} "
                f"is not {side}^2 * {self.in_channels}."
            )
        if self.adapter == "pad" and (self.rows != 1 or self._length > entries):
            raise UserError(
                f"adapter 'pad' needs rows = 1 and in_dim <= resolution^2 * in_channels = "
                f"{entries}, got rows {self.rows} and in_dim {self._length}."
            )
        if self.adapter != "none" and self.out_channels not in (None, self.in_channels):
            raise UserError(
                f"out_channels {self.out_channels} must equal in_channels {self.in_channels} "
                f"with adapter {self.adapter!r}."
            )


class Encoder(nn.Module):
    """Maps (B, R, R, C) to features (B, r, r, 2 z_channels)."""

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    z_channels: int
    attn_resolutions: tuple[int, ...]
    num_groups: int
    eps: float
    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the features."""
        conv = {"form": self.form, "dtype": self.dtype}
        norm = (self.num_groups, self.eps)
        last = len(self.ch_mult) - 1
        h = Conv(self.ch, **conv, name="conv_in")(x)
        for level, mult in enumerate(self.ch_mult):
            for j in range(self.num_res_blocks):
                name = f"down_{level}_block_{j}"
                h = ResidualBlock(self.ch * mult, *norm, **conv, name=name)(h)
                if h.shape[1] in self.attn_resolutions:
                    h = SingleHeadAttention(*norm, self.dtype, name=f"down_{level}_attn_{j}")(h)
            if level < last:
                h = Downsample(BOTTOM_RIGHT, **conv, name=f"down_{level}_downsample")(h)
        h = _Middle(*norm, **conv, name="mid")(h)
        h = jax.nn.silu(GroupNorm(*norm, self.dtype, name="norm_out")(h))
        return Conv(2 * self.z_channels, **conv, name="conv_out")(h)


class Decoder(nn.Module):
    """Features (B, r, r, z_channels) to maps (B, R, R, out_channels)."""

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    out_channels: int
    attn_resolutions: tuple[int, ...]
    num_groups: int
    eps: float
    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Returns the maps."""
        conv = {"form": self.form, "dtype": self.dtype}
        norm = (self.num_groups, self.eps)
        h = Conv(self.ch * self.ch_mult[-1], **conv, name="conv_in")(z)
        h = _Middle(*norm, **conv, name="mid")(h)
        for level in reversed(range(len(self.ch_mult))):
            for j in range(self.num_res_blocks + 1):
                name = f"up_{level}_block_{j}"
                h = ResidualBlock(self.ch * self.ch_mult[level], *norm, **conv, name=name)(h)
                if h.shape[1] in self.attn_resolutions:
                    h = SingleHeadAttention(*norm, self.dtype, name=f"up_{level}_attn_{j}")(h)
            if level > 0:
                h = Upsample(**conv, name=f"up_{level}_upsample")(h)
        h = jax.nn.silu(GroupNorm(*norm, self.dtype, name="norm_out")(h))
        return Conv(self.out_channels, **conv, name="conv_out")(h)


class _Middle(nn.Module):
    num_groups: int
    eps: float
    form: str
    dtype: Any

    @nn.compact
    def __call__(self, h: Array) -> Array:
        norm = (self.num_groups, self.eps)
        block = (h.shape[-1], *norm, self.form, self.dtype)
        h = ResidualBlock(*block, name="block_1")(h)
        h = SingleHeadAttention(*norm, self.dtype, name="attn_1")(h)
        return ResidualBlock(*block, name="block_2")(h)
