"""Classifier-free guidance of a conditional velocity (Ho and Salimans 2022).

Convention: v_null + w (v_condition - v_null); w = 1 is the conditional flow, w = 0 the
unconditional one. Velocities are mixed at every stage of a solver, never conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flown_jax.flow.checks import number

Array = jax.Array
Velocity = Callable[[Array, Array, Any], Array]


def guided_velocity(velocity: Velocity, guidance_scale: float, null_condition: Any) -> Velocity:
    """A velocity that calls `velocity` twice: with the condition and with the null condition.

    Each call of the result is two network calls, which a solver's nfe does not see (one if
    `guidance_scale` is the number 1).

    Args:
      velocity: `velocity(x, t, condition) -> v`.
      guidance_scale: w, a number or scalar array.
      null_condition: as the condition, but leading axis 1: the one condition that stood for "none"
        in training.
    Raises:
      ValueError: a scale that is not finite, a null condition with another leading axis.
    """
    number(guidance_scale, "guidance_scale")
    for leaf in jax.tree.leaves(null_condition):
        if jnp.shape(leaf)[:1] != (1,):
            raise ValueError(f"null_condition needs leading axis 1, got {jnp.shape(leaf)}.")
    if isinstance(guidance_scale, (int, float)) and guidance_scale == 1:
        return velocity

    def guided(x: Array, t: Array, condition: Any) -> Array:
        null = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, x.shape[:1] + jnp.shape(leaf)[1:]), null_condition
        )
        v_null = velocity(x, t, null)
        return v_null + guidance_scale * (velocity(x, t, condition) - v_null)

    return guided


def drop_condition(key: Array, condition: Any, null_condition: Any, rate: float) -> Any:
    """The condition with samples replaced by the null condition, each with probability `rate`.

    Args:
      condition: pytree with leading axis B. null_condition: the same with leading axis 1.
    Raises:
      ValueError: rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate}.")
    if not jax.tree.leaves(condition):
        return condition
    size = jax.tree.leaves(condition)[0].shape[0]
    dropped = jax.random.bernoulli(key, rate, (size,))

    def replace(leaf: Array, null: Array) -> Array:
        return jnp.where(dropped.reshape((size,) + (1,) * (leaf.ndim - 1)), null, leaf)

    return jax.tree.map(replace, condition, null_condition)
