"""Gaussian kernel density of latents: a rival of the flow that has nothing to train.

Its draws are training latents plus noise: with the bandwidth 0 training latents, and with that of
the rules wider than them. In many dimensions the rules' noise is nearly as wide as the latents.
Sources of the rules: Silverman, Density Estimation for Statistics and Data Analysis, 1986; Scott,
Multivariate Density Estimation, 1992; factors as in scipy.stats.gaussian_kde.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flown_jax.errors import UserError
from flown_jax.flow.checks import number

Array = jax.Array
RULES = ("silverman", "scott")


def rule_bandwidth(latents: Array, rule: str = "silverman", dims: int | None = None) -> Array:
    """Standard deviation of the kernel along each dimension, of a latent's shape.

    The dimension's standard deviation (divisor N - 1) times a factor of all dimensions together:
    N^(-1 / (d + 4)) by Scott, (N (d + 2) / 4)^(-1 / (d + 4)) by Silverman.

    Args:
      latents: (N, ...), N >= 2.
      rule: `silverman` or `scott`.
      dims: d; None for the number of entries of a latent. 1 gives the rule for each dimension as
        if it were alone, which is much narrower.
    Raises:
      UserError: an unknown rule, fewer than two latents.
    """
    latents = _checked(latents)
    count = latents.shape[0]
    if rule not in RULES:
        raise UserError(f"bandwidth {rule!r} is unknown; choose one of {', '.join(RULES)}.")
    if count < 2:
        raise UserError("a bandwidth needs two latents or more; with one, give it as a number.")
    d = latents[0].size if dims is None else dims
    effective = count * (d + 2) / 4 if rule == "silverman" else count
    return effective ** (-1 / (d + 4)) * latents.std(0, ddof=1)


def sample(keys: Array, latents: Array, bandwidth: Array | float | str = "silverman") -> Array:
    """One draw for each key: a latent, all equally likely, plus Gaussian noise.

    A draw depends on its key only: the first of more keys give the same draws.

    Args:
      keys: () or (S,), of `jax.random.key`.
      latents: (N, ...).
      bandwidth: standard deviation of the noise, of a latent's shape or broadcast to it, or a rule
        of `rule_bandwidth`.
    Returns:
      (...) for one key, (S, ...) for S.
    Raises:
      UserError: no latents, an unknown rule.
      ValueError: a bandwidth that is negative or not finite.
    """
    latents = _checked(latents)
    if isinstance(bandwidth, str):
        bandwidth = rule_bandwidth(latents, bandwidth)
    else:
        number(bandwidth, "the bandwidth", least=0)
    std = jnp.broadcast_to(jnp.asarray(bandwidth, latents.dtype), latents.shape[1:])

    def draw(key: Array) -> Array:
        key_member, key_noise = jax.random.split(key)
        member = latents[jax.random.randint(key_member, (), 0, latents.shape[0])]
        return member + std * jax.random.normal(key_noise, member.shape, member.dtype)

    return jax.vmap(draw)(keys) if jnp.ndim(keys) else draw(keys)


def _checked(latents: Array) -> Array:
    latents = jnp.asarray(latents)
    if latents.ndim < 2 or not latents.size or not jnp.issubdtype(latents.dtype, jnp.floating):
        raise UserError(
            f"latents must be numbers (N, ...) of N latents, not {latents.dtype} {latents.shape}."
        )
    return latents
