"""Weight autoencoders for heads, behind one interface, with standardised latents."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from flown_jax.encoders.autoencoder_kl import AutoencoderKL
from flown_jax.encoders.posterior import Posterior
from flown_jax.encoders.token_vae import MLPVAE, TokenVAE
from flown_jax.errors import UserError
from flown_jax.few_shot.space import from_vector, to_vector

FORMS = ("autoencoder_kl", "mlp", "token")


class HeadCodec(nn.Module):
    """Posterior of heads' targets and back, whatever the autoencoder takes.

    Attributes:
      autoencoder: a module with `encode` and `decode`.
      way: n.
      by_class: whether it codes rows (..., n, F + 1) instead of vectors.
    """

    autoencoder: nn.Module
    way: int
    by_class: bool

    def encode(self, x1: Array) -> Posterior:
        """Posterior over latents of targets x1 (B, n, F + 1)."""
        return self.autoencoder.encode(x1 if self.by_class else to_vector(x1))

    def decode(self, z: Array) -> Array:
        """Targets (B, n, F + 1) of latents z."""
        w = self.autoencoder.decode(z)
        return w if self.by_class else from_vector(w, self.way)

    def __call__(self, x1: Array) -> Array:
        """Targets decoded from the posterior's mean; touches every parameter."""
        return self.decode(self.encode(x1).mode())


def make_codec(form: str, way: int, feature_dim: int, **sizes: Any) -> HeadCodec:
    """The codec of heads of n classes over F features.

    Args:
      form: `autoencoder_kl` (the paper's, reference sizes as in `AutoencoderKL`), `mlp` (the same
        latent map, no convolutions) or `token` (one code a class).
      way: n. feature_dim: F.
      sizes: the fields of the autoencoder but its input length.
    Raises:
      UserError: an unknown form.
    """
    length = way * (feature_dim + 1)
    if form == "token":
        return HeadCodec(TokenVAE(row_dim=feature_dim + 1, **sizes), way, by_class=True)
    if form == "mlp":
        return HeadCodec(MLPVAE(in_dim=length, **sizes), way, by_class=False)
    if form == "autoencoder_kl":
        return HeadCodec(AutoencoderKL(in_dim=length, **sizes), way, by_class=False)
    raise UserError(f"codec.form is {form!r}; it must be one of {', '.join(FORMS)}.")


@struct.dataclass
class Standardiser:
    """Zero mean and unit variance: `apply` and `invert`, with the statistics of training data.

    Attributes:
      mean, std: broadcast against the arrays.
    """

    mean: Array
    std: Array

    @classmethod
    def fit(cls, values: Array, axis: tuple[int, ...]) -> Standardiser:
        """Statistics over the given axes of values."""
        std = values.std(axis)
        return cls(values.mean(axis), jnp.where(std > 1e-6, std, 1.0))

    def apply(self, values: Array) -> Array:
        """Standardised values."""
        return (values - self.mean) / self.std

    def invert(self, values: Array) -> Array:
        """Values with the training statistics."""
        return values * self.std + self.mean
