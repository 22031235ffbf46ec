"""What one training step turns into the next: a pytree that is saved whole."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """Everything a run needs to go on: nothing of it lives outside the checkpoint.

    Attributes:
      step: number of finished steps, int32 scalar; keys and the average's ramp derive from it.
      params: what the optimizer moves.
      opt_state: the optimizer's own state.
      ema_params: exponential moving average of params, or None.
      extra: what the loss carries from step to step (BatchNorm statistics), or None.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree
    ema_params: PyTree | None = None
    extra: PyTree | None = None

    @classmethod
    def create(
        cls,
        params: PyTree,
        optimizer: optax.GradientTransformation,
        ema: bool = False,
        extra: PyTree | None = None,
    ) -> TrainState:
        """State before the first step.

        Args:
          params: initial parameters, a pytree of arrays.
          optimizer: the optax chain that will move them.
          ema: keep a moving average, which starts as a copy of params.
          extra: initial value of what the loss carries, or None.
        """
        params = jax.tree.map(jnp.asarray, params)
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.init(params),
            # A copy: a donated step must not be given one buffer twice.
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
            extra=extra,
        )


def averaged(state: TrainState) -> PyTree:
    """Parameters to evaluate with: the moving average where there is one, else params."""
    return state.params if state.ema_params is None else state.ema_params
