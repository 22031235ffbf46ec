"""Random numbers of a batch that several devices share, the same whatever their number.

On a device that has a part of a batch, a key of `part_key` draws what belongs to this part: of an
array whose first axis is the batch's, the rows that a draw for the whole batch has there. A loss
needs to know nothing of it, and comes out on eight devices as on one, but for rounding.

What is drawn for anything else than the examples (an array without axes, or whose first axis is no
multiple of the part's size) is the same on all devices; so is what is drawn by a key that was
folded with the number of an example in its part. A loss that draws so stays on one device.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import random as extended

_TYPES = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}


def part_key(key: Array, index: Array, parts: int, size: int) -> Array:
    """A key that draws the rows of one part of a batch.

    Args:
      key: of the whole batch's draws, () of `jax.random.key`.
      index: int32 (), of this part. parts: how many there are. size: examples of each.
    """
    data = jax.random.key_data(key)
    place = jnp.asarray(index, data.dtype)[None]
    implementation = _part(str(jax.random.key_impl(key)), data.shape[0], parts, size)
    return jax.random.wrap_key_data(jnp.concatenate([data, place]), impl=implementation)


@functools.cache
def _part(base: str, width: int, parts: int, size: int) -> Any:
    """JAX's generator `base` with the index of a part behind its key's data."""

    def whole(data: Array) -> Array:
        return jax.random.wrap_key_data(data[..., :-1], impl=base)

    def seed(value: Array) -> Array:
        raise TypeError("a key of a part comes from part_key")

    def split(data: Array, shape: Any) -> Array:
        made = jax.random.key_data(jax.random.split(whole(data), shape))
        place = jnp.broadcast_to(data[-1:], (*made.shape[:-1], 1))
        return jnp.concatenate([made, place], axis=-1)

    def fold_in(data: Array, value: Any) -> Array:
        made = jax.random.key_data(jax.random.fold_in(whole(data), value))
        return jnp.concatenate([made, data[-1:]])

    def bits(data: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
        kind = _TYPES[bit_width]
        if not math.prod(shape) or not shape or shape[0] % size:
            return jax.random.bits(whole(data), shape, kind)
        rows = shape[0]
        drawn = jax.random.bits(whole(data), (parts * rows, *shape[1:]), kind)
        return jax.lax.dynamic_slice_in_dim(drawn, data[-1].astype(jnp.int32) * rows, rows)

    return extended.define_prng_impl(
        key_shape=(width + 1,),
        seed=seed,
        split=split,
        random_bits=bits,
        fold_in=fold_in,
        name=f"{base}, a part of {size} in {parts}",
        tag="part",
    )
