"""A small codec in the place of the autoencoder of graphs: one collection trained, one fixed."""

from __future__ import annotations

import math
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flown_jax.encoders.posterior import Posterior

SIZES = {"backbone": "transformer", "form": "sparse", "head_dims": (8, 8), "chunk": 8}


class GraphAutoencoder(nn.Module):
    """Cosines of fixed random projections of standardised vectors, and one trained layer."""

    spec: Any
    decoder: nn.Module
    graph: Any = ()

    def setup(self):
        def frequencies():
            return jax.random.normal(self.make_rng("params"), (self.spec.size, 16))

        def fixed(name, start):
            return self.variable("constants", name, start)

        self.frequencies = fixed("frequencies", frequencies)
        self.mean = fixed("mean", lambda: jnp.zeros(self.spec.size))
        self.scale = fixed("scale", lambda: jnp.ones(self.spec.size))
        self.raw_mean = fixed("raw_mean", lambda: jnp.zeros(self.spec.size))
        self.head = nn.Dense(2 * math.prod(self.decoder.latent_shape))

    def encode(self, x1):
        x = (x1 - self.mean.value) / self.scale.value
        height, width, channels = self.decoder.latent_shape
        moments = self.head(jnp.cos(x @ self.frequencies.value))
        return Posterior.from_moments(moments.reshape(-1, height, width, 2 * channels))

    def decode(self, z):
        return self.decoder.decode(z)

    def __call__(self, x1):
        return self.decode(self.encode(x1).mode())

    @nn.nowrap
    def fit(self, variables, x1, affine):
        assert x1.shape[1] == self.spec.size
        found = {"mean": x1.mean(0), "scale": x1.std(0) + 1.0}
        if affine is not None:
            found["raw_mean"] = affine[0]
        return {**variables, "constants": {**variables["constants"], **found}}


def put(monkeypatch: Any) -> None:
    """Let `make_codec` find it where the autoencoder of graphs is."""
    module = types.SimpleNamespace(GraphAutoencoder=GraphAutoencoder)
    monkeypatch.setitem(sys.modules, "flown_jax.encoders.graph_autoencoder", module)
