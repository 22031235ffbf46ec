"""A meta-model of random parts for networks of two data sets, for tests that use one."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax import MetaModel
from flown_jax.image_encoders import from_function
from flown_jax.meta_model.build import build, codec_of, describe
from flown_jax.meta_model.condition import Conditioner
from flown_jax.meta_model.latents import LatentSpace, Standardiser
from flown_jax.models.heads import FeatureTransform
from flown_jax.networks.space import NetworkSpace
from flown_jax.velocity.make import make_velocity
from flown_jax.weights.joint import JointSpace
from flown_jax.weights.spec import canonical
from tests.layers.helpers import random_variables
from tests.networks import zoos

SIDE, WIDTH, LATENT = 8, 64, (2, 2, 2)
CLASS_NAMES = (("grey", ("ant", "bee", "cat")), ("colour", ("red", "green", "blue")))
CODEC = {"latent_shape": LATENT, "hidden_dim": 8}
VELOCITY = {"hidden_dims": (8,), "embedding_dim": 4}
# Mean brightness of a set's images.
BRIGHT = {"grey": 60, "colour": 190}


def pixels(images: np.ndarray) -> np.ndarray:
    """An image encoder of grey images."""
    return np.asarray(images).reshape(len(images), -1)


def spec_of(name: str):
    """The spec of `zoos`, which says how its images are preprocessed."""
    channels = zoos.CHANNELS[name]
    inputs = {"size": SIDE, "channels": channels, "mean": [0.5], "std": [0.25], "crop": None}
    return dataclasses.replace(zoos.SPECS[name], inputs=canonical(inputs, "inputs"))


def support(name: str, side: int = SIDE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (12, side, side, C) of a set, uint8, and their classes, four of each."""
    rng = np.random.default_rng(seed)
    shape = (12, side, side, zoos.CHANNELS[name])
    images = rng.integers(-20, 21, shape) + BRIGHT[name]
    return images.astype(np.uint8), np.repeat(np.arange(zoos.CLASSES), 4)


@functools.cache
def target() -> NetworkSpace:
    """The space, which knows what the sets look like."""
    joint = JointSpace.of({name: spec_of(name) for name in zoos.SPECS})
    fitted = NetworkSpace.fit(joint, {name: zoos.weights(name) for name in zoos.SPECS})
    centres = {
        name: {"features": jnp.full((1, zoos.CLASSES, WIDTH), sign)}
        for name, sign in (("grey", -1.0), ("colour", 1.0))
    }
    return dataclasses.replace(fitted, centres=centres, class_names=CLASS_NAMES)


@functools.cache
def meta_model(graph: str = "", conditional: bool = True) -> MetaModel:
    """Of random parts.

    Args:
      graph: backbone of an encoder of graphs; "" for none.
      conditional: whether it is shown images.
    """
    about: dict[str, Any] = {"form": "mlp", "sizes": CODEC}
    if graph:
        about |= {"encoder": "graph", "graph": {"backbone": graph}}
    codec = codec_of(about, target())
    variables = random_variables(codec, jnp.zeros((1, *target().shape)))
    velocity = make_velocity("mlp", LATENT, **VELOCITY)
    known = {"features": jnp.zeros((1, zoos.CLASSES, WIDTH))} if conditional else None
    params = random_variables(velocity, jnp.zeros((1, *LATENT)), jnp.zeros(()), known)
    statistics = Standardiser(jnp.zeros(LATENT), jnp.full(LATENT, 2.0))
    sight: tuple[Any, Any, Any] = (
        from_function(f"{__name__}:pixels", side=SIDE, mirror=False),
        # What is darker than half becomes about -1, what is brighter about 1.
        FeatureTransform(jnp.full(WIDTH, 0.5), jnp.asarray(WIDTH**0.5)),
        Conditioner(None, None, None, ("features",)),
    )
    description, arrays = describe(
        "networks",
        *(sight if conditional else (None, None, None)),
        LatentSpace(target(), variables, statistics, codec),
        params,
        codec=about,
        velocity={"kind": "mlp", "sizes": VELOCITY},
        latent_shape=list(LATENT),
        image_shape=[SIDE, SIDE, 1],
        source="gaussian",
        sampling={"solver": "euler", "steps": 3, "temperature": 1.0, "samples": 4},
        trained_on="nothing",
    )
    arrays = jax.tree.map(np.asarray, arrays)
    return MetaModel(build(description, arrays), arrays)
