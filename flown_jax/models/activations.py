"""Activations by the names that zoos record for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError

Activation = Callable[[Array], Array]


def get_activation(name: str) -> Activation:
    """The function of this name: tanh, relu, leakyrelu, sigmoid, silu, gelu or quick_gelu.

    Leaky ReLU has slope 0.01 and GELU is exact, PyTorch's defaults; quick GELU is x s(1.702 x),
    the activation of CLIP.

    Raises:
      UserError: an unknown name.
    """
    if name not in _ACTIVATIONS:
        raise UserError(f"activation {name!r} is unknown; it is one of {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Activation] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leakyrelu": partial(jax.nn.leaky_relu, negative_slope=0.01),
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "quick_gelu": _quick_gelu,
}
