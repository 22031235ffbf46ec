"""The model zoos' own initialisation of their convolution networks.

The zoos of MNIST-like sets start from `uniform`, positive weights of U(0, 1), from which learning
is slow; the others from `kaiming_uniform`. What is faster than "random initialisation" depends on
which of them is meant.
Source: Schuerholt et al., Model Zoos: A Dataset of Diverse Populations of Neural Networks, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError
from flown_jax.models.cnn import CNN

_BIAS = 0.01


def initialise_cnn(
    key: Array, cnn: CNN, image_shape: tuple[int, int, int], scheme: str
) -> dict[str, Any]:
    """Parameters of a network at the start of its training; may be mapped over keys.

    Args:
      key: a random key.
      image_shape: (H, W, C).
      scheme: of the weights: `uniform` U(0, 1), `normal` N(0, 1), `kaiming_uniform`
        U(+-sqrt(6 / fan_in)) or `kaiming_normal` N(0, 2 / fan_in). All biases are 0.01.
    Returns:
      {"conv_0": {"kernel", "bias"}, ...}, the collection "params".
    Raises:
      UserError: an unknown scheme, images too small for the network.
    """
    if scheme not in _DRAWS:
        raise UserError(f"initialisation {scheme!r} is unknown; it is one of {', '.join(_DRAWS)}.")
    height, width, channels = image_shape
    shapes = cnn.kernel_shapes(channels, cnn.flat_size(height, width))
    keys = jax.random.split(key, len(shapes))
    return {
        layer: {
            "kernel": _DRAWS[scheme](key_layer, shape),
            "bias": jnp.full(shape[-1:], _BIAS, jnp.float32),
        }
        for key_layer, (layer, shape) in zip(keys, shapes.items(), strict=True)
    }


def _kaiming_uniform(key: Array, shape: tuple[int, ...]) -> Array:
    bound = math.sqrt(6 / math.prod(shape[:-1]))
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _kaiming_normal(key: Array, shape: tuple[int, ...]) -> Array:
    return math.sqrt(2 / math.prod(shape[:-1])) * jax.random.normal(key, shape, jnp.float32)


_DRAWS: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "uniform": jax.random.uniform,
    "normal": jax.random.normal,
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
}
