"""From stored images to a network's input: grey, crop, resize, normalise.

The first three steps stay on whole grey levels, as when Pillow does them before a tensor is made;
the resize is Pillow's bilinear one, bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flown_jax.errors import UserError

_CHUNK = 4096  # images at a time; bounds the memory of the resize
_LARGEST = 4096  # side of a network's input
_BITS = 22  # fixed-point digits of Pillow's weights


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images become a network's input.

    Attributes:
      size: side of the input, pixels.
      channels: 1 (grey) or 3; grey images are repeated for 3.
      mean, std: of each channel, on values in [0, 1]; one entry stands for all channels.
      crop: side of the centre square that is cut out before resizing; None: nothing is cut.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int | None = None

    def __post_init__(self) -> None:
        sides = (self.size,) if self.crop is None else (self.size, self.crop)
        if not all(_whole(side) and 1 <= side <= _LARGEST for side in sides):
            raise UserError(
                f"preprocessing has size {self.size!r} and crop {self.crop!r}; sides are whole "
                f"numbers from 1 to {_LARGEST:,}."
            )
        if not _whole(self.channels) or self.channels not in (1, 3):
            raise UserError(f"preprocessing has {self.channels!r} channels; 1 or 3 are possible.")
        check_statistics(self.mean, self.std)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise UserError(
                    f"preprocessing has {len(values)} values of {name} for {self.channels} "
                    "channels."
                )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
          UserError: a field is missing, unknown or of another type.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"preprocessing is {values!r}; a mapping of its fields is wanted.")
        known = {entry.name for entry in dataclasses.fields(cls)}
        if unknown := sorted(map(str, set(values) - known)):
            raise UserError(f"preprocessing has no field {unknown[0]!r}.")
        if missing := sorted(known - {"crop"} - set(values)):
            raise UserError(f"preprocessing lacks the field {missing[0]!r}.")
        statistics: dict[str, Any] = {}
        for name in ("mean", "std"):
            if not isinstance(values[name], list | tuple):
                raise UserError(
                    f"preprocessing has a field of a wrong type: {name} is {values[name]!r}, and "
                    "a list of numbers is wanted."
                )
            statistics[name] = tuple(values[name])
        made = cls(**{"crop": None, **values, **statistics})
        mean, std = (tuple(float(value) for value in part) for part in (made.mean, made.std))
        return dataclasses.replace(made, mean=mean, std=std)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """A network's input.

        Args:
          images: uint8 (N, H, W, C), C = 1 or 3.
        Returns:
          float32 (N, size, size, channels).
        Raises:
          UserError: other images, or a crop larger than they are.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise UserError(
                f"preprocessing takes uint8 images (N, H, W, 1 or 3), not {images.dtype} "
                f"{images.shape}."
            )
        if 0 in images.shape[1:]:
            raise UserError(f"preprocessing takes images with pixels, not {images.shape}.")
        result = np.empty((len(images), self.size, self.size, self.channels), np.float32)
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            result[part] = self._levels(images[part])
        result /= 255
        result -= np.asarray(self.mean, np.float32)
        result /= np.asarray(self.std, np.float32)
        return result

    def _levels(self, images: np.ndarray) -> np.ndarray:
        """Grey levels 0..255 of (n, size, size, channels or 1)."""
        if self.channels == 1:
            images = grey(images)
        if self.crop is not None:
            images = centre_crop(images, self.crop)
        return resize(images, self.size)


def check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises UserError unless these can be mean and deviation of images in [0, 1]."""
    for name, values, lowest, highest, range_ in (
        ("mean", mean, 0.0, 1.0, "from 0 to 1"),
        ("std", std, 1e-6, 10.0, "above 0 (at least 1e-06) and at most 10"),
    ):
        for value in values:
            real = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not real or not lowest <= value <= highest:  # NaN is in no range
                raise UserError(
                    f"preprocessing has {name} {tuple(values)}; it must be {range_}, as of images "
                    "in [0, 1], not of bytes."
                )


def _whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def grey(images: np.ndarray) -> np.ndarray:
    """uint8 (..., 1): .299 R + .587 G + .114 B of uint8 (..., 3), as Pillow's mode L has it.

    The three shares are whole numbers of 2**-16. Grey images stay as they are.
    """
    if images.shape[-1] == 1:
        return images
    levels = images.astype(np.int32) @ np.asarray([19595, 38470, 7471], np.int32)
    return ((levels + 2**15) >> 16).astype(np.uint8)[..., None]


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Images (..., channels) of images (..., 1 or 3): colour becomes grey, grey is repeated.

    Args:
      images: uint8, or floats.
      channels: 1 or 3.
    """
    if images.shape[-1] == channels:
        return images
    if channels > 1:
        return np.repeat(images, channels, axis=-1)
    if images.dtype == np.uint8:
        return grey(images)
    return images @ np.asarray([[0.299], [0.587], [0.114]], images.dtype)


def centre_crop(images: np.ndarray, side: int) -> np.ndarray:
    """The square of that side in the middle of (N, H, W, C).

    Raises:
      UserError: the images are smaller.
    """
    height, width = images.shape[1:3]
    if side > min(height, width):
        raise UserError(
            f"a centre crop of {side} pixels does not fit images of {height} x {width}."
        )
    top, left = round((height - side) / 2), round((width - side) / 2)
    return images[:, top : top + side, left : left + side]


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (N, size, size, C) of uint8 (N, H, W, C), as Pillow's BILINEAR since Pillow 13.

    Along one axis, then along the other, each rounded to grey levels; a triangle as wide as the
    shrinking asks for, so that no pixel is skipped. Rows come first, unless the height shrinks by
    more than twice as many pixels as the width, as in tall pictures; earlier Pillows took rows
    first always, or nearly so.
    """
    height, width = images.shape[1:3]
    columns_first = height - size > max(2 * (width - size), 0)
    for axis in (1, 2) if columns_first else (2, 1):
        if (before := images.shape[axis]) != size:
            images = _along(images, _weights(before, size), axis)
    return images


def _along(images: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    # Sums of whole numbers below 2**53 are exact in float64, whose product is the fast one.
    moved = np.moveaxis(images, axis, -1).astype(np.float64)
    levels = np.floor((moved @ weights + 2 ** (_BITS - 1)) * 2.0**-_BITS)
    return np.moveaxis(np.clip(levels, 0, 255).astype(np.uint8), -1, axis)


@functools.cache
def _weights(before: int, after: int) -> np.ndarray:
    """(before, after) whole numbers: weight of each old place for each new one, times 2**22."""
    scale = before / after
    radius = max(scale, 1.0)
    weights = np.zeros((before, after))
    for place in range(after):
        centre = (place + 0.5) * scale
        first = max(int(centre - radius + 0.5), 0)
        last = min(int(centre + radius + 0.5), before)
        where = np.arange(first, last)
        triangle = np.maximum(1 - np.abs(where - centre + 0.5) / radius, 0)
        weights[first:last, place] = np.floor(triangle / math.fsum(triangle) * 2**_BITS + 0.5)
    return weights
