"""Optimizers as optax chains, and the moving average of parameters.

FLoWN trains with AdamW at a constant rate (paper, table 6); zoos use Adam and SGD as PyTorch
defines them, where the weight decay is part of the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flown_jax.errors import UserError

PyTree = Any
SCHEDULES = ("constant", "cosine", "multistep")


def adamw(
    learning_rate: float,
    *,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: int = 0,
    clip: float | None = None,
    **curve: Any,
) -> optax.GradientTransformation:
    """AdamW: the decay is added to the update, not to the gradient.

    Args:
      learning_rate: the rate after the warm-up.
      weight_decay: decoupled decay, multiplied by the rate as in PyTorch.
      steps: length of the run, where the cosine ends.
      schedule: "constant", "cosine" or "multistep".
      warmup: number of steps over which the rate rises linearly.
      clip: largest global norm of the gradient, or None.
      curve: `milestones`, `gamma` and `floor`, as in `rate`.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019).
    """
    return optax.chain(
        *_clip(clip),
        optax.scale_by_adam(),
        *_decay(weight_decay),
        optax.scale_by_learning_rate(rate(learning_rate, steps, schedule, warmup, **curve)),
    )


def adam(
    learning_rate: float,
    *,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: int = 0,
    clip: float | None = None,
    **curve: Any,
) -> optax.GradientTransformation:
    """Adam with PyTorch's coupled decay: g + weight_decay * w enters both moments.

    Args: as for `adamw`. This is another optimizer than AdamW; published zoos used this one.
    """
    return optax.chain(
        *_clip(clip),
        *_decay(weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(rate(learning_rate, steps, schedule, warmup, **curve)),
    )


def sgd(
    learning_rate: float,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: int = 0,
    clip: float | None = None,
    **curve: Any,
) -> optax.GradientTransformation:
    """SGD with momentum and PyTorch's coupled decay: g + weight_decay * w enters the momentum.

    Args:
      momentum: factor of the trace, m <- momentum * m + g; 0 for plain SGD.
      nesterov: look one step ahead.
      others: as for `adamw`.
    """
    return optax.chain(
        *_clip(clip),
        *_decay(weight_decay),
        *((optax.trace(momentum, nesterov),) if momentum else ()),
        optax.scale_by_learning_rate(rate(learning_rate, steps, schedule, warmup, **curve)),
    )


def rate(
    learning_rate: float,
    steps: int,
    schedule: str,
    warmup: int = 0,
    *,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
    floor: float = 0.0,
) -> optax.Schedule:
    """Learning rate as a function of the number of finished steps.

    The warm-up's i-th step (from 0) has (i + 1) / warmup of the rate, so no step is wasted at
    rate zero; the cosine runs from the end of the warm-up to its floor after the last step.

    Args:
      learning_rate: the rate after the warm-up.
      steps: length of the run.
      schedule: "constant", "cosine" or "multistep".
      warmup: number of steps over which the rate rises linearly.
      milestones: of "multistep": at each the rate is multiplied by gamma; numbers below 1 are
        shares of the run, others are finished steps.
      gamma: of "multistep".
      floor: the smallest rate of "cosine" and "multistep", the warm-up left out.
    Raises:
      UserError: an unknown schedule, a warm-up as long as the run under a cosine, a multistep
        without milestones or with one that is not positive, a floor above the rate.
    """
    if schedule not in SCHEDULES:
        names = ", ".join(map(repr, SCHEDULES[:-1]))
        raise UserError(f"schedule must be {names} or {SCHEDULES[-1]!r}, not {schedule!r}")
    if schedule == "cosine" and warmup >= steps:
        raise UserError(f"warmup ({warmup}) must be shorter than the run of {steps} steps")
    if schedule == "multistep" and (not milestones or min(milestones) <= 0):
        raise UserError(
            f"a multistep schedule needs milestones above 0, not {list(milestones) or 'none'}"
        )
    if floor > learning_rate:
        raise UserError(f"the floor {floor} is above the learning rate {learning_rate}")
    at_steps = [round(m * steps) if m < 1 else int(m) for m in milestones]

    def at(count: jax.Array) -> jax.Array:
        factor = jnp.minimum(1.0, (count + 1) / max(warmup, 1))
        value: Any = learning_rate
        if schedule == "cosine":
            done = jnp.clip((count - warmup) / (steps - warmup), 0.0, 1.0)
            value = floor + (value - floor) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        elif schedule == "multistep":
            passed = sum(jnp.where(count >= step, 1.0, 0.0) for step in at_steps)
            value = jnp.maximum(value * gamma**passed, floor)
        return factor * value

    return at


def ema_update(
    average: PyTree, params: PyTree, step: jax.Array, decay: float, ramp: bool = True
) -> PyTree:
    """Moving average after one more update: d * average + (1 - d) * params.

    Args:
      average, params: pytrees of one structure.
      step: number of updates, the one that made params included; scalar.
      decay: the final d.
      ramp: use d = min(decay, (1 + step) / (10 + step)), so that the first parameters are soon
        forgotten; False keeps d = decay from the start.

    Source: the latent diffusion models' average (Rombach et al., 2022).
    """
    factor = jnp.minimum(decay, (1.0 + step) / (10.0 + step)) if ramp else jnp.asarray(decay)
    return jax.tree.map(
        lambda a, p: (a + (1.0 - factor) * (p - a)).astype(a.dtype), average, params
    )


def _clip(clip: float | None) -> tuple[optax.GradientTransformation, ...]:
    return () if clip is None else (optax.clip_by_global_norm(clip),)


def _decay(weight_decay: float) -> tuple[optax.GradientTransformation, ...]:
    return (optax.add_decayed_weights(weight_decay),) if weight_decay else ()
