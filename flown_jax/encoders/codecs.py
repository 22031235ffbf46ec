"""Weight autoencoders by name, for targets that are vectors or sets of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from flax.core import FrozenDict
from jax import Array

from flown_jax.encoders.autoencoder_kl import AutoencoderKL
from flown_jax.encoders.chunks import ChunkedAutoencoder
from flown_jax.encoders.pdiff_autoencoder import PDiffAutoencoder
from flown_jax.encoders.posterior import Posterior
from flown_jax.encoders.token_vae import MLPVAE, TokenVAE
from flown_jax.errors import UserError
from flown_jax.models.heads import from_vector, to_vector
from flown_jax.weights.spec import WeightSpec

FORMS = ("autoencoder_kl", "mlp", "pdiff", "token")
_OF_VECTORS = {"autoencoder_kl": AutoencoderKL, "mlp": MLPVAE, "pdiff": PDiffAutoencoder}
ENCODERS = ("vae", "graph")
_NOT_OF_GRAPHS = {
    "token": "has a code a class, and a graph has one in all",
    "pdiff": "has no variance, which a graph's posterior has",
}
# What the fields of `graph` that are names may be.
GRAPH_NAMES = {
    "backbone": ("transformer", "pna"),
    "form": ("sparse", "dense"),
    "softmax_scale": ("head", "width"),
    "flattening": ("as_conv", "repeat_nodes"),
    "order": ("corrected", "published"),
    "pooling": ("layers", "outputs", "mean_outputs", "mean"),
}


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

    @nn.nowrap
    def fit(self, variables: Mapping[str, Any], x1: Array, affine: Any) -> dict[str, Any]:
        """The variables with what the autoencoder fixes before it is trained, if it does."""
        if not hasattr(self.autoencoder, "fit"):
            return dict(variables)
        own = {name: part["autoencoder"] for name, part in variables.items()}
        fitted = self.autoencoder.fit(own, x1 if self.by_class else to_vector(x1), affine)
        return {name: {"autoencoder": part} for name, part in fitted.items()}

    def __call__(self, x1: Array) -> Array:
        """Targets decoded from the posterior's mean; touches every parameter."""
        return self.decode(self.encode(x1).mode())


def make_codec(
    form: str,
    shape: tuple[int, ...],
    *,
    chunk: int = 0,
    encoder: str = "vae",
    graph: Mapping[str, Any] | None = None,
    spec: WeightSpec | None = None,
    **sizes: Any,
) -> nn.Module:
    """The codec of targets of a shape.

    Args:
      form: `autoencoder_kl` (the paper's, reference sizes as in `AutoencoderKL`), `mlp` (the same
        latent map, no convolutions), `pdiff` (p-diff's, latents (L, C)) or `token` (one code a
        row, for rows alone).
      shape: of one target: (D,), a vector, or (n, F + 1), a head of n rows.
      chunk: length of the chunks that share one autoencoder, see `ChunkedAutoencoder`; 0 codes
        whole vectors.
      encoder: `vae`, the form's own, or `graph`, which reads targets as graphs; the form, `mlp` or
        `autoencoder_kl`, is then the decoder.
      graph: the sizes of the encoder of graphs, see `GraphAutoencoder`.
      spec: what it reads in a target's vector.
      sizes: the fields of the autoencoder but its input length.
    Raises:
      UserError: an unknown form, or one that does not take targets of this shape, or chunks; of
        graphs, an unknown backbone or form, no spec, or the spec of a part of a network.
    """
    if form not in FORMS:
        raise UserError(f"codec.form is {form!r}; it must be one of {', '.join(FORMS)}.")
    if encoder not in ENCODERS:
        raise UserError(f"codec.encoder is {encoder!r}; it must be one of {', '.join(ENCODERS)}.")
    if chunk < 0:
        raise UserError(f"codec.chunk is {chunk}; it must be a whole number from 0.")
    if chunk and (form == "token" or encoder == "graph"):
        what, codes = ("form 'token'", "rows") if form == "token" else ("encoder 'graph'", "graphs")
        raise UserError(
            f"codec.{what} codes {codes}, not chunks: codec.chunk must be 0, not {chunk}."
        )
    rows = len(shape) == 2
    if encoder == "graph" and form in _NOT_OF_GRAPHS:
        raise UserError(
            f"codec.form {form!r} {_NOT_OF_GRAPHS[form]}: with codec.encoder 'graph' it must be "
            "'mlp' or 'autoencoder_kl'."
        )
    if form == "token":
        if not rows:
            raise UserError(
                f"codec.form 'token' takes a row a class, and these targets are vectors {shape}: "
                "it must be 'mlp' or 'autoencoder_kl'."
            )
        return HeadCodec(TokenVAE(row_dim=shape[-1], **sizes), shape[0], by_class=True)
    size = math.prod(shape)
    vectors: nn.Module = _OF_VECTORS[form](in_dim=chunk or size, **sizes)
    if chunk:
        vectors = ChunkedAutoencoder(vectors, in_dim=size, chunk=chunk)
    if encoder == "graph":
        vectors = _of_graphs(vectors, graph or {}, spec)
    return HeadCodec(vectors, shape[0], by_class=False) if rows else vectors


def _of_graphs(decoder: nn.Module, sizes: Mapping[str, Any], spec: WeightSpec | None) -> nn.Module:
    for name, names in GRAPH_NAMES.items():
        if (given := sizes.get(name, names[0])) not in names:
            raise UserError(
                f"codec.graph.{name} is {given!r}; it must be one of {', '.join(names)}."
            )
    if spec is None:
        raise UserError("codec.encoder 'graph' needs the spec of the vectors that it reads.")
    if spec.partial:
        # Paper, section 2.2.
        raise UserError(
            f"vectors of {spec.names[0]} to {spec.names[-1]} are a part of a network, which is no "
            "graph by itself: of a part, codec.encoder is 'vae'."
        )
    # Whoever reads no graphs does without jraph.
    from flown_jax.encoders.graph_autoencoder import GraphAutoencoder

    return GraphAutoencoder(spec=spec, decoder=decoder, graph=FrozenDict(tuples(sizes)))


def tuples(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes with lists as tuples: modules are hashable, JSON knows lists only."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
