"""Conditional probability paths from a source x0 to data x1 (paper, sec. 2.1).

Time runs 0 = source to 1 = data. Every path is x_t = mean(x0, x1, t) + std(t) eps with Gaussian
path noise eps, and names the velocity u_t that a flow regresses on. Sources: Lipman et al. 2023
(target), Tong et al. 2024 (I-CFM, OT-CFM, SB-CFM), Albergo and Vanden-Eijnden 2023 (VP),
Liu et al. 2023 (rectified flow, the linear path with sigma = 0).
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp

from flown_jax.flow.checks import number
from flown_jax.flow.schedulers import Scheduler

Array = jax.Array
_EPS = 1e-8


class Path(abc.ABC):
    """What every path offers; x0, x1, x, eps are (B, ...), t is (B,) or a scalar in [0, 1]."""

    sigma: float

    def __post_init__(self) -> None:
        number(self.sigma, f"sigma of {type(self).__name__}", least=0)

    @abc.abstractmethod
    def mean(self, x0: Array, x1: Array, t: Array) -> Array:
        """Mean of x_t given the pair, (B, ...)."""

    @abc.abstractmethod
    def std(self, t: Array) -> Array:
        """Standard deviation of x_t given the pair, shaped as t."""

    @abc.abstractmethod
    def velocity(self, x: Array, x0: Array, x1: Array, t: Array) -> Array:
        """Velocity of the path at any point x, given the pair, (B, ...)."""

    def from_noise(self, x0: Array, x1: Array, t: Array, eps: Array) -> tuple[Array, Array]:
        """Point x_t and target velocity u_t for given path noise.

        Args:
          x0, x1, eps: source, data and standard normal noise, (B, ...). t: (B,) or scalar.
        Returns:
          x_t and u_t, both (B, ...).
        Raises:
          ValueError: the shapes of x0, x1, eps or t do not fit.
        """
        _check_shapes(x0, x1, t, eps)
        x_t = self.mean(x0, x1, t) + _expand(self.std(t), x1) * eps
        return x_t, self.velocity(x_t, x0, x1, t)

    def sample(self, key: Array, x0: Array, x1: Array, t: Array) -> tuple[Array, Array]:
        """Point x_t and target velocity u_t, with the path noise drawn from `key`."""
        return self.from_noise(x0, x1, t, jax.random.normal(key, x1.shape, x1.dtype))

    def score_weight(self, t: Array) -> Array:
        """Weight lambda_t = 2 std(t) / sigma^2 of the score loss of [SF]2M, shaped as t."""
        return 2 * self.std(t) / (self.sigma**2 + _EPS)


@dataclasses.dataclass(frozen=True)
class LinearPath(Path):
    """Straight line (1-t) x0 + t x1 with noise `sigma`: I-CFM, OT-CFM and rectified flow.

    The velocity is x1 - x0, whatever the noise.
    """

    sigma: float = 0.0

    def mean(self, x0: Array, x1: Array, t: Array) -> Array:
        t = _expand(t, x1)
        return (1 - t) * x0 + t * x1

    def std(self, t: Array) -> Array:
        return jnp.full_like(jnp.asarray(t, float), self.sigma)

    def velocity(self, x: Array, x0: Array, x1: Array, t: Array) -> Array:
        del x, t
        return x1 - x0


@dataclasses.dataclass(frozen=True)
class TargetPath(Path):
    """Path to one data point with the noise as source: mean t x1, std 1 - (1 - sigma) t.

    x0 is not used: this path is right for a standard normal source only, and `cfm_loss` refuses
    any other.
    """

    sigma: float = 0.0

    def mean(self, x0: Array, x1: Array, t: Array) -> Array:
        del x0
        return _expand(t, x1) * x1

    def std(self, t: Array) -> Array:
        return 1 - (1 - self.sigma) * t

    def velocity(self, x: Array, x0: Array, x1: Array, t: Array) -> Array:
        """(x1 - (1-sigma) x) / std(t); 0/0 at t = 1 with sigma = 0."""
        del x0
        return (x1 - (1 - self.sigma) * x) / _expand(self.std(t), x1)

    def from_noise(self, x0: Array, x1: Array, t: Array, eps: Array) -> tuple[Array, Array]:
        """As `Path.from_noise`; u_t = x1 - (1-sigma) eps, which loses no digits near t = 1."""
        _check_shapes(x0, x1, t, eps)
        x_t = self.mean(x0, x1, t) + _expand(self.std(t), x1) * eps
        return x_t, x1 - (1 - self.sigma) * eps


@dataclasses.dataclass(frozen=True)
class SchrodingerBridgePath(Path):
    """Brownian bridge: linear mean, std sigma sqrt(t (1-t)); for SB-CFM and [SF]2M.

    The velocity is unbounded at both ends (its std is sigma / (2 sqrt(t))): train it with
    `time=uniform_time(1e-3, 1 - 1e-3)`.
    """

    sigma: float = 1.0

    def __post_init__(self):
        number(self.sigma, "sigma of SchrodingerBridgePath", above=0)

    def mean(self, x0: Array, x1: Array, t: Array) -> Array:
        t = _expand(t, x1)
        return (1 - t) * x0 + t * x1

    def std(self, t: Array) -> Array:
        return self.sigma * jnp.sqrt(t * (1 - t))

    def velocity(self, x: Array, x0: Array, x1: Array, t: Array) -> Array:
        s = _expand(t, x1)
        pull = (1 - 2 * s) / (2 * s * (1 - s) + _EPS)
        return pull * (x - self.mean(x0, x1, t)) + x1 - x0


@dataclasses.dataclass(frozen=True)
class VariancePreservingPath(Path):
    """Trigonometric interpolant cos(pi t/2) x0 + sin(pi t/2) x1 with noise `sigma`."""

    sigma: float = 0.0

    def mean(self, x0: Array, x1: Array, t: Array) -> Array:
        angle = jnp.pi / 2 * _expand(t, x1)
        return jnp.cos(angle) * x0 + jnp.sin(angle) * x1

    def std(self, t: Array) -> Array:
        return jnp.full_like(jnp.asarray(t, float), self.sigma)

    def velocity(self, x: Array, x0: Array, x1: Array, t: Array) -> Array:
        del x
        angle = jnp.pi / 2 * _expand(t, x1)
        return jnp.pi / 2 * (jnp.cos(angle) * x1 - jnp.sin(angle) * x0)


@dataclasses.dataclass(frozen=True)
class AffinePath(Path):
    """alpha_t x1 + sigma_t x0 of a `Scheduler`, without path noise."""

    scheduler: Scheduler
    sigma: float = dataclasses.field(default=0.0, init=False)

    def mean(self, x0: Array, x1: Array, t: Array) -> Array:
        t = _expand(t, x1)
        return self.scheduler.alpha(t) * x1 + self.scheduler.sigma(t) * x0

    def std(self, t: Array) -> Array:
        return jnp.zeros_like(jnp.asarray(t, float))

    def velocity(self, x: Array, x0: Array, x1: Array, t: Array) -> Array:
        del x
        t = _expand(t, x1)
        return self.scheduler.d_alpha(t) * x1 + self.scheduler.d_sigma(t) * x0


def _expand(t: Array, x: Array) -> Array:
    """t, (B,) or scalar, with ones appended so that it broadcasts against x, (B, ...)."""
    t = jnp.asarray(t)
    return t.reshape(t.shape + (1,) * (x.ndim - 1)) if t.ndim else t


def _check_shapes(x0: Array, x1: Array, t: Array, eps: Array) -> None:
    if x0.shape != x1.shape or eps.shape != x1.shape:
        raise ValueError(
            f"x0 {x0.shape}, x1 {x1.shape} and eps {eps.shape} must have one and the same shape."
        )
    if jnp.shape(t) not in ((), x1.shape[:1]):
        raise ValueError(
            f"t must be a scalar or {x1.shape[:1]}, one time a sample, got {jnp.shape(t)}."
        )
