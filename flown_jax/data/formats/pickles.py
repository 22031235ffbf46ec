"""Pickles of arrays and plain values, read without running code.

A pickle can name any function to be called. This reader admits the names that arrays of numbers,
byte strings and dicts need, puts functions of its own behind them, and refuses every other.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.data.formats import damaged
from flown_jax.errors import UserError

_NUMBERS = re.compile(r"[<>|=]?([biuf]\d+|\?)")


def loads(data: bytes, path: Path) -> Any:
    """The value of a pickle of arrays of numbers, texts, lists and dicts.

    Texts of Python 2 are bytes. `path` is named in errors.

    Raises:
      UserError: the pickle names anything else, or is damaged.
    """
    try:
        return _resolved(_Plain(io.BytesIO(data), encoding="bytes").load())
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise damaged(path, error) from error


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (module, name) not in _ADMITTED:
            raise UserError(
                f"asks for {module}.{name}, which is not needed for arrays; such a pickle could "
                "run code and is not read."
            )
        return _ADMITTED[module, name]


class _Type:
    """A pickled number type; NumPy's own would take any state that the pickle gives it."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False):
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if not _NUMBERS.fullmatch(text):
            raise UserError(f"has an array of type {text!r}; only numbers are read.")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        if order == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """A pickled array, filled by its state."""

    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.value = _from_buffer(raw, kind, shape, "F" if fortran else "C")


def _resolved(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {_resolved(key): _resolved(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(entry) for entry in value)
    return value


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _from_buffer(buffer: Any, kind: _Type, shape: Any, order: str) -> np.ndarray:
    return np.frombuffer(buffer, kind.dtype).reshape(
        tuple(shape), order="F" if order == "F" else "C"
    )


def _scalar(kind: _Type, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes that protocol 2 of Python 3 wrote as text."""
    if encoding not in ("latin1", "latin-1"):
        raise UserError(f"has bytes in the encoding {encoding!r}, not latin1.")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): "an array",
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("builtins", "list"): list,
}
