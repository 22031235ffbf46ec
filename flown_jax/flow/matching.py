"""Conditional flow matching losses (paper, eq. 1) and the score loss of [SF]2M.

The paper prints a norm; the loss is its square, averaged over all entries, as in Lipman et al. 2023
and Tong et al. 2024. [SF]2M: Tong et al. 2024, "Simulation-free Schroedinger bridges".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flown_jax.flow.checks import floats, number
from flown_jax.flow.couplings import Coupling, independent, needs_groups
from flown_jax.flow.paths import Path, TargetPath

Array = jax.Array
Velocity = Callable[[Array, Array, Any], Array]
SourceLike = Callable[..., Array]
TimeLike = Callable[[Array, tuple[int, ...]], Array]


def uniform_time(low: float = 0.0, high: float = 1.0) -> TimeLike:
    """Times from U[low, high), `time(key, shape) -> t`; the default never draws t = 1."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"uniform_time needs 0 <= low < high <= 1, got {low} and {high}.")
    return lambda key, shape: jax.random.uniform(key, shape, minval=low, maxval=high)


def skewed_time(mean: float = -1.2, std: float = 1.2, minimum: float = 1e-4) -> TimeLike:
    """Times 1 / (1 + s), log s ~ N(mean, std^2), at least `minimum` (Karras et al. 2022)."""
    number(mean, "the mean of skewed times")
    number(std, "the standard deviation of skewed times", above=0)
    if not 0 <= minimum < 1:
        raise ValueError(f"the minimum of skewed times must lie in [0, 1), got {minimum}.")
    return lambda key, shape: jnp.clip(
        jax.nn.sigmoid(-(mean + std * jax.random.normal(key, shape))), minimum, 1.0
    )


def cfm_loss(
    velocity: Velocity,
    key: Array,
    x1: Array,
    condition: Any = None,
    *,
    path: Path,
    coupling: Coupling,
    source: SourceLike,
    groups: Array | None = None,
    time: TimeLike | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Mean squared difference between the velocity v and the path's u_t, and what it was made of.

    Args:
      velocity: `velocity(x, t, condition) -> v`, x and v (B, ...), t (B,).
      key: split into time, source, coupling and path noise, each used once.
      x1: data, (B, ...).
      condition: any pytree with leading axis B, or None; it stays with its x1.
      path, coupling, source: see `paths`, `couplings`, `sources`.
      groups: (B,) labels; optimal transport exchanges sources within equal labels only.
      time: `time(key, shape) -> t`; default U[0, 1), one time a sample.
    Returns:
      The loss, a scalar, and a dictionary of x_t, u, v, x1_hat (the endpoint x_t + (1-t) v of one
      step), all (B, ...), and t (B,).
    Raises:
      ValueError: the target path with a source that is not standard normal or with optimal
        transport; optimal transport with a condition but no groups; no data, or such that are no
        floats; v of another shape than x1.
    """
    _check_choices(path, coupling, source, condition, groups)
    draw = _draw(key, x1, coupling, source, groups, time)
    x_t, u = path.sample(draw.key_noise, draw.x0, x1, draw.t)
    v = velocity(x_t, draw.t, condition)
    if v.shape != x1.shape:
        raise ValueError(f"the velocity must return x's shape {x1.shape}, got {v.shape}.")
    aux = {"x_t": x_t, "t": draw.t, "u": u, "v": v, "x1_hat": x_t + (1 - _like(draw.t, x1)) * v}
    return jnp.mean((v - u) ** 2), aux


def score_loss(score: Array, eps: Array, t: Array, path: Path) -> Array:
    """Mean of (lambda_t s + eps)^2, the score loss of [SF]2M, a scalar.

    The minimiser s is (sigma^2 / 2) grad log p_t: v + s is the drift of the forward SDE with
    diffusion sigma, and -v + s that of the backward one.

    Args:
      score: network output, (B, ...). eps: path noise of x_t, (B, ...). t: (B,). path: with
        sigma > 0.
    Raises:
      ValueError: the path carries no noise.
    """
    if not path.sigma > 0:
        raise ValueError("score_loss needs a path with sigma > 0: without noise there is no score.")
    return jnp.mean((_like(path.score_weight(t), score) * score + eps) ** 2)


def sf2m_loss(
    velocity: Velocity,
    score: Velocity,
    key: Array,
    x1: Array,
    condition: Any = None,
    *,
    path: Path,
    coupling: Coupling,
    source: SourceLike,
    groups: Array | None = None,
    time: TimeLike | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Flow loss plus score loss of [SF]2M on one and the same x_t.

    Arguments as in `cfm_loss`; `score(x, t, condition)` is the second network. The dictionary holds
    flow_loss, score_loss, x_t, t, u, eps.
    """
    _check_choices(path, coupling, source, condition, groups)
    draw = _draw(key, x1, coupling, source, groups, time)
    eps = jax.random.normal(draw.key_noise, x1.shape, x1.dtype)
    x_t, u = path.from_noise(draw.x0, x1, draw.t, eps)
    flow = jnp.mean((velocity(x_t, draw.t, condition) - u) ** 2)
    bridge = score_loss(score(x_t, draw.t, condition), eps, draw.t, path)
    aux = {"flow_loss": flow, "score_loss": bridge, "x_t": x_t, "t": draw.t, "u": u, "eps": eps}
    return flow + bridge, aux


class _Draw(NamedTuple):
    x0: Array
    t: Array
    key_noise: Array


def _draw(key, x1, coupling, source, groups, time) -> _Draw:
    """Source paired with x1, times, and the key that is left for the path noise."""
    floats(x1, "x1")
    key_time, key_source, key_coupling, key_noise = jax.random.split(key, 4)
    time = uniform_time() if time is None else time
    t = time(key_time, (x1.shape[0],)).astype(jnp.promote_types(x1.dtype, jnp.float32))
    x0 = source(key_source, x1.shape).astype(x1.dtype)
    return _Draw(x0[coupling(key_coupling, x0, x1, groups)], t, key_noise)


def _check_choices(path, coupling, source, condition, groups) -> None:
    if isinstance(path, TargetPath):
        if not getattr(source, "is_standard_normal", False):
            raise ValueError(
                "TargetPath ignores x0 and needs the standard normal source; "
                "use LinearPath with any other source."
            )
        if coupling is not independent:
            raise ValueError("TargetPath ignores x0, so a coupling has no effect; use LinearPath.")
    if needs_groups(coupling) and condition is not None and groups is None:
        raise ValueError(
            "optimal transport over a batch with conditions ties the source to the condition and "
            "biases the flow; give groups (equal condition, equal label) or couple independently."
        )


def _like(t: Array, x: Array) -> Array:
    return t.reshape(t.shape + (1,) * (x.ndim - 1))
