"""The flow that the training loss has as its minimum on a finite set: a sampler of pure copies.

Of the straight path x_t = (1 - t) x_0 + t x_1 with Gaussian x_0, independent of a data point x_1,
the expected velocity is known in closed form, and it ends on data points alone. A trained velocity
makes something new only in so far as it differs from this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.flow.checks import floats


def memorising_velocity(data: Array) -> Callable[[Array, Array | float, Any], Array]:
    """The `velocity(x, t, condition)` that the flow matching loss of these data is smallest at.

    v(x, t) = (sum_i p_i data_i - x) / (1 - t) with p = softmax_i(-|x - t data_i|^2 / 2(1 - t)^2),
    for a standard normal source, drawn independently. The condition is not looked at. At t = 1,
    where there is no velocity off the data, it is finite and points to the nearest of them.

    Args:
      data: (N, ...), floats.
    Raises:
      UserError: no data.
    """
    data = jnp.asarray(data)
    floats(data, "the data of a memorising flow")
    points = data.reshape(len(data), -1)

    def velocity(x: Array, t: Array | float, condition: Any = None) -> Array:
        del condition
        times = jnp.broadcast_to(jnp.asarray(t, x.dtype), (len(x),))

        # One sample at a time: differences, unlike products, keep their digits near the data.
        def one(pair: tuple[Array, Array]) -> Array:
            x, t = pair
            rest = jnp.maximum(1 - t, jnp.finfo(x.dtype).eps)
            square = jnp.sum(jnp.square((x - t * points) / rest), axis=1)
            return (_mean(jax.nn.softmax(-square / 2), points) - x) / rest

        return jax.lax.map(one, (x.reshape(len(x), -1), times)).reshape(x.shape)

    return velocity


def _mean(shares: Array, points: Array) -> Array:
    return jnp.matmul(shares, points, precision="highest")
