"""Denoising diffusion, the flow's twin baseline (Ho et al. 2020; Nichol and Dhariwal 2021).

Here x_0 is data and x_T noise, as in that literature; index t runs 0 .. T-1. The model predicts the
noise: `model(x_t, t, condition) -> eps`, t integer (B,). Schedules are those of `noise_schedules`.
DDIM: Song et al. 2021; the DDIM times of latent diffusion: Rombach et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.flow.checks import floats, number, whole
from flown_jax.flow.noise_schedules import (
    Schedule,
    iddpm_linear_schedule,
    ldm_schedule,
    linear_schedule,
    respace,
    space_timesteps,
)
from flown_jax.flow.sampling import Solution

__all__ = [
    "LDMSteps",
    "Prediction",
    "Schedule",
    "ancestral_step",
    "ddim_step",
    "ddpm_loss",
    "iddpm_linear_schedule",
    "ldm_ddim_steps",
    "ldm_schedule",
    "linear_schedule",
    "p_mean_variance",
    "predict_x0",
    "q_posterior",
    "q_sample",
    "respace",
    "sample_ddpm",
    "space_timesteps",
]

Array = jax.Array
Model = Callable[[Array, Array, Any], Array]


class Prediction(NamedTuple):
    """p(x_{t-1} | x_t): mean (B, ...), log variance (B,), and the predicted x_0 (B, ...)."""

    mean: Array
    log_variance: Array
    x0_hat: Array


def q_sample(schedule: Schedule, x0: Array, t: Array, eps: Array) -> Array:
    """Noisy x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps, (B, ...); t integer (B,)."""
    abar = schedule.alphas_cumprod
    return _at(np.sqrt(abar), t, x0) * x0 + _at(np.sqrt(1 - abar), t, x0) * eps


def q_posterior(schedule: Schedule, x0: Array, x_t: Array, t: Array) -> tuple[Array, Array]:
    """Mean (B, ...) and clipped log variance (B,) of q(x_{t-1} | x_t, x_0)."""
    mean = (
        _at(schedule.posterior_mean_coef1, t, x_t) * x0
        + _at(schedule.posterior_mean_coef2, t, x_t) * x_t
    )
    return mean, _at(schedule.posterior_log_variance_clipped, t)


def ddpm_loss(
    model: Model, key: Array, x0: Array, condition: Any, schedule: Schedule
) -> tuple[Array, dict[str, Array]]:
    """Mean squared error of the predicted noise at uniform t, a scalar, and what it was made of.

    Args:
      model: `model(x_t, t, condition) -> eps`, t integer (B,), the schedule's own indices.
      key: split into times and noise. x0: data, (B, ...). condition: leading axis B, or None.
    Returns:
      The loss, and x_t, eps, eps_hat (B, ...), t (B,).
    Raises:
      ValueError: no data, or such that are no floats; eps_hat of another shape.
    """
    floats(x0, "x0")
    key_time, key_noise = jax.random.split(key)
    t = jax.random.randint(key_time, (x0.shape[0],), 0, len(schedule))
    eps = jax.random.normal(key_noise, x0.shape, x0.dtype)
    x_t = q_sample(schedule, x0, t, eps)
    eps_hat = model(x_t, _model_time(schedule, t), condition)
    if eps_hat.shape != x0.shape:
        raise ValueError(f"the model must return x's shape {x0.shape}, got {eps_hat.shape}.")
    return jnp.mean((eps_hat - eps) ** 2), {"x_t": x_t, "t": t, "eps": eps, "eps_hat": eps_hat}


def predict_x0(
    schedule: Schedule, eps_hat: Array, x_t: Array, t: Array, clip_x0: bool = False
) -> Array:
    """x_0 that the predicted noise implies, (B, ...), optionally clipped to [-1, 1]."""
    abar = schedule.alphas_cumprod
    x0 = _at(np.sqrt(1 / abar), t, x_t) * x_t - _at(np.sqrt(1 / abar - 1), t, x_t) * eps_hat
    return jnp.clip(x0, -1, 1) if clip_x0 else x0


def p_mean_variance(
    schedule: Schedule,
    eps_hat: Array,
    x_t: Array,
    t: Array,
    *,
    variance: str = "large",
    clip_x0: bool = False,
) -> Prediction:
    """Distribution of x_{t-1} that the predicted noise implies.

    Args:
      eps_hat, x_t: (B, ...). t: integer (B,).
      variance: "large" (beta) or "small" (the posterior's).
      clip_x0: clip the predicted x_0 to [-1, 1].
    """
    if variance not in ("large", "small"):
        raise ValueError(f"variance must be large or small, got {variance!r}.")
    large = variance == "large"
    log_variance = schedule.large_log_variance if large else schedule.posterior_log_variance_clipped
    x0_hat = predict_x0(schedule, eps_hat, x_t, t, clip_x0)
    mean, _ = q_posterior(schedule, x0_hat, x_t, t)
    return Prediction(mean, _at(log_variance, t), x0_hat)


def ancestral_step(
    schedule: Schedule,
    eps_hat: Array,
    x_t: Array,
    t: Array,
    noise: Array,
    *,
    variance: str = "large",
    clip_x0: bool = False,
    clip_sample: bool = False,
) -> Array:
    """x_{t-1} drawn with the given noise, none at t = 0; `clip_sample` clips it too (p-diff).

    Of the type of x_t.
    """
    p = p_mean_variance(schedule, eps_hat, x_t, t, variance=variance, clip_x0=clip_x0)
    std = jnp.where(t > 0, jnp.exp(0.5 * p.log_variance), 0.0).astype(x_t.dtype)
    x = p.mean + _like(std, x_t) * noise
    return jnp.clip(x, -1, 1) if clip_sample else x


def ddim_step(
    schedule: Schedule,
    eps_hat: Array,
    x_t: Array,
    t: Array,
    noise: Array,
    *,
    eta: float = 0.0,
    clip_x0: bool = False,
) -> Array:
    """x_{t-1} of DDIM, deterministic for eta = 0, without noise at t = 0."""
    number(eta, "eta", least=0)
    abar, previous = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    sigma = eta * np.sqrt((1 - previous) / (1 - abar)) * np.sqrt(1 - abar / previous)
    x0 = predict_x0(schedule, eps_hat, x_t, t, clip_x0)
    if clip_x0:
        # The noise that belongs to the clipped x_0.
        scale, shift = np.sqrt(1 / abar), np.sqrt(1 / abar - 1)
        eps_hat = (_at(scale, t, x_t) * x_t - x0) / _at(shift, t, x_t)
    direction = np.sqrt(np.maximum(1 - previous - sigma**2, 0.0))
    mean = _at(np.sqrt(previous), t, x_t) * x0 + _at(direction, t, x_t) * eps_hat
    return mean + _like(t > 0, x_t) * _at(sigma, t, x_t) * noise


class LDMSteps(NamedTuple):
    """DDIM as in latent diffusion: timesteps, abar, previous abar and sigma of each, (S,)."""

    timesteps: np.ndarray
    alphas: np.ndarray
    alphas_prev: np.ndarray
    sigmas: np.ndarray


def ldm_ddim_steps(schedule: Schedule, steps: int, eta: float) -> LDMSteps:
    """Times range(0, T, T // steps) + 1 (perhaps a few more than `steps`) and their coefficients.

    Raises:
      ValueError: steps is outside [1, T], the last time would be T, or eta is negative.
    """
    number(eta, "eta", least=0)
    total = len(schedule)
    if whole(steps, "steps") > total:
        raise ValueError(f"steps must lie between 1 and {total}, got {steps}.")
    times = np.arange(0, total, total // steps) + 1
    if times[-1] >= total:
        raise ValueError(f"{steps} steps of {total} would need timestep {total}; take fewer.")
    abar = schedule.alphas_cumprod[times]
    previous = np.append(schedule.alphas_cumprod[0], abar[:-1])
    sigmas = eta * np.sqrt((1 - previous) / (1 - abar) * (1 - abar / previous))
    return LDMSteps(times, abar, previous, sigmas)


def sample_ddpm(
    model: Model,
    key: Array,
    x_T: Array,
    condition: Any,
    schedule: Schedule,
    *,
    steps: int | str | Sequence[int] | None = None,
    method: str = "ancestral",
    variance: str = "large",
    eta: float = 0.0,
    clip_x0: bool = False,
    clip_sample: bool = False,
    temperature: float | Array = 1.0,
) -> Solution:
    """Data from noise by a scan over the (respaced) schedule; no gradient is kept.

    Args:
      model: `model(x_t, t, condition) -> eps`, t integer (B,), always the full schedule's index.
      key: split into one key a step; not used by DDIM with eta = 0.
      x_T: noise, (B, ...), already multiplied by a temperature if one is wanted there; half
        precision is sampled in float32.
      condition: pytree with leading axis B, or None.
      steps: None for all, or as in `space_timesteps`.
      method: "ancestral" or "ddim".
      variance, clip_sample: of ancestral steps. eta: of DDIM. clip_x0: of both.
      temperature: multiplies the noise that every step adds, a number or (B,); 0 makes the sampler
        deterministic. It leaves x_T as it is.
    Returns:
      A `Solution` with the data in x1 and one model call a step in nfe.
    Raises:
      ValueError: an unknown method or variance, impossible steps, an eta or a temperature that is
        negative or not finite, or a temperature of another shape.
    """
    if method not in ("ancestral", "ddim"):
        raise ValueError(f"method must be ancestral or ddim, got {method!r}.")
    number(temperature, "temperature", least=0)
    number(eta, "eta", least=0)
    x_T = jnp.asarray(x_T)
    if not jnp.issubdtype(x_T.dtype, jnp.floating) or x_T.ndim == 0:
        raise ValueError(f"x_T must be a float array (B, ...), got {x_T.dtype} {x_T.shape}.")
    if jnp.shape(temperature) not in ((), x_T.shape[:1]):
        raise ValueError(
            f"temperature must be a number or {x_T.shape[:1]}, got {jnp.shape(temperature)}."
        )
    x_T = x_T.astype(jnp.promote_types(x_T.dtype, jnp.float32))
    if steps is not None:
        schedule = respace(schedule, space_timesteps(len(schedule), steps))
    count = len(schedule)

    def step(x: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        index, key_step = item
        t = jnp.full((x.shape[0],), index)
        eps_hat = model(x, _model_time(schedule, t), condition).astype(x.dtype)
        noise = jax.random.normal(key_step, x.shape, x.dtype)
        if not (isinstance(temperature, int | float) and temperature == 1):
            scale = jnp.asarray(temperature, x.dtype)
            noise = (_like(scale, x) if scale.ndim else scale) * noise
        if method == "ddim":
            return ddim_step(schedule, eps_hat, x, t, noise, eta=eta, clip_x0=clip_x0), None
        return ancestral_step(
            schedule,
            eps_hat,
            x,
            t,
            noise,
            variance=variance,
            clip_x0=clip_x0,
            clip_sample=clip_sample,
        ), None

    items = (jnp.arange(count - 1, -1, -1), jax.random.split(key, count))
    x, _ = jax.lax.scan(step, x_T, items)
    return Solution(jax.lax.stop_gradient(x), count)


def _model_time(schedule: Schedule, t: Array) -> Array:
    return jnp.asarray(schedule.timesteps, jnp.int32)[t]


def _at(values: np.ndarray, t: Array, like: Array | None = None) -> Array:
    """values[t], (B,), with ones appended to broadcast against `like`.

    An index outside of the values would give another one's without a word.
    """
    dtype = jnp.float32 if like is None else like.dtype
    if not isinstance(t, jax.core.Tracer) and np.any((np.asarray(t) < 0) | (t >= len(values))):
        raise ValueError(f"times must lie in 0..{len(values) - 1}, got {np.asarray(t).tolist()}.")
    gathered = jnp.asarray(values, dtype)[t]
    return gathered if like is None else _like(gathered, like)


def _like(t: Array, x: Array) -> Array:
    return t.reshape(t.shape + (1,) * (x.ndim - 1))
