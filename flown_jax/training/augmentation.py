"""Random changes of training images, as pure functions of a key.

They work on preprocessed images, on the device; what lies outside an image is black, whose value
after the normalisation is the `fill`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from flown_jax.errors import UserError

Augment = Callable[[Array, Array], Array]
_PADDING = 4
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)


def augmentation(name: str, fill: tuple[float, ...] = (0.0,)) -> Augment:
    """The function (key, images (B, H, W, C)) -> images of the same shape.

    Args:
      name: `none`; `crop_flip`, a shift by up to 4 pixels and a mirror image half the time, of
        CIFAR's recipes; `resized_crop_flip`, a random part of the image enlarged to its size, and
        the mirror image.
      fill: value of black of each channel.
    Raises:
      UserError: an unknown name.
    """
    if name not in _KINDS:
        raise UserError(f"augmentation is {name!r}; it is one of {', '.join(_KINDS)}.")
    return _KINDS[name](fill)


def _none(fill: tuple[float, ...]) -> Augment:
    del fill
    return lambda key, images: images


def _crop_flip(fill: tuple[float, ...]) -> Augment:
    def augment(key: Array, images: Array) -> Array:
        """PyTorch's RandomCrop(side, padding=4) and RandomHorizontalFlip."""
        key_place, key_flip = jax.random.split(key)
        black = jnp.asarray(fill, images.dtype)
        count, height, width, channels = images.shape
        edge = 2 * _PADDING
        padded = jnp.broadcast_to(black, (count, height + edge, width + edge, channels))
        inner = slice(_PADDING, -_PADDING)
        padded = padded.at[:, inner, inner].set(images)
        places = jax.random.randint(key_place, (count, 2), 0, edge + 1)

        def cut(image: Array, place: Array) -> Array:
            return jax.lax.dynamic_slice(image, (place[0], place[1], 0), images.shape[1:])

        return _mirrored(key_flip, jax.vmap(cut)(padded, places))

    return augment


def _resized_crop_flip(fill: tuple[float, ...]) -> Augment:
    del fill

    def augment(key: Array, images: Array) -> Array:
        """PyTorch's RandomResizedCrop(side) and RandomHorizontalFlip.

        A part that would be larger than the image is cut to it, where PyTorch draws again; and the
        pixels around the part count in the interpolation at its rim.
        """
        key_area, key_ratio, key_place, key_flip = jax.random.split(key, 4)
        count, height, width = images.shape[:3]
        area = jax.random.uniform(key_area, (count,), jnp.float32, *_AREA) * height * width
        low, high = (math.log(ratio) for ratio in _RATIO)
        ratio = jnp.exp(jax.random.uniform(key_ratio, (count,), jnp.float32, low, high))
        size = jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)], axis=1)
        whole = jnp.asarray([height, width], jnp.float32)
        size = jnp.clip(size, 1.0, whole)
        corner = jax.random.uniform(key_place, (count, 2)) * (whole - size)

        def enlarged(image: Array, size: Array, corner: Array) -> Array:
            scale = whole / size
            return jax.image.scale_and_translate(
                image, image.shape, (0, 1), scale, -corner * scale, "linear"
            )

        return _mirrored(key_flip, jax.vmap(enlarged)(images, size, corner))

    return augment


def _mirrored(key: Array, images: Array) -> Array:
    flip = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


_KINDS: dict[str, Callable[[tuple[float, ...]], Augment]] = {
    "none": _none,
    "crop_flip": _crop_flip,
    "resized_crop_flip": _resized_crop_flip,
}
