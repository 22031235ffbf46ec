"""Source distributions p0 of the flow (paper, sec. 3.1: Kaiming initialisation as the source).

The fan of a latent is the product of its shape without the batch axis: what PyTorch calls fan_in of
a (B, C, H, W) tensor. Its fan_out would depend on the batch size and is never used. A Kaiming
normal source is a Gaussian of standard deviation sqrt(2 / fan). The source used in training must be
the one used in sampling, also where the latent has another shape then (`Source.trained_on`); losses
of different sources cannot be compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flown_jax.flow.checks import number

Array = jax.Array
NAMES = ("gaussian", "kaiming_normal", "kaiming_uniform", "kaiming_uniform_linear")


@dataclasses.dataclass(frozen=True)
class Source:
    """A distribution `source(key, shape) -> x0` of independent entries, multiplied by `scale`.

    `fan` is that of the latents which a flow was trained on; None takes that of the shape.
    """

    name: str
    scale: float = 1.0
    fan: int | None = None

    def __post_init__(self):
        if self.name not in NAMES:
            raise ValueError(
                f"source {self.name!r} is unknown, expected one of {', '.join(NAMES)}."
            )
        number(self.scale, "the source's scale", above=0)

    def trained_on(self, latent_shape: Sequence[int]) -> Source:
        """The source of a flow that was trained on latents of this shape, for latents of any.

        Args:
          latent_shape: of one latent, without the batch axis.
        """
        return dataclasses.replace(self, fan=_fan((1, *latent_shape)))

    def __call__(self, key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        """Draws of the given shape, (B, ...)."""
        shape = tuple(shape)
        std = self.std(shape)
        if self.is_gaussian:
            return std * jax.random.normal(key, shape, dtype)
        bound = math.sqrt(3.0) * std
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    @property
    def is_gaussian(self) -> bool:
        """Whether the entries are normal, so that p0 has a score."""
        return self.name in ("gaussian", "kaiming_normal")

    @property
    def is_standard_normal(self) -> bool:
        """Whether this is N(0, 1), as the target path needs."""
        return self.name == "gaussian" and self.scale == 1.0

    def std(self, shape: Sequence[int]) -> float:
        """Standard deviation of an entry of x0 with this shape, (B, ...)."""
        fan = _fan(shape) if self.fan is None else self.fan
        variance = {
            "gaussian": 1.0,
            "kaiming_normal": 2 / fan,
            "kaiming_uniform": 2 / fan,
            "kaiming_uniform_linear": 1 / (3 * fan),
        }[self.name]
        return self.scale * math.sqrt(variance)

    def log_prob(self, x0: Array) -> Array:
        """Log density of each sample, (B,); -inf outside the box of a uniform source."""
        std = self.std(x0.shape)
        if self.is_gaussian:
            entries = -0.5 * (x0 / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
        else:
            bound = math.sqrt(3.0) * std
            entries = jnp.where(jnp.abs(x0) <= bound, -math.log(2 * bound), -jnp.inf)
        return entries.reshape(x0.shape[0], -1).sum(-1)


def get_source(name: str, scale: float = 1.0) -> Source:
    """The source of that name.

    Args:
      name: gaussian N(0, 1); kaiming_normal N(0, 2/fan); kaiming_uniform, uniform of the same
        standard deviation; kaiming_uniform_linear, uniform within 1/sqrt(fan), the default of
        PyTorch's linear layer.
      scale: factor on the draws.
    Raises:
      ValueError: the name is unknown, or the scale is not positive and finite.
    """
    return Source(name, scale)


def _fan(shape: Sequence[int]) -> int:
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(
            f"a source's shape is (B, ...) with at least two axes of entries, got {tuple(shape)}."
        )
    return math.prod(shape[1:])
