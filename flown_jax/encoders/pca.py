"""Principal components as a weight codec: the linear rival of the weight autoencoders.

    codec = fit(w, latent_size=32)             # latents (B, 32)
    codec = fit(w, latent_size=(4, 4, 4))      # maps, in the place of AutoencoderKL
    codec.decode(codec.encode(w).mode())       # the nearest point of the components' plane

Unlike the autoencoders it is no linen module: fitted, it is a pytree with the same two methods;
`PCAModule` stands for a module where one is wanted.
Weights whose tensors differ in scale should be standardised before, or the large tensors are all
that the components see.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from flown_jax.encoders.posterior import Posterior
from flown_jax.errors import UserError


@flax.struct.dataclass
class PCACodec:
    """`encode(w) -> Posterior` and `decode(z) -> w`; w (..., D), z (..., *latent_shape).

    Attributes:
      mean: (D,). components: (k, D), orthonormal, by falling variance; rows of padding are zero.
      scale: (k,), what a component's coordinates are divided by: their standard deviation with
        whitening, 1 without.
      variance: (k,), of the training weights along each component (divisor N - 1).
      total_variance: of the training weights, summed over D.
      latent_shape: of a latent, k numbers.
    """

    mean: Array
    components: Array
    scale: Array
    variance: Array
    total_variance: Array
    latent_shape: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def encode(self, w: Array) -> Posterior:
        """Posterior without variance over latents (..., *latent_shape): its samples are its mean.

        Its KL divergence is infinite.

        Args:
          w: (..., D).
        Raises:
          UserError: vectors of another length.
        """
        if w.ndim < 1 or w.shape[-1] != self.weight_dim:
            raise UserError(f"this PCA takes weight vectors (B, {self.weight_dim}), got {w.shape}.")
        # An accelerator's default precision would cost the round trip half of its digits.
        centred = w - self.mean
        z = jnp.matmul(centred, self.components.T, precision=jax.lax.Precision.HIGHEST)
        z = (z / self.scale).reshape(*w.shape[:-1], *self.latent_shape)
        return Posterior(z, jnp.full_like(z, -jnp.inf))

    def decode(self, z: Array) -> Array:
        """Weights (..., D) of latents z (..., *latent_shape).

        Raises:
          UserError: latents of another shape.
        """
        axes = len(self.latent_shape)
        if z.ndim < axes or z.shape[z.ndim - axes :] != self.latent_shape:
            raise UserError(
                f"this PCA decodes latents (B, {', '.join(map(str, self.latent_shape))}), "
                f"got {z.shape}."
            )
        flat = z.reshape(*z.shape[: z.ndim - axes], -1) * self.scale
        return self.mean + jnp.matmul(flat, self.components, precision=jax.lax.Precision.HIGHEST)

    @property
    def weight_dim(self) -> int:
        """Length D of the weight vectors."""
        return self.mean.shape[0]

    @property
    def explained(self) -> Array:
        """Share of the training weights' variance that each component carries, (k,)."""
        return self.variance / self.total_variance


@dataclasses.dataclass(frozen=True)
class PCAModule:
    """A fitted PCA in the place of a linen module: its variables are the `PCACodec`."""

    def apply(self, variables: PCACodec, x: Array, *, method: str) -> Any:
        """`encode` or `decode` of the codec."""
        return getattr(variables, method)(x)


def fit(
    w: ArrayLike,
    latent_size: int | Sequence[int],
    *,
    whiten: bool = False,
    pad: bool = False,
) -> PCACodec:
    """The codec of the first principal components of training weights.

    N networks have at most N - 1 components (fewer if some are equal, at most D). To ask for more
    is an error, so that no one takes a latent for larger than it is; with `pad` the others are
    latents that are always 0 and change nothing when decoded.

    Args:
      w: training weights (N, D).
      latent_size: number of components k, or the shape of a latent with k entries, such as the
        (r, r, e) of `AutoencoderKL.latent_shape`.
      whiten: divide each coordinate by its standard deviation over the training weights.
      pad: fill up with zeros where there are fewer than k components.
    Raises:
      UserError: weights of another shape or not finite, a size below 1, too few components.
    """
    shape = tuple(int(n) for n in np.atleast_1d(latent_size))
    if not shape or min(shape) < 1:
        raise UserError(f"latent_size is {latent_size}; it must be positive.")
    size, data = math.prod(shape), np.asarray(w)
    if data.ndim != 2 or len(data) < 2 or not data.shape[1]:
        raise UserError(f"PCA needs weights (N, D) of N >= 2 networks, not {data.shape}.")
    if not np.isfinite(data).all():
        raise UserError("PCA's weights hold NaN or infinite values.")
    # In float64, and back to the weights' own precision at the end (float32 at least).
    values = data.astype(np.float64)
    mean = values.mean(0)
    _, singular, components = np.linalg.svd(values - mean, full_matrices=False)
    # Equal networks, and averages of networks, leave rounding in the place of a component.
    rounding = float(jnp.finfo(data.dtype).eps) if jnp.issubdtype(data.dtype, jnp.floating) else 0.0
    floor = max(rounding * np.linalg.norm(values), np.finfo(float).eps * singular[0] * len(data))
    rank = int((singular > floor).sum())
    if rank < size and not pad:
        raise UserError(
            f"latent_size asks for {size} components, but {len(data)} networks of "
            f"{data.shape[1]} weights have {rank}; ask for fewer, or pad with zeros (pad=True)."
        )
    used = min(rank, size)
    variance = _filled(singular[:used] ** 2 / (len(data) - 1), size)
    dtype = jax.dtypes.canonicalize_dtype(np.promote_types(data.dtype, np.float32))
    return PCACodec(
        mean=jnp.asarray(mean, dtype),
        components=jnp.asarray(_filled(_signed(components[:used]), size), dtype),
        scale=jnp.asarray(np.where(whiten & (variance > 0), np.sqrt(variance), 1.0), dtype),
        variance=jnp.asarray(variance, dtype),
        total_variance=jnp.asarray(np.sum(singular**2) / (len(data) - 1), dtype),
        latent_shape=shape,
    )


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows, and zeros behind them up to the size."""
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]))])


def _signed(components: np.ndarray) -> np.ndarray:
    """Components whose largest entry is positive: the sign is free, and this makes it the same."""
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    return components * np.sign(largest)
