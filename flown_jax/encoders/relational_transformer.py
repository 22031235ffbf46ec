"""The relational transformer: attention in which edges take part and are updated.

Every node looks at other nodes; queries, keys and values have a share of the edge between the two
(paper, A.2.2; Kofinas et al., Graph Neural Networks for Learning Equivariant Representations of
Neural Networks, 2024, after Diao and Loynd, Relational Attention, 2023). Which pairs there are is
said by one of `pairs`. As published all are, absent edges included; the row of a pair is the
presynaptic unit, so that information runs against the network.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.errors import UserError

SCALES = ("head", "width")
_EPS = 1e-5  # of LayerNorm
_XAVIER = nn.initializers.xavier_uniform()


class RelationalTransformerLayer(nn.Module):
    """Nodes x (..., n, d_n) and pairs e (..., P, d_e) to the same, post-norm.

    s_ij = <q_i + eq_ij, k_j + ek_ij> / scale, o_i = sum_j softmax_j(s_ij) (v_j em_ij + eb_ij).

    Attributes:
      attention_dim: d, width of all heads. num_heads: H.
      node_hidden, edge_hidden: of the MLPs.
      softmax_scale: `width`, sqrt(d), as published, or `head`, sqrt(d / H).
      modulate: values are v_j em_ij + eb_ij; else v_j + eb_ij.
      layer_norm: normalise; else sums are left as they are.
      edge_update: update e; else it is returned as it came.
      dtype: of the computation; parameters are float32.
    Raises:
      UserError: heads that do not divide the width, an unknown scale.
    """

    attention_dim: int
    num_heads: int
    node_hidden: int
    edge_hidden: int
    softmax_scale: str = "head"
    modulate: bool = True
    layer_norm: bool = True
    edge_update: bool = True
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.attention_dim % self.num_heads:
            raise UserError(
                f"num_heads is {self.num_heads}; it must divide attention_dim, which is "
                f"{self.attention_dim}."
            )
        if self.softmax_scale not in SCALES:
            raise UserError(
                f"softmax_scale is {self.softmax_scale!r}; it must be one of {', '.join(SCALES)}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, e: Array, pairs: Any) -> tuple[Array, Array]:
        """New nodes and pairs, of the same shapes.

        Args:
          x: nodes. e: pairs. pairs: their form, see `pairs`.
        """
        x = self._normed("node_norm_0", x + self._attend(x, e, pairs))
        self.sow("intermediates", "node_after_norm_0", x)
        h = jax.nn.gelu(self._dense(self.node_hidden, "node_mlp_in", bias=False)(x), False)
        x = self._normed("node_norm_1", x + self._dense(x.shape[-1], "node_mlp_out")(h))
        return (x, self._updated(x, e, pairs)) if self.edge_update else (x, e)

    def _attend(self, x: Array, e: Array, pairs: Any) -> Array:
        width, heads = self.attention_dim, self.num_heads
        q, k, v = jnp.split(self._dense(3 * width, "qkv_node", bias=False)(x), 3, -1)
        parts = 4 if self.modulate else 3
        eq, ek, *ev = jnp.split(self._dense(parts * width, "qkv_edge", bias=False)(e), parts, -1)
        # One reading of the columns for keys and values: it is a gather where pairs are sparse.
        kv = pairs.columns(jnp.concatenate([k, v], -1))
        k, v = kv[..., :width], kv[..., width:]
        products = (pairs.rows(q) + eq) * (k + ek)
        scale = width if self.softmax_scale == "width" else width // heads
        # Sums over a head, and their way back, are products: rows of a few numbers are slow to sum.
        of_head = jnp.repeat(jnp.eye(heads, dtype=products.dtype), width // heads, axis=0)
        exact = jax.lax.Precision.HIGHEST
        logits = jnp.dot(products, of_head, precision=exact) / math.sqrt(scale)
        self.sow("intermediates", "logits", logits)
        attention = pairs.softmax(logits)
        self.sow("intermediates", "attention", attention)
        values = v * ev[1] + ev[0] if self.modulate else v + ev[0]
        values = values * jnp.dot(attention, of_head.T, precision=exact)
        attended = self._dense(x.shape[-1], "attention_out")(pairs.total(values))
        self.sow("intermediates", "attended", attended)
        return self._dense(x.shape[-1], "node_linear")(attended)

    def _updated(self, x: Array, e: Array, pairs: Any) -> Array:
        both = jnp.concatenate([e, pairs.reverse(e)], -1)
        u = self._dense(self.edge_hidden, "edge_linear")(both)
        u = u + pairs.rows(self._dense(self.edge_hidden, "source_linear")(x))
        u = u + pairs.columns(self._dense(self.edge_hidden, "target_linear")(x))
        h = self._dense(e.shape[-1], "edge_out_0")(jax.nn.gelu(u, False))
        e = self._normed("edge_norm_0", e + h)
        self.sow("intermediates", "edge_after_norm_0", e)
        h = jax.nn.gelu(self._dense(self.edge_hidden, "edge_mlp_in", bias=False)(e), False)
        return self._normed("edge_norm_1", e + self._dense(e.shape[-1], "edge_mlp_out")(h))

    def _dense(self, features: int, name: str, bias: bool = True) -> nn.Dense:
        return nn.Dense(features, use_bias=bias, kernel_init=_XAVIER, dtype=self.dtype, name=name)

    def _normed(self, name: str, x: Array) -> Array:
        if not self.layer_norm:
            return x
        return nn.LayerNorm(epsilon=_EPS, dtype=self.dtype, name=name)(x)
