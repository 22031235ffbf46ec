"""p-diff's autoencoder of weight vectors: one-dimensional convolutions, no variance.

Source: "Neural Network Diffusion" (Wang et al. 2024), the code of February 2024. With n stages, a
vector is padded with zeros to a multiple of fold^n (a whole block more where it is one already),
and every stage divides the length by `fold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.encoders.posterior import Point
from flown_jax.errors import UserError
from flown_jax.layers.conv1d import Conv1d, ConvTranspose1d
from flown_jax.layers.normalization import InstanceNorm1d

# Published: `medium` for ResNet-18's normalisation layers.
SIZES: dict[str, dict[str, Any]] = {
    "medium": {
        "kernel": 5,
        "fold": 5,
        "encoder_channels": (4, 4, 4, 4),
        "decoder_channels": (4, 256, 256, 8),
    },
    "small": {
        "kernel": 3,
        "fold": 3,
        "encoder_channels": (2, 2, 2, 2),
        "decoder_channels": (2, 64, 64, 8),
    },
}
_SHORTEST = 2  # latent: a normalisation over a length of 1 leaves nothing


class PDiffAutoencoder(nn.Module):
    """`encode(w) -> Point` and `decode(z) -> w`; w (B, D), z (B, L, C) in (-1, 1).

    The training's noise is `encoders.losses.pdiff_loss`.

    What it can express: every channel of a latent is normalised over its L numbers before it is
    decoded. So C of the L C directions, the channels' means, have no effect, and C more, their
    scales, hardly any, but where a channel is negative throughout: of 12 directions 4 or 5 are
    left for `medium` on 2048 weights. The encoder's first normalisation takes the vector's scale,
    which no latent has. Measure its reconstructions beside the mean of the training networks.

    Attributes:
      in_dim: D, length of the vector.
      kernel, fold: width of the convolutions, and the factor between the lengths of two stages;
        they are equal, so that blocks of the transposed convolutions do not overlap.
      encoder_channels: behind each stage; C is the last.
      decoder_channels: before each stage; the first is C, too.
    """

    in_dim: int
    kernel: int
    fold: int
    encoder_channels: Sequence[int]
    decoder_channels: Sequence[int]

    def setup(self) -> None:
        self._check()
        encoder, decoder = [], []
        # Published channels of the encoder are all equal; the inner one is the input's.
        inner = (self.encoder_channels[0], *self.encoder_channels[:-1])
        for narrow, out in zip(inner, self.encoder_channels, strict=True):
            encoder.append(Conv1d(narrow, self.kernel, padding=1))
            encoder.append(Conv1d(out, self.kernel, stride=self.fold))
        last = len(self.decoder_channels) - 1
        for i, channels in enumerate(self.decoder_channels):
            decoder.append(ConvTranspose1d(channels, self.kernel))
            out, padding = (1, self.fold) if i == last else (self.decoder_channels[i + 1], -1)
            padding = self.fold - 1 if padding < 0 else padding
            decoder.append(Conv1d(out, self.kernel, padding=padding))
        self.encoder, self.decoder = encoder, decoder
        self.norm = InstanceNorm1d()

    def encode(self, w: Array) -> Point:
        """The latents (B, L, C) of vectors w (B, D), without a variance.

        Raises:
          UserError: vectors of another length.
        """
        if w.ndim != 2 or w.shape[1] != self.in_dim:
            raise UserError(
                f"This autoencoder takes weight vectors (B, {self.in_dim}), got {w.shape}."
            )
        x = jnp.pad(w, ((0, 0), (0, self._padded(self.in_dim) - self.in_dim)))[..., None]
        for i, conv in enumerate(self.encoder):
            x = conv(self.norm(jax.nn.leaky_relu(x) if i else x))
        return Point.at(jnp.tanh(x))

    def decode(self, z: Array) -> Array:
        """The vectors (B, D) of latents z (B, L, C).

        Raises:
          UserError: latents of another shape.
        """
        return self.decode_whole(z)[:, : self.in_dim]

    def decode_whole(self, z: Array) -> Array:
        """What `decode` cuts D of: (B, D' + 1), D' the padded length for a kernel of 5."""
        if z.ndim != 3 or z.shape[1:] != self.latent_shape:
            raise UserError(
                f"This autoencoder decodes latents (B, {', '.join(map(str, self.latent_shape))}), "
                f"got {z.shape}."
            )
        for conv in self.decoder:
            z = conv(self.norm(jax.nn.leaky_relu(z)))
        return z[..., 0]

    def __call__(self, w: Array) -> Array:
        """Vectors decoded from their latents; touches every parameter."""
        return self.decode(self.encode(w).mode())

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, C)."""
        return self._latent_length(self.in_dim), self.encoder_channels[-1]

    def _padded(self, length: int) -> int:
        block = self.fold ** len(self.encoder_channels)
        return (length // block + 1) * block

    def _latent_length(self, length: int) -> int:
        length = self._padded(length)
        for _ in self.encoder_channels:
            length = (length + 3 - 2 * self.kernel) // self.fold + 1
        return length

    def _check(self) -> None:
        if self.kernel != self.fold or self.kernel < 2:
            raise UserError(
                f"kernel and fold must be equal and at least 2, got {self.kernel} and {self.fold}."
            )
        ends = (self.encoder_channels[-1], len(self.encoder_channels))
        if ends != (self.decoder_channels[0], len(self.decoder_channels)):
            raise UserError(
                f"decoder_channels {tuple(self.decoder_channels)} must be as many as "
                f"encoder_channels {tuple(self.encoder_channels)}, and begin with their last."
            )
        if self._latent_length(self.in_dim) < _SHORTEST:
            block = self.fold ** len(self.encoder_channels)
            least = next(n for n in range(0, 9 * block, block) if self._latent_length(n) > 1)
            raise UserError(
                f"vectors of length {self.in_dim} are too short for p-diff's autoencoder of kernel "
                f"{self.kernel} and {len(self.encoder_channels)} stages, which takes {least} or "
                "more."
            )
