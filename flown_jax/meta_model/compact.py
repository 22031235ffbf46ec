"""A meta-model's arrays in few bytes, to be shared: what generating needs, in 32, 16 or 8 bits.

With 16 bits matrices are stored as half-precision numbers. With 8 bits the entries of each column
are whole numbers from -127 to 127 times the column's scale. Vectors, which are few bytes, stay as
they are, and what is read is float32 again. The encoder of weights is left out: generating decodes
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flown_jax.errors import UserError

BITS = (8, 16, 32)
_INT8 = {"int8", "scale"}
_SMALL = 1024  # entries; of smaller matrices nothing is gained


def pack(arrays: Mapping[str, Any], bits: int) -> dict[str, Any]:
    """The arrays of a meta-model as they are stored.

    Args:
      arrays: as `build.describe` gives them. bits: of an entry of a matrix.
    Raises:
      UserError: another number of bits.
    """
    if bits not in BITS or isinstance(bits, bool):
        raise UserError(f"bits is {bits!r:.40}; it must be one of {', '.join(map(str, BITS))}.")
    packed = jax.tree.map(lambda array: _fewer(np.asarray(array), bits), dict(arrays))
    return {**packed, "codec": _without_encoder(packed["codec"])}


def unpack(stored: Any) -> Any:
    """The arrays, float32 where they were packed; others as they are."""
    if isinstance(stored, Mapping):
        if set(stored) == _INT8:
            return stored["int8"].astype(np.float32) * stored["scale"]
        return {name: unpack(part) for name, part in stored.items()}
    if isinstance(stored, np.ndarray) and stored.dtype == np.float16:
        return stored.astype(np.float32)
    return stored


def _without_encoder(variables: Any) -> Any:
    """A codec's variables without those of its encoder, which may be a part of a part."""
    if not isinstance(variables, Mapping):
        return variables
    return {n: _without_encoder(part) for n, part in variables.items() if n != "encoder"}


def _fewer(array: np.ndarray, bits: int) -> Any:
    if array.dtype != np.float32 or array.ndim < 2 or array.size < _SMALL:
        return array
    if bits == 8:
        largest = np.abs(array).max(tuple(range(array.ndim - 1)), keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        return {"int8": np.rint(array / scale).astype(np.int8), "scale": scale}
    fits = np.abs(array).max() <= np.finfo(np.float16).max
    return array.astype(np.float16) if bits == 16 and fits else array
