"""Random changes of training images, as pure functions of a key.

They work on the device. `crop_flip` and `resized_crop_flip` take preprocessed images: what lies
outside an image is black, whose value after the normalisation is the `fill`. `random_crop_flip`
and `degraded` take images in [0, 1] and need no fill; what they give is smaller than what they
take, so they suit networks that pool over positions, which then see images of full size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flown_jax.errors import UserError

Augment = Callable[[Array, Array], Array]
_PADDING = 4
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_WINDOW = (5, 6)  # of the side, rounded down: 40 of 48, 70 of 84
# Shares of the side that low-resolution images have: 14, 18, 22, 27 and 32 of 40.
_SHARES = (0.35, 0.45, 0.55, 0.675, 0.8)
_BRIGHTNESS = (0.7, 1.3)
_SATURATION = (0.0, 1.4)
_CONTRAST = (0.6, 1.4)


def augmentation(name: str, fill: tuple[float, ...] = (0.0,)) -> Augment:
    """The function (key, images (B, H, W, C)) -> images, of the same shape or (B, H', W', C).

    Args:
      name: `none`; `crop_flip`, a shift by up to 4 pixels and a mirror image half the time, of
        CIFAR's recipes; `resized_crop_flip`, a random part of the image enlarged to its size, and
        the mirror image; `random_crop_flip`, a random window of 5/6 of the sides and the mirror
        image; `degraded`, that with a low resolution half the time and with other brightness,
        saturation and contrast.
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


def _random_crop_flip(fill: tuple[float, ...]) -> Augment:
    del fill

    def augment(key: Array, images: Array) -> Array:
        """A window of 5/6 of the sides, wholly inside of the image, and the mirror image."""
        key_place, key_flip = jax.random.split(key)
        count, *sides, channels = images.shape
        window = [side * _WINDOW[0] // _WINDOW[1] for side in sides]
        room = jnp.asarray([side - part + 1 for side, part in zip(sides, window, strict=True)])
        places = jax.random.randint(key_place, (count, 2), 0, room)

        def cut(image: Array, place: Array) -> Array:
            return jax.lax.dynamic_slice(image, (place[0], place[1], 0), (*window, channels))

        return _mirrored(key_flip, jax.vmap(cut)(images, places))

    return augment


def _degraded(fill: tuple[float, ...]) -> Augment:
    cropped = _random_crop_flip(fill)

    def augment(key: Array, images: Array) -> Array:
        """What `random_crop_flip` gives, then a low resolution half the time, then other colours.

        A backbone that has seen sharp images only has poor features of small or blurred ones.
        Values may leave [0, 1].
        """
        key_crop, key_which, key_bright, key_grey, key_contrast = jax.random.split(key, 5)
        images = cropped(key_crop, images)
        count, height, width = images.shape[:3]
        # Half of the places stand for the identity, the other half for the shares.
        which = jax.random.randint(key_which, (count,), 0, 2 * len(_SHARES))
        which = jnp.minimum(which, len(_SHARES))
        rows, columns = (jnp.asarray(_blurs(side))[which] for side in (height, width))
        images = jnp.einsum("bij,bjkc->bikc", rows, images, precision="highest")
        images = jnp.einsum("bkl,bilc->bikc", columns, images, precision="highest")

        def factors(key: Array, bounds: tuple[float, float]) -> Array:
            return jax.random.uniform(key, (count, 1, 1, 1), images.dtype, *bounds)

        images = images * factors(key_bright, _BRIGHTNESS)
        grey = images.mean(axis=-1, keepdims=True)
        images = grey + factors(key_grey, _SATURATION) * (images - grey)
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        return mean + factors(key_contrast, _CONTRAST) * (images - mean)

    return augment


def _blurs(side: int) -> np.ndarray:
    """Matrices (shares + 1, side, side) that shrink an axis to a share and back; the last: none.

    Bilinear resizing is linear and acts on each axis alone, so that a matrix is all of it. They
    are small constants of the compiled function, worked out when it is traced.
    """
    sizes = [max(1, round(share * side)) for share in _SHARES]
    blurs = [_resizing(size, side) @ _resizing(side, size) for size in sizes]
    return np.stack([*blurs, np.eye(side)]).astype(np.float32)


def _resizing(old: int, new: int) -> np.ndarray:
    """The matrix (new, old) of jax.image.resize's bilinear method, antialiased.

    Without JAX: ten resizings compile for seconds, and these are a handful of numbers.
    """
    scale = old / new
    centre = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(old) - centre) / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


def _mirrored(key: Array, images: Array) -> Array:
    flip = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


_KINDS: dict[str, Callable[[tuple[float, ...]], Augment]] = {
    "none": _none,
    "crop_flip": _crop_flip,
    "resized_crop_flip": _resized_crop_flip,
    "random_crop_flip": _random_crop_flip,
    "degraded": _degraded,
}
