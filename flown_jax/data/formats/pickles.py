"""Pickles of arrays and plain values, read without running code.

A pickle can name any function to be called. This reader admits the names that arrays of numbers,
byte strings and dicts need, puts functions of its own behind them, and refuses every other. A
pickle can also be small and stand for what fills memory or time: sizes are held against the bytes
that are there, what is shared stays shared, and keys are plain.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flown_jax.data.formats import damaged
from flown_jax.errors import UserError

_NUMBERS = re.compile(r"[<>|=]?([biuf]\d+|\?)")


def loads(data: bytes, path: Path) -> Any:
    """The value of a pickle of arrays of numbers, texts, lists and dicts.

    Texts of Python 2 are bytes. What the pickle holds in several places is one object in the
    value, too. `path` is named in errors.

    Raises:
      UserError: the pickle names anything else, holds itself, or is damaged.
    """
    try:
        return _resolved(_Plain(data).load(), {})
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise damaged(path, error) from error


def integers(value: Any, path: Path) -> np.ndarray:
    """Whole numbers (n,) of a pickle's list or array.

    Raises:
      UserError: anything else.
    """
    # numpy would follow lists in lists, as often as they are named.
    if isinstance(value, list | tuple) and all(
        type(entry) is int or isinstance(entry, np.integer) for entry in value
    ):
        value = np.asarray(value, np.int64 if not value else None)
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
        raise UserError(f"{path} has a {type(value).__name__} where a list of whole numbers is.")
    return value


class _Plain(pickle._Unpickler):
    """Python's own unpickler in Python: its memory grows with the bytes that it has read.

    The one in C makes room for any number that a pickle names, and fills dicts itself.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]

    def __init__(self, data: bytes):
        self._size = len(data)
        super().__init__(io.BytesIO(data), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (module, name) not in _ADMITTED:
            raise UserError(
                f"asks for {module}.{name}, which is not needed for arrays; such a pickle could "
                "run code and is not read."
            )
        return _ADMITTED[module, name]

    def _item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([(key, value)])

    def _items(self) -> None:
        items = self.pop_mark()
        self._put(zip(items[::2], items[1::2], strict=True))

    def _put(self, items: Iterable[tuple[Any, Any]]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise UserError("fills what is no dict.")
        self.stack[-1].update(_dict(items))

    def _bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > self._size:
            raise EOFError("it ends early")
        self.append(self.read(size))

    def _refused(self) -> None:
        raise UserError("holds a set, which is not needed for arrays.")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.SETITEM[0]: _item,
        pickle.SETITEMS[0]: _items,
        pickle.BYTEARRAY8[0]: _bytearray,
        pickle.ADDITEMS[0]: _refused,
        pickle.FROZENSET[0]: _refused,
    }


class _Call:
    """What stands behind a name: it can be called, and keeps no state that a pickle gives it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UserError("gives a state to a function, which is not needed for arrays.")


class _Type:
    """A pickled number type; NumPy's own would take any state that the pickle gives it."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False):
        text = _text(code)
        if not _NUMBERS.fullmatch(text):
            raise UserError(f"has an array of type {text!r}; only numbers are read.")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if _text(state[1]) == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """A pickled array, filled by its state."""

    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.value = _from_buffer(raw, kind, shape, "F" if fortran else "C")


def _resolved(value: Any, known: dict[int, Any]) -> Any:
    """The value with arrays in their places; `known` has what was met before, by identity."""
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, dict | list | tuple):
        if isinstance(value, _Call | _Type):
            raise UserError("holds a function or a type; only values are read.")
        return value
    if id(value) in known:
        if known[id(value)] is None:
            raise UserError("holds itself.")
        return known[id(value)]
    known[id(value)] = None
    made: Any
    if isinstance(value, dict):
        made = {key: _resolved(entry, known) for key, entry in value.items()}
    else:
        made = type(value)(_resolved(entry, known) for entry in value)
    known[id(value)] = made
    return made


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _from_buffer(buffer: Any, kind: _Type, shape: Any, order: str) -> np.ndarray:
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError("the shape of an array is no tuple of sizes")
    return np.frombuffer(buffer, kind.dtype).reshape(
        tuple(shape), order="F" if order == "F" else "C"
    )


def _scalar(kind: _Type, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes that protocol 2 of Python 3 wrote as text."""
    if _text(encoding) not in ("latin1", "latin-1"):
        raise UserError(f"has bytes in the encoding {encoding!r}, not latin1.")
    return text.encode("latin1")


def _text(value: Any) -> str:
    # Anything else may be lists in lists, whose text has no end.
    if not isinstance(value, str | bytes):
        raise ValueError(f"a text is a {type(value).__name__}")
    return value.decode("ascii") if isinstance(value, bytes) else value


def _dict(items: Iterable[Any] = ()) -> dict:
    made = {}
    for key, value in items:
        # A tuple of tuples would be followed for its hash, as often as it is named.
        if not isinstance(key, str | bytes | int | float | np.number | None):
            raise UserError(f"has a {type(key).__name__} as a key; only texts and numbers are.")
        made[key] = value
    return made


def _default_dict(factory: Any, items: Iterable[Any] = ()) -> dict:
    """Without its factory, which would be called for keys that are not there."""
    return _dict(items)


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Call(_reconstruct),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_from_buffer),
    ("numpy", "ndarray"): "an array",
    ("numpy", "dtype"): _Call(_Type),
    ("_codecs", "encode"): _Call(_encode),
    ("collections", "OrderedDict"): _Call(_dict),
    ("collections", "defaultdict"): _Call(_default_dict),
    ("builtins", "list"): "a list",
}
