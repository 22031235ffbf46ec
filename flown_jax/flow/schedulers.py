"""Affine schedulers x_t = alpha_t x1 + sigma_t x0, and conversions between predictions.

A scheduler is alpha, sigma and their derivatives, nothing else; alpha multiplies the data x1 and
sigma the source x0 (it is not path noise). Formulas: Lipman et al. 2024, "Flow matching guide and
code", sec. 4. Times are arrays of any shape that broadcasts against x.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp

from flown_jax.flow.checks import number

Array = jax.Array


class Scheduler(abc.ABC):
    """Coefficients of x_t = alpha(t) x1 + sigma(t) x0; alpha rises 0 to 1, sigma falls 1 to 0."""

    @abc.abstractmethod
    def alpha(self, t: Array) -> Array:
        """Coefficient of the data."""

    @abc.abstractmethod
    def sigma(self, t: Array) -> Array:
        """Coefficient of the source."""

    @abc.abstractmethod
    def d_alpha(self, t: Array) -> Array:
        """Derivative of alpha."""

    @abc.abstractmethod
    def d_sigma(self, t: Array) -> Array:
        """Derivative of sigma."""

    @abc.abstractmethod
    def snr_inverse(self, snr: Array) -> Array:
        """Time at which alpha / sigma equals `snr`."""


@dataclasses.dataclass(frozen=True)
class CondOT(Scheduler):
    """alpha = t, sigma = 1 - t: the straight line."""

    def alpha(self, t: Array) -> Array:
        return t

    def sigma(self, t: Array) -> Array:
        return 1 - t

    def d_alpha(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def d_sigma(self, t: Array) -> Array:
        return -jnp.ones_like(t)

    def snr_inverse(self, snr: Array) -> Array:
        return snr / (1 + snr)


@dataclasses.dataclass(frozen=True)
class Polynomial(Scheduler):
    """alpha = t^n, sigma = 1 - t^n."""

    n: float

    def __post_init__(self):
        number(self.n, "Polynomial's exponent n", above=0)

    def alpha(self, t: Array) -> Array:
        return t**self.n

    def sigma(self, t: Array) -> Array:
        return 1 - t**self.n

    def d_alpha(self, t: Array) -> Array:
        return self.n * t ** (self.n - 1)

    def d_sigma(self, t: Array) -> Array:
        return -self.n * t ** (self.n - 1)

    def snr_inverse(self, snr: Array) -> Array:
        return (snr / (1 + snr)) ** (1 / self.n)


@dataclasses.dataclass(frozen=True)
class Cosine(Scheduler):
    """alpha = sin(pi t/2), sigma = cos(pi t/2)."""

    def alpha(self, t: Array) -> Array:
        return jnp.sin(jnp.pi / 2 * t)

    def sigma(self, t: Array) -> Array:
        return jnp.cos(jnp.pi / 2 * t)

    def d_alpha(self, t: Array) -> Array:
        return jnp.pi / 2 * jnp.cos(jnp.pi / 2 * t)

    def d_sigma(self, t: Array) -> Array:
        return -jnp.pi / 2 * jnp.sin(jnp.pi / 2 * t)

    def snr_inverse(self, snr: Array) -> Array:
        return 2 / jnp.pi * jnp.arctan(snr)


@dataclasses.dataclass(frozen=True)
class LinearVP(Scheduler):
    """alpha = t, sigma = sqrt(1 - t^2); d_sigma is infinite at t = 1."""

    def alpha(self, t: Array) -> Array:
        return t

    def sigma(self, t: Array) -> Array:
        return jnp.sqrt(1 - t**2)

    def d_alpha(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def d_sigma(self, t: Array) -> Array:
        return -t / jnp.sqrt(1 - t**2)

    def snr_inverse(self, snr: Array) -> Array:
        return snr / jnp.sqrt(1 + snr**2)


@dataclasses.dataclass(frozen=True)
class VP(Scheduler):
    """Variance-preserving diffusion: alpha = exp(-T/2), sigma = sqrt(1 - exp(-T)).

    T(t) = (1-t)^2 (beta_max - beta_min)/2 + (1-t) beta_min, the integrated noise rate.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        number(self.beta_min, "VP's beta_min", above=0)
        number(self.beta_max, "VP's beta_max", least=self.beta_min)

    def alpha(self, t: Array) -> Array:
        return jnp.exp(-self._integral(t) / 2)

    def sigma(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(-self._integral(t)))

    def d_alpha(self, t: Array) -> Array:
        return self._rate(t) / 2 * self.alpha(t)

    def d_sigma(self, t: Array) -> Array:
        return -self._rate(t) / 2 * jnp.exp(-self._integral(t)) / self.sigma(t)

    def snr_inverse(self, snr: Array) -> Array:
        integral = jnp.log1p(1 / snr**2)
        half, b = (self.beta_max - self.beta_min) / 2, self.beta_min
        # The positive root of half s^2 + b s = T, in the form that does not cancel for small T.
        return 1 - 2 * integral / (b + jnp.sqrt(b**2 + 4 * half * integral))

    def _integral(self, t: Array) -> Array:
        return (1 - t) ** 2 * (self.beta_max - self.beta_min) / 2 + (1 - t) * self.beta_min

    def _rate(self, t: Array) -> Array:
        return (1 - t) * (self.beta_max - self.beta_min) + self.beta_min


