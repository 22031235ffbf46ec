"""A weight autoencoder whose encoder reads the network as a graph (paper, A.2.2, Table 7).

Graph in, moments of a latent map out, and from there the decoder of any other weight autoencoder:
the encoder is the one thing that changes. What is decoded has the order of units that the training
networks have. Networks that differ in the order of their units alone have one latent, so that zoos
of many seeds, each in an order of its own, can only be memorised (docs/studies/graphs.md).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flown_jax.encoders.graph_encoder import GraphEncoder
from flown_jax.encoders.posterior import Posterior
from flown_jax.errors import UserError
from flown_jax.weights.graphs import Topology, topology
from flown_jax.weights.spec import WeightSpec

# Of the log variance. One step of Adam moves an output by its rate times the number of features
# that it is a sum of, several hundred: in an exponent that is too far, and the noise explodes.
_PACE = 0.05
# Fields of `graph` that are the topology's, not the encoder's.
TOPOLOGY = ("flattening", "order", "kernel", "linear_as_conv")


class GraphAutoencoder(nn.Module):
    """`encode(w) -> Posterior`, `decode(z) -> w`; w (B, D), z (B, r, r, e).

    Attributes:
      spec: what a vector means.
      decoder: the autoencoder whose decoder is used, with its latent's shape.
      graph: fields of `GraphEncoder` and of `weights.graphs.topology`, as (name, value) pairs.
    """

    spec: WeightSpec
    decoder: nn.Module
    graph: tuple[tuple[str, Any], ...] = ()

    def setup(self) -> None:
        self.encoder = graph_encoder(self.spec, self.graph, 2 * self._latent_size)
        # Vectors come standardised entry by entry, and that knows the order of units: the encoder
        # takes the weights themselves.
        size = (self.spec.size,)
        self.mean = self.variable("constants", "mean", jnp.zeros, size)
        self.scale = self.variable("constants", "scale", jnp.ones, size)

    def encode(self, w: Any) -> Posterior:
        """Posterior over latents (B, r, r, e).

        Args:
          w: vectors (B, D), standardised as `fit` was told, or a jraph.GraphsTuple of networks'
            own weights.
        Raises:
          UserError: vectors of another length.
        """
        graphs, size = hasattr(w, "n_node"), self.spec.size
        if not graphs and (w.ndim != 2 or w.shape[1] != size):
            raise UserError(f"the graph encoder takes weight vectors (B, {size}), got {w.shape}.")
        moments = self.encoder(w if graphs else w * self.scale.value + self.mean.value)
        height, width, channels = self.decoder.latent_shape
        # Channel by channel, means first, as the published head has it.
        moments = moments.reshape(-1, 2 * channels, height, width).transpose(0, 2, 3, 1)
        mean, logvar = jnp.split(moments, 2, -1)
        return Posterior.from_moments(jnp.concatenate([mean, _PACE * logvar], -1))

    def decode(self, z: Array) -> Array:
        """Vectors (B, D) of latents, standardised."""
        return self.decoder.decode(z)

    def __call__(self, w: Any) -> Array:
        """Vectors decoded from the posterior's mean; touches every parameter."""
        return self.decode(self.encode(w).mode())

    @nn.nowrap
    def fit(
        self, variables: Mapping[str, Any], w: Array, affine: tuple[Array, Array] | None = None
    ) -> dict[str, Any]:
        """The variables with what is fixed before training; call it on the unbound module.

        Args:
          variables: as `init` gives them.
          w: training vectors (N, D).
          affine: (mean, scale), (D,) each, of w = (weights - mean) / scale; None where w are the
            weights.
        """
        mean, scale = affine if affine is not None else (jnp.zeros(()), jnp.ones(()))
        size = (self.spec.size,)
        own = {"mean": jnp.broadcast_to(mean, size), "scale": jnp.broadcast_to(scale, size)}
        parts = {kind: variables[kind]["encoder"] for kind in ("params", "constants")}
        encoder = graph_encoder(self.spec, self.graph, 2 * self._latent_size)
        fitted = encoder.fit(parts, jnp.asarray(w) * own["scale"] + own["mean"])
        constants = {**variables["constants"], **own, "encoder": fitted["constants"]}
        return {**variables, "constants": constants}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(r, r, e)."""
        return self.decoder.latent_shape

    @property
    def _latent_size(self) -> int:
        height, width, channels = self.decoder.latent_shape
        return height * width * channels


def graph_encoder(
    spec: WeightSpec, graph: tuple[tuple[str, Any], ...] | Mapping[str, Any], d_out: int | None
) -> GraphEncoder:
    """The encoder of networks of a spec.

    Args:
      graph: fields of `GraphEncoder` and of `weights.graphs.topology`.
      d_out: length of its output.
    Raises:
      UserError: a part of a network, a field that neither has, or a network that is no graph.
    """
    if spec.partial:
        raise UserError(
            f"the vectors are a part of a {spec.model} ({spec.names[0]} to {spec.names[-1]}): a "
            "graph encoder reads whole networks. Take the encoder 'vae'."
        )
    fields = dict(graph)
    known = {name for name in GraphEncoder.__dataclass_fields__ if name not in _OTHER}
    if odd := sorted(set(fields) - known - set(TOPOLOGY)):
        raise UserError(
            f"a graph encoder has no field {odd[0]!r}; it has {', '.join(sorted(known))}."
        )
    options = {name: fields.pop(name) for name in TOPOLOGY if name in fields}
    if fields.get("form") == "dense":
        # The published form of a linear layer's edges.
        options.setdefault("linear_as_conv", False)
    return GraphEncoder(_topology(spec, tuple(sorted(options.items()))), d_out, **fields)


_OTHER = ("topology", "d_out", "parent", "name")


@functools.lru_cache(maxsize=16)
def _topology(spec: WeightSpec, options: tuple[tuple[str, Any], ...]) -> Topology:
    return topology(spec, **dict(options))
