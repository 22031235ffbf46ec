"""Noise schedules of denoising diffusion: betas, and the steps of them that are taken.

Float64 numpy on the host. Ho et al. 2020; Nichol and Dhariwal 2021 (respacing); Rombach et al. 2022
(the schedule of latent diffusion).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from flown_jax.flow.checks import number, whole


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """Noise schedule: `betas` (T,) float64 and the model's own index of each step (T,)."""

    betas: np.ndarray
    timesteps: np.ndarray

    def __post_init__(self):
        if self.betas.ndim != 1 or self.betas.shape != self.timesteps.shape:
            raise ValueError(
                f"betas and timesteps must both be (T,), got {self.betas.shape} and "
                f"{self.timesteps.shape}."
            )
        if not len(self.betas):
            raise ValueError("a schedule needs at least one beta.")
        # A beta of 1 leaves nothing of x_0, which no predicted noise then gives back.
        if not (np.all(self.betas > 0) and np.all(self.betas < 1)):
            raise ValueError("betas must lie in (0, 1).")

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> np.ndarray:
        return np.cumprod(1 - self.betas)

    @cached_property
    def alphas_cumprod_prev(self) -> np.ndarray:
        return np.append(1.0, self.alphas_cumprod[:-1])

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def first_variance(self) -> float:
        """Stands for the variance at index 0, 0: that of index 1, or beta where there is none."""
        return float(self.posterior_variance[1] if len(self) > 1 else self.betas[0])

    @cached_property
    def posterior_log_variance_clipped(self) -> np.ndarray:
        """log of the posterior variance, index 0 (log 0) replaced by `first_variance`."""
        return np.log(np.append(self.first_variance, self.posterior_variance[1:]))

    @cached_property
    def large_log_variance(self) -> np.ndarray:
        """log beta, index 0 replaced by `first_variance`."""
        return np.log(np.append(self.first_variance, self.betas[1:]))

    @cached_property
    def posterior_mean_coef1(self) -> np.ndarray:
        return self.betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> np.ndarray:
        return (1 - self.alphas_cumprod_prev) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)


def linear_schedule(timesteps: int, beta_start: float, beta_end: float) -> Schedule:
    """`timesteps` betas, evenly spaced."""
    timesteps = whole(timesteps, "timesteps")
    return _schedule(np.linspace(beta_start, beta_end, timesteps, dtype=np.float64))


def iddpm_linear_schedule(timesteps: int) -> Schedule:
    """1e-4 .. 2e-2 times 1000 / T: the published linear schedule for any T > 20.

    Raises:
      ValueError: fewer timesteps; the last beta of 20 is already 1.
    """
    scale = 1000 / whole(timesteps, "timesteps of the scaled linear schedule", 21)
    return linear_schedule(timesteps, scale * 1e-4, scale * 2e-2)


def ldm_schedule(timesteps: int, linear_start: float, linear_end: float) -> Schedule:
    """Betas whose square roots are evenly spaced (latent diffusion's "linear")."""
    for value, name in ((linear_start, "linear_start"), (linear_end, "linear_end")):
        number(value, name, above=0)
    timesteps = whole(timesteps, "timesteps")
    roots = np.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=np.float64)
    return _schedule(roots**2)


def space_timesteps(timesteps: int, steps: int | str | Sequence[int]) -> np.ndarray:
    """Increasing indices to keep out of 0 .. T-1, by the names of improved diffusion.

    Args:
      timesteps: T.
      steps: N, N indices evenly spaced from 0 to T-1 and rounded. Counts, "10,15,20" or a list:
        T is cut into as many sections, the first T mod n of them longer by one, and each count is
        spaced evenly from the first to the last index of its section ("25" is one section; a count
        of 1 keeps the first index). "ddimN": every s-th index from 0, with the smallest integer s
        that keeps exactly N.
    Raises:
      ValueError: N is outside [1, T], no stride gives N, a section is shorter than its count, or
        the text is none of these.
    """
    if isinstance(steps, str):
        name = steps.removeprefix("ddim")
        try:
            counts = [int(part) for part in name.split(",")]
        except ValueError:
            raise ValueError(
                f'steps must be a number, counts as in "10,15,20", or "ddimN", got {steps!r}.'
            ) from None
        return _stride(timesteps, steps, counts) if name != steps else _sections(timesteps, counts)
    if isinstance(steps, Sequence | np.ndarray):
        return _sections(timesteps, [whole(count, "a section's steps") for count in steps])
    if whole(steps, "steps") > timesteps:
        raise ValueError(f"steps must lie between 1 and {timesteps}, got {steps!r}.")
    return np.round(np.linspace(0, timesteps - 1, steps)).astype(int)


def _stride(timesteps: int, steps: str, counts: list[int]) -> np.ndarray:
    if len(counts) != 1 or not 1 <= counts[0] <= timesteps:
        raise ValueError(f"steps must lie between 1 and {timesteps}, got {steps!r}.")
    for stride in range(1, timesteps + 1):
        if len(range(0, timesteps, stride)) == counts[0]:
            return np.arange(0, timesteps, stride)
    raise ValueError(f"no integer stride over {timesteps} timesteps keeps exactly {counts[0]}.")


def _sections(timesteps: int, counts: list[int]) -> np.ndarray:
    if not counts:
        raise ValueError("steps must name at least one section, got none.")
    sizes = np.full(len(counts), timesteps // len(counts))
    sizes[: timesteps % len(counts)] += 1
    kept = []
    for start, size, count in zip(np.cumsum(sizes) - sizes, sizes, counts, strict=True):
        if not 1 <= count <= size:
            raise ValueError(
                f"a section of {size} of the {timesteps} timesteps cannot keep {count} of them."
            )
        stride = (size - 1) / max(count - 1, 1)
        # The stride is summed up, not multiplied, which rounds halves as the published code does.
        offsets = np.cumsum(np.r_[0.0, np.full(count - 1, stride)])
        kept.append(start + np.round(offsets).astype(int))
    return np.concatenate(kept)


def respace(schedule: Schedule, keep: Sequence[int] | np.ndarray) -> Schedule:
    """Schedule on the kept indices with the same alphas_cumprod; the model sees the old indices."""
    keep = np.asarray(keep)
    if keep.ndim != 1 or not len(keep) or np.any(np.diff(keep) <= 0):
        raise ValueError("the kept timesteps must be at least one and strictly increasing.")
    if keep.dtype.kind not in "iu" or keep[0] < 0 or keep[-1] >= len(schedule):
        raise ValueError(
            f"the kept timesteps must be whole numbers from 0 to {len(schedule) - 1}, got "
            f"{keep[0]} to {keep[-1]}."
        )
    kept = schedule.alphas_cumprod[keep]
    return Schedule(1 - kept / np.append(1.0, kept[:-1]), schedule.timesteps[keep])


def _schedule(betas: np.ndarray) -> Schedule:
    return Schedule(betas, np.arange(len(betas)))