def velocity_to_target(scheduler: Scheduler, v: Array, x: Array, t: Array) -> Array:
    """Data x1 predicted by the velocity v at (x, t); undefined at t = 0 where alpha' = 0."""
    a, s, da, ds = _coefficients(scheduler, t)
    return (s * v - ds * x) / (da * s - ds * a)


def velocity_to_epsilon(scheduler: Scheduler, v: Array, x: Array, t: Array) -> Array:
    """Source x0 (epsilon of the diffusion literature) predicted by the velocity v at (x, t)."""
    a, s, da, ds = _coefficients(scheduler, t)
    return (da * x - a * v) / (da * s - ds * a)


def target_to_velocity(scheduler: Scheduler, x1: Array, x: Array, t: Array) -> Array:
    """Velocity at (x, t) when the data are x1; undefined at t = 1."""
    a, s, da, ds = _coefficients(scheduler, t)
    return ds / s * x + (da * s - ds * a) / s * x1


def epsilon_to_velocity(scheduler: Scheduler, x0: Array, x: Array, t: Array) -> Array:
    """Velocity at (x, t) when the source is x0; undefined at t = 0."""
    a, s, da, ds = _coefficients(scheduler, t)
    return da / a * x + (ds * a - da * s) / a * x0


def target_to_epsilon(scheduler: Scheduler, x1: Array, x: Array, t: Array) -> Array:
    """Source x0 on the path through x when the data are x1; undefined at t = 1."""
    return (x - scheduler.alpha(t) * x1) / scheduler.sigma(t)


def epsilon_to_target(scheduler: Scheduler, x0: Array, x: Array, t: Array) -> Array:
    """Data x1 on the path through x when the source is x0; undefined at t = 0."""
    return (x - scheduler.sigma(t) * x0) / scheduler.alpha(t)


def velocity_to_score(
    scheduler: Scheduler, v: Array, x: Array, t: Array, source_std: float = 1.0
) -> Array:
    """Score of p_t at x for a Gaussian source of standard deviation `source_std`."""
    x0 = velocity_to_epsilon(scheduler, v, x, t)
    return -x0 / (source_std**2 * scheduler.sigma(t))


def _coefficients(scheduler: Scheduler, t: Array) -> tuple[Array, Array, Array, Array]:
    return scheduler.alpha(t), scheduler.sigma(t), scheduler.d_alpha(t), scheduler.d_sigma(t)
