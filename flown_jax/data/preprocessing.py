"""From stored images to a network's input: grey, crop, resize, normalise.

The first three steps stay on whole grey levels, as when Pillow does them before a tensor is made;
the resize is Pillow's bilinear one, for square images bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flown_jax.errors import UserError

_CHUNK = 4096  # images at a time; bounds the memory of the resize
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
        if self.channels not in (1, 3):
            raise UserError(f"preprocessing has {self.channels} channels; 1 or 3 are possible.")
        if self.size < 1 or (self.crop is not None and self.crop < 1):
            raise UserError(
                f"preprocessing has size {self.size} and crop {self.crop}; sides start at 1."
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise UserError(
                    f"preprocessing has {len(values)} values of {name} for {self.channels} "
                    "channels."
                )
        if min(self.std) <= 0:
            raise UserError(f"preprocessing has std {self.std}; it must be above 0.")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
          UserError: a field is missing, unknown or of another type.
        """
        known = {entry.name for entry in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"preprocessing has no field {unknown[0]!r}.")
        if missing := sorted(known - {"crop"} - set(values)):
            raise UserError(f"preprocessing lacks the field {missing[0]!r}.")
        try:
            return cls(
                size=int(values["size"]),
                channels=int(values["channels"]),
                mean=tuple(float(value) for value in values["mean"]),
                std=tuple(float(value) for value in values["std"]),
                crop=None if values.get("crop") is None else int(values["crop"]),
            )
        except TypeError as error:
            raise UserError(f"preprocessing has a field of a wrong type: {error}.") from error

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


def grey(images: np.ndarray) -> np.ndarray:
    """uint8 (..., 1): round(.299 R + .587 G + .114 B) of uint8 (..., 3); grey ones as they are."""
    if images.shape[-1] == 1:
        return images
    levels = images.astype(np.int32) @ np.asarray([299, 587, 114], np.int32)
    return ((levels + 500) // 1000).astype(np.uint8)[..., None]


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
    """uint8 (N, size, size, C) of uint8 (N, H, W, C), as Pillow's BILINEAR.

    Along rows first, then along columns, each rounded to grey levels; a triangle as wide as the
    shrinking asks for, so that no pixel is skipped.
    """
    height, width = images.shape[1:3]
    if width != size:
        images = _along(images, _weights(width, size), 2)
    if height != size:
        images = _along(images, _weights(height, size), 1)
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
