"""Zoos of tiny CNNs for grey and for colour images, for the tests of this folder."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flown_jax.encoders.posterior import Posterior
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import WeightSpec
from tests.weights import small
from tests.weights.test_alignment import networks

CLASSES = 3
SIZES = {"channels": (3, 2), "kernels": (3, 2), "hidden": (4,), "num_classes": CLASSES}
CHANNELS = {"grey": 1, "colour": 3}
SPECS: dict[str, WeightSpec] = {
    "grey": small.spec(1, **SIZES),
    "colour": small.spec(3, activation="gelu", inputs={"size": 8, "channels": 3}, **SIZES),
}
JOINT = JointSpace.of(SPECS)


def weights(name: str, count: int = 6, seed: int = 0) -> np.ndarray:
    """Random networks (count, D of the set)."""
    return networks(SPECS[name], count, seed)


def images(name: str, count: int = 12, seed: int = 0) -> np.ndarray:
    """Random preprocessed images (count, 8, 8, C)."""
    rng = np.random.default_rng((seed, CHANNELS[name]))
    return rng.normal(size=(count, 8, 8, CHANNELS[name])).astype(np.float32)


class Identity(nn.Module):
    """A codec that changes nothing: the posterior's mean is the vector, its variance is nothing."""

    def encode(self, x):
        return Posterior(x, jnp.full_like(x, -30.0))

    def decode(self, z):
        return z

    def __call__(self, x):
        return x
