"""Weight autoencoders without convolutions: one code a class, or one for the whole head.

Both have the interface of `AutoencoderKL`: `encode(w) -> Posterior`, `decode(z) -> w`. A head of n
classes is a set of n rows [weights | bias]; coding each row alone (`TokenVAE`) keeps the codec
independent of the order and number of the classes.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.encoders.posterior import Posterior


class TokenVAE(nn.Module):
    """Codes every row of a weight matrix by itself, with the same two MLPs.

    Attributes:
      row_dim: length of a row.
      code_dim: length of a row's code.
      hidden_dim: width of the hidden layer of encoder and decoder (SiLU).
      dtype: of the computation; parameters are float32.
    """

    row_dim: int
    code_dim: int
    hidden_dim: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.encoder = _mlp(self.hidden_dim, 2 * self.code_dim, self.dtype)
        self.decoder = _mlp(self.hidden_dim, self.row_dim, self.dtype)

    def encode(self, w: Array) -> Posterior:
        """Posterior over codes (..., n, code_dim) of rows w (..., n, row_dim).

        Raises:
          ValueError: rows of another length.
        """
        if w.shape[-1] != self.row_dim:
            raise ValueError(f"rows have length {w.shape[-1]}; the encoder takes {self.row_dim}.")
        return Posterior.from_moments(self.encoder(w))

    def decode(self, z: Array) -> Array:
        """Rows (..., n, row_dim) of codes z (..., n, code_dim)."""
        return self.decoder(z)

    def __call__(self, w: Array) -> Array:
        """Rows decoded from the posterior's mean; touches every parameter."""
        return self.decode(self.encode(w).mode())


class MLPVAE(nn.Module):
    """Codes a whole weight vector as one latent map, with two MLPs in place of convolutions.

    Attributes:
      in_dim: D, length of the vector.
      latent_shape: (r, r, e) of the latent map, as of `AutoencoderKL`.
      hidden_dim: width of the two hidden layers of encoder and decoder (SiLU).
      dtype: of the computation; parameters are float32.
    """

    in_dim: int
    latent_shape: tuple[int, int, int]
    hidden_dim: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        height, width, channels = self.latent_shape
        size = height * width * channels
        self.encoder = _mlp(self.hidden_dim, 2 * size, self.dtype, layers=2)
        self.decoder = _mlp(self.hidden_dim, self.in_dim, self.dtype, layers=2)

    def encode(self, w: Array) -> Posterior:
        """Posterior over latents (B, r, r, e) of vectors w (B, D).

        Raises:
          ValueError: vectors of another length.
        """
        if w.shape[-1] != self.in_dim:
            raise ValueError(f"vectors have length {w.shape[-1]}; the encoder takes {self.in_dim}.")
        height, width, channels = self.latent_shape
        moments = self.encoder(w).reshape(*w.shape[:-1], height, width, 2 * channels)
        return Posterior.from_moments(moments)

    def decode(self, z: Array) -> Array:
        """Vectors (B, D) of latents z (B, r, r, e)."""
        return self.decoder(z.reshape(*z.shape[:-3], -1))

    def __call__(self, w: Array) -> Array:
        """Vectors decoded from the posterior's mean; touches every parameter."""
        return self.decode(self.encode(w).mode())


def _mlp(hidden: int, out: int, dtype: Any, layers: int = 1) -> nn.Sequential:
    modules: list[Any] = []
    for _ in range(layers):
        modules += [nn.Dense(hidden, dtype=dtype), nn.silu]
    return nn.Sequential([*modules, nn.Dense(out, dtype=dtype)])
