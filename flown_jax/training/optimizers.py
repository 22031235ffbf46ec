"""Optimizers as optax chains, and the moving average of parameters.

FLoWN trains with AdamW at a constant rate (paper, table 6); zoos use Adam and SGD as PyTorch
defines them, where the weight decay is part of the gradient.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from flown_jax.errors import UserError

PyTree = Any


def adamw(
    learning_rate: float,
    *,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: int = 0,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """AdamW: the decay is added to the update, not to the gradient.

    Args:
      learning_rate: the rate after the warm-up.
      weight_decay: decoupled decay, multiplied by the rate as in PyTorch.
      steps: length of the run, where the cosine reaches zero.
      schedule: "constant" or "cosine".
      warmup: number of steps over which the rate rises linearly.
      clip: largest global norm of the gradient, or None.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019).
    """
    return optax.chain(
        *_clip(clip),
        optax.scale_by_adam(),
        *_decay(weight_decay),
        optax.scale_by_learning_rate(rate(learning_rate, steps, schedule, warmup)),
    )


def adam(
    learning_rate: float,
    *,
    weight_decay: float,
    steps: int,
    schedule: str = "constant",
    warmup: int = 0,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Adam with PyTorch's coupled decay: g + weight_decay * w enters both moments.

    Args: as for `adamw`. This is another optimizer than AdamW; published zoos used this one.
    """
    return optax.chain(
        *_clip(clip),
        *_decay(weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(rate(learning_rate, steps, schedule, warmup)),
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
        optax.scale_by_learning_rate(rate(learning_rate, steps, schedule, warmup)),
    )


def rate(learning_rate: float, steps: int, schedule: str, warmup: int = 0) -> optax.Schedule:
    """Learning rate as a function of the number of finished steps.

    The warm-up's i-th step (from 0) has (i + 1) / warmup of the rate, so no step is wasted at
    rate zero; the cosine runs from the end of the warm-up to zero after the last step.

    Raises:
      UserError: an unknown schedule, or a warm-up as long as the run under a cosine.
    """
    if schedule not in ("constant", "cosine"):
        raise UserError(f"schedule must be 'constant' or 'cosine', not {schedule!r}")
    if schedule == "cosine" and warmup >= steps:
        raise UserError(f"warmup ({warmup}) must be shorter than the run of {steps} steps")

    def at(count: jax.Array) -> jax.Array:
        value = learning_rate * jnp.minimum(1.0, (count + 1) / max(warmup, 1))
        if schedule == "cosine":
            done = jnp.clip((count - warmup) / (steps - warmup), 0.0, 1.0)
            value = value * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return value

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
