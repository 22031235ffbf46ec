"""PyTorch's default initialisation: weights and biases uniform on +-1/sqrt(fan_in).

The original networks are initialised so, and a flow's or an autoencoder's early training depends
on it. A kernel's fan-in can be read from its shape; a bias's cannot, so it is an argument.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
from jax.nn.initializers import Initializer

torch_kernel: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_uniform(fan_in: int) -> Initializer:
    """Initializer that draws from U(-1/sqrt(fan_in), +1/sqrt(fan_in)).

    Args:
      fan_in: number of inputs of one output (kernel positions x input channels).
    Returns:
      Function (key, shape, dtype) to array.
    Raises:
      ValueError: fan_in is not positive.
    """
    if fan_in < 1:
        raise ValueError(f"fan_in is {fan_in}; a layer has at least one input.")
    bound = 1 / math.sqrt(fan_in)

    def initialise(key, shape, dtype=None, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype or float, -bound, bound)

    return initialise
