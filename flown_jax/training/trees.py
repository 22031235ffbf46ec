"""Finished results on disk: a nested dict of arrays and plain values in one safetensors file.

Arrays are the file's tensors, named by their path; everything else stands as JSON in the
file's header, so that one checksum covers both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flown_jax.errors import UserError
from flown_jax.files import write_bytes, writing

SEPARATOR = "/"
_HEADER = "flown_jax"


def save_tree(path: str | Path, tree: Mapping[str, Any]) -> None:
    """Write a nested dict as one file, whole or not at all.

    Args:
      path: the file to write.
      tree: nested dict with string keys; leaves are arrays (NumPy or JAX, any shape and type),
        or anything that JSON holds: numbers, strings, booleans, None, lists of these.
    Raises:
      UserError: a key holds "/", a leaf cannot be stored, or the disk refuses.
    """
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {}
    _flatten(tree, (), arrays, plain)
    halves = [name for name, array in arrays.items() if array.dtype == jnp.bfloat16]
    for name in halves:  # safetensors' NumPy reader does not know the type
        arrays[name] = arrays[name].view(np.uint16)
    data = save(arrays, metadata={_HEADER: json.dumps({"plain": plain, "bfloat16": halves})})
    with writing(Path(path)):
        write_bytes(Path(path), data)


def load_tree(path: str | Path) -> dict[str, Any]:
    """The nested dict of a file that `save_tree` wrote; arrays are NumPy's.

    Raises:
      UserError: the file is absent, damaged or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for name in header["bfloat16"]:
                leaves[name] = leaves[name].view(jnp.bfloat16)
            leaves |= header["plain"]
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        raise UserError(f"{path} is damaged or not a result of flown_jax") from error
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split(SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"{path} is damaged or not a result of flown_jax")
        node[last] = leaf
    return tree


def _flatten(
    tree: Mapping[str, Any],
    prefix: tuple[str, ...],
    arrays: dict[str, np.ndarray],
    plain: dict[str, Any],
) -> None:
    for key, value in tree.items():
        if not isinstance(key, str) or SEPARATOR in key or not key:
            where = SEPARATOR.join(prefix) or "the top"
            raise UserError(f"keys of a stored dict are strings without '/': {key!r} at {where}")
        names = (*prefix, key)
        name = SEPARATOR.join(names)
        if isinstance(value, Mapping) and value:
            _flatten(value, names, arrays, plain)
        elif isinstance(value, np.ndarray | np.generic | jax.Array):
            arrays[name] = _host(name, value)
        else:
            plain[name] = _plain(name, value)


def _host(name: str, value: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise UserError(f"cannot store {name}: a random key (store its seed)")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype != jnp.bfloat16:
        raise UserError(f"cannot store {name}: arrays of type {array.dtype} have no file format")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    # safetensors writes the memory of other layouts as it lies; the reshape undoes what
    # ascontiguousarray does to a scalar.
    return np.ascontiguousarray(array).reshape(array.shape)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {}
    try:
        json.dumps(value)
    except TypeError as error:
        raise UserError(f"cannot store {name}: {type(value).__name__} is not JSON") from error
    return value
