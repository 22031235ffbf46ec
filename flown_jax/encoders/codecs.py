"""Weight autoencoders by name, for targets that are vectors or sets of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from jax import Array

from flown_jax.encoders.autoencoder_kl import AutoencoderKL
from flown_jax.encoders.posterior import Posterior
from flown_jax.encoders.token_vae import MLPVAE, TokenVAE
from flown_jax.errors import UserError
from flown_jax.models.heads import from_vector, to_vector

FORMS = ("autoencoder_kl", "mlp", "token")


class HeadCodec(nn.Module):
    """Posterior of heads (..., n, F + 1) and back, whatever the autoencoder takes.

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


def make_codec(form: str, shape: tuple[int, ...], **sizes: Any) -> nn.Module:
    """The codec of targets of a shape.

    Args:
      form: `autoencoder_kl` (the paper's, reference sizes as in `AutoencoderKL`), `mlp` (the same
        latent map, no convolutions) or `token` (one code a row, for rows alone).
      shape: of one target: (D,), a vector, or (n, F + 1), a head of n rows.
      sizes: the fields of the autoencoder but its input length.
    Raises:
      UserError: an unknown form, or one that does not take targets of this shape.
    """
    if form not in FORMS:
        raise UserError(f"codec.form is {form!r}; it must be one of {', '.join(FORMS)}.")
    rows = len(shape) == 2
    if form == "token":
        if not rows:
            raise UserError(
                f"codec.form 'token' takes a row a class, and these targets are vectors {shape}: "
                "it must be 'mlp' or 'autoencoder_kl'."
            )
        return HeadCodec(TokenVAE(row_dim=shape[-1], **sizes), shape[0], by_class=True)
    kind = MLPVAE if form == "mlp" else AutoencoderKL
    vectors = kind(in_dim=math.prod(shape), **sizes)
    return HeadCodec(vectors, shape[0], by_class=False) if rows else vectors


def tuples(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes with lists as tuples: modules are hashable, JSON knows lists only."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
