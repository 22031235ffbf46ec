"""CAML: a transformer over one query and a labelled support set (paper section 2.2, A.4.2).

A token is [image feature | label vector]; support images carry the scaled ELMES vector of their
class, the query a learned unknown vector. Every query has a sequence of its own, so queries never
see each other. Source: Fifty et al., Context-Aware Meta-Learning, 2024.

The label rows of an episode are a choice (`label_rows`): a network with C rows serves any n <= C
classes; `caml_episodes.py` trains it that way and takes class embeddings from it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flown_jax.conditioning.elmes import elmes

_LAYER_NORM_EPS = 1e-6


class CAML(nn.Module):
    """Logits of query images over the label rows, given a support set.

    Attributes:
      num_classes: C, the label rows.
      label_dim: width of a label vector, at least C.
      num_layers, num_heads, mlp_dim: of the pre-norm transformer.
      feature_dim: F, width of an image feature; None takes it from the first call.
      dtype: of the computation; parameters are float32.

    The label vectors are `elmes(num_classes, label_dim)`, unless the variables bring a collection
    `constants` with their own (converted checkpoints do).
    """

    num_classes: int
    label_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    feature_dim: int | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.blocks = [
            _Block(self.num_heads, self.mlp_dim, dtype=self.dtype) for _ in range(self.num_layers)
        ]
        self.norm = nn.LayerNorm(_LAYER_NORM_EPS, self.dtype, use_fast_variance=False)
        self.head = nn.Dense(
            self.num_classes, use_bias=False, dtype=self.dtype, kernel_init=_LINEAR_INIT
        )
        self.unknown = self.param("unknown", nn.initializers.zeros, (self.label_dim,))
        self.elmes_scale = self.param("elmes_scale", nn.initializers.ones, ())

    def __call__(
        self,
        support_features: Array,
        support_labels: Array,
        query_features: Array,
        label_rows: Array | None = None,
    ) -> Array:
        """Logits of each query, (..., q, C), or (..., q, n) where `label_rows` is given.

        Args:
          support_features: (..., s, F); leading axes are episodes.
          support_labels: (..., s) or (s,) integers: label rows, or with `label_rows` indices
            0..n-1 into it.
          query_features: (..., q, F).
          label_rows: (..., n) or (n,) distinct rows in 0..C-1; None: label i is row i, and all
            C logits come back (mask those of unused rows).
        Raises:
          ValueError: a feature width that differs from `feature_dim` or between the arguments,
            a token width that the heads do not divide, more label rows than C.
        """
        tokens = self._query_tokens(
            support_features, support_labels, query_features, label_rows, self.num_layers
        )
        logits = self.head(self.norm(tokens))
        if label_rows is None:
            return logits
        rows = jnp.broadcast_to(label_rows, (*logits.shape[:-2], jnp.shape(label_rows)[-1]))
        return jnp.take_along_axis(logits, rows[..., None, :], axis=-1)

    def query_embeddings(
        self,
        support_features: Array,
        support_labels: Array,
        query_features: Array,
        label_rows: Array | None = None,
        layer: int | None = None,
    ) -> Array:
        """The query token of each query, (..., q, F + label_dim).

        Args:
          layer: None, after the last block and its LayerNorm; i, what block i (0-based) returns.
        Other arguments as in `__call__`.
        """
        depth = self.num_layers if layer is None else layer + 1
        if not 1 <= depth <= self.num_layers:
            raise ValueError(f"layer must be None or 0..{self.num_layers - 1}, not {layer}.")
        tokens = self._query_tokens(
            support_features, support_labels, query_features, label_rows, depth
        )
        return self.norm(tokens) if layer is None else tokens

    def embed_and_classify(
        self,
        support_features: Array,
        support_labels: Array,
        query_features: Array,
        label_rows: Array | None = None,
    ) -> tuple[Array, Array]:
        """`query_embeddings` and all C logits of one pass, (..., q, E) and (..., q, C)."""
        tokens = self._query_tokens(
            support_features, support_labels, query_features, label_rows, self.num_layers
        )
        embeddings = self.norm(tokens)
        return embeddings, self.head(embeddings)

    def sequences(
        self,
        support_features: Array,
        support_labels: Array,
        query_features: Array,
        label_rows: Array | None = None,
    ) -> Array:
        """What enters the transformer: query token first, (..., q, 1 + s, F + label_dim)."""
        support, query = self._tokens(support_features, support_labels, query_features, label_rows)
        return _sequences(support, query)

    def encode(self, sequences: Array) -> tuple[Array, list[Array]]:
        """Whole sequences after the last LayerNorm, and after each block, each like the input."""
        layers: list[Array] = []
        for block in self.blocks:
            sequences = block(sequences)
            layers.append(sequences)
        return self.norm(sequences), layers

    def _tokens(
        self, support: Array, labels: Array, query: Array, label_rows: Array | None
    ) -> tuple[Array, Array]:
        self._check(support, labels, query, label_rows)
        table = self._label_vectors()
        rows = jnp.asarray(labels)
        if label_rows is not None:
            label_rows = jnp.asarray(label_rows)
            shape = (*support.shape[:-2], label_rows.shape[-1])
            rows = jnp.take_along_axis(
                jnp.broadcast_to(label_rows, shape),
                jnp.broadcast_to(rows, support.shape[:-1]),
                axis=-1,
            )
        named = self.elmes_scale * table[rows]
        named = jnp.broadcast_to(named, (*support.shape[:-1], self.label_dim))
        unknown = jnp.broadcast_to(self.unknown, (*query.shape[:-1], self.label_dim))
        return (
            jnp.concatenate([support, named], axis=-1).astype(self.dtype),
            jnp.concatenate([query, unknown], axis=-1).astype(self.dtype),
        )

    def _label_vectors(self) -> Array:
        if self.has_variable("constants", "elmes"):
            return jax.lax.stop_gradient(self.get_variable("constants", "elmes"))
        return jnp.asarray(elmes(self.num_classes, self.label_dim))

    def _query_tokens(
        self,
        support: Array,
        labels: Array,
        query: Array,
        label_rows: Array | None,
        depth: int,
    ) -> Array:
        """Token 0 after `depth` blocks, (..., q, W).

        Exact, and cheaper than `encode`: the first block projects the support tokens once an
        episode, the last one follows the query token alone.
        """
        support, query = self._tokens(support, labels, query, label_rows)
        if self.is_initializing():
            # All parameters exist after init, whichever method was called.
            self.head(self.encode(_sequences(support, query))[0])
        x = self.blocks[0](query, support, first_only=depth == 1)
        for i in range(1, depth):
            x = self.blocks[i](x, first_only=i == depth - 1)
        return x[..., 0, :]

    def _check(self, support: Array, labels: Array, query: Array, label_rows: Any) -> None:
        width = self.feature_dim if self.feature_dim is not None else support.shape[-1]
        for name, x in (("support_features", support), ("query_features", query)):
            if x.shape[-1] != width:
                raise ValueError(
                    f"{name} {x.shape} must end in the feature width {width} of this CAML."
                )
        if (width + self.label_dim) % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must divide the token width {width} + "
                f"{self.label_dim} (image feature + label)."
            )
        if support.shape[:-2] != query.shape[:-2]:
            raise ValueError(
                f"support_features {support.shape} and query_features {query.shape} must agree "
                "in their episode axes."
            )
        if jnp.shape(labels)[-1:] != support.shape[-2:-1]:
            raise ValueError(
                f"support_labels {jnp.shape(labels)} must give one label for each of the "
                f"{support.shape[-2]} support images."
            )
        if label_rows is not None:
            check_way(jnp.shape(label_rows)[-1], self.num_classes)
        elif not isinstance(labels, jax.core.Tracer):
            # An index beyond the table would be clipped in silence.
            check_way(int(np.asarray(labels).max()) + 1, self.num_classes)


def check_way(way: int, num_classes: int) -> None:
    """Refuses episodes of more classes than there are label rows.

    Raises:
      ValueError: way > num_classes.
    """
    if way > num_classes:
        raise ValueError(
            f"An episode of {way} classes needs as many label rows; this CAML has {num_classes}."
        )


# torch's default for Linear, uniform within 1/sqrt(fan in).
_LINEAR_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


class _Block(nn.Module):
    """One pre-norm transformer block over sequences (..., L, W)."""

    num_heads: int
    mlp_dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, support: Array | None = None, first_only: bool = False) -> Array:
        """The sequences after the block, or with `first_only` their first token, (..., 1, W).

        Args:
          x: (..., L, W); or, where `support` (..., s, W) is given, the query tokens (..., q, W) of
            sequences (..., q, 1 + s, W) not yet built.
        """
        width = x.shape[-1]
        norm_1 = nn.LayerNorm(_LAYER_NORM_EPS, self.dtype, use_fast_variance=False, name="norm_1")
        in_proj = nn.Dense(
            3 * width,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="in_proj",
        )
        projected = in_proj(norm_1(x))
        if support is not None:
            projected = _sequences(in_proj(norm_1(support)), projected)
            x = x[..., None, :] if first_only else _sequences(support, x)
        elif first_only:
            x = x[..., :1, :]
        heads = (*projected.shape[:-1], self.num_heads, width // self.num_heads)
        q, k, v = (part.reshape(heads) for part in jnp.split(projected, 3, axis=-1))
        if first_only:
            q = q[..., :1, :, :]
        attended = _attention(q, k, v).reshape(x.shape)
        x = x + nn.Dense(width, dtype=self.dtype, kernel_init=_LINEAR_INIT, name="out_proj")(
            attended
        )
        h = nn.LayerNorm(_LAYER_NORM_EPS, self.dtype, use_fast_variance=False, name="norm_2")(x)
        h = _mlp_layer(self.mlp_dim, self.dtype, "mlp_in")(h)
        h = _mlp_layer(width, self.dtype, "mlp_out")(nn.gelu(h, approximate=False))
        return x + h


def _mlp_layer(width: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(
        width,
        dtype=dtype,
        kernel_init=nn.initializers.xavier_uniform(),
        bias_init=nn.initializers.normal(1e-6),
        name=name,
    )


def _attention(q: Array, k: Array, v: Array) -> Array:
    """Softmax attention over short sequences; q, k, v (..., L, heads, d)."""
    scores = jnp.einsum("...qhd,...khd->...hqk", q, k) * (q.shape[-1] ** -0.5)
    return jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(scores, axis=-1), v)


def _sequences(support: Array, query: Array) -> Array:
    """[query, support...] for each query: (..., s, W), (..., q, W) -> (..., q, 1 + s, W)."""
    shape = (*query.shape[:-1], support.shape[-2], support.shape[-1])
    repeated = jnp.broadcast_to(support[..., None, :, :], shape)
    return jnp.concatenate([query[..., None, :], repeated], axis=-2)
