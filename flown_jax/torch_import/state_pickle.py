"""The pickle inside a PyTorch checkpoint, read and written without PyTorch and without its powers.

A pickle names functions that its reader calls. This reader knows the few names that a dict of
tensors needs and refuses every other one, so that no code of the file's choosing ever runs.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flown_jax.errors import UserError

# PyTorch names a storage by its element type: torch.FloatStorage, torch.cuda tensors included.
STORAGES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
# A storage without an element type counts bytes; its class had four names in torch 1.11 to 2.x.
_UNTYPED = ("UntypedStorage", "_UntypedStorage")


class Storage(NamedTuple):
    """A block of numbers: the kind (a key of `STORAGES`), the member's key, how many."""

    kind: str
    key: str
    elements: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements. Checked by `checked`."""

    storage: Any
    offset: Any
    size: Any
    stride: Any
    flags: Any

    def checked(self) -> tuple[Storage, int, tuple[int, ...], tuple[int, ...]]:
        """Storage, offset, size, stride.

        Raises:
          ValueError: one of them is not what PyTorch writes.
        """
        storage, offset, size, stride, flags = self
        numbers = (offset, *size, *stride) if isinstance(size, tuple | list) else (None,)
        plain = all(type(n) is int and n >= 0 for n in numbers) and len(size) == len(stride)
        known = isinstance(storage, Storage) and storage.kind in STORAGES
        if not (plain and known) or flags:
            raise ValueError("a tensor of an unknown form")
        return storage, offset, tuple(size), tuple(stride)


def loads(data: bytes, path: Path) -> Any:
    """What a checkpoint's data.pkl holds: plain values and dicts, with `Tensor` for tensors.

    Args:
      data: the pickle.
      path: the file it comes from, for sentences.
    Raises:
      UserError: the pickle is damaged or names anything beyond a dict of tensors.
    """
    try:
        return _Reader(data, path).load()
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged pickle makes the unpickler raise
        raise UserError(f"{path} is damaged: its data.pkl cannot be read") from error


def dumps(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """A data.pkl of an OrderedDict of contiguous tensors; the k-th one has the storage "k".

    Args:
      tensors: name, kind of storage (a key of `STORAGES`) and shape of each.
    """
    parts = [b"\x80\x02", _ORDERED_DICT, b"("]
    for k, (name, kind, shape) in enumerate(tensors):
        count = int(np.prod(shape, dtype=np.int64))
        strides = tuple(int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape)))
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n("]
        parts += [b"(", _text("storage"), f"ctorch\n{kind}\n".encode(), _text(str(k))]
        parts += [_text("cpu"), _number(count), b"tQ"]  # t: tuple, Q: fetch by this identity
        parts += [_number(0), _numbers(shape), _numbers(strides), b"\x89", _ORDERED_DICT]
        parts += [b"tR"]  # call with this tuple; \x89 above is requires_grad=False
    return b"".join([*parts, b"u."])


class _Reader(pickle.Unpickler):
    """An unpickler of dicts of tensors.

    A pickle can set attributes on what it is given (opcode BUILD), so it is given nothing that
    outlives the reading: strings, bound methods, and the immutable class OrderedDict.
    """

    def __init__(self, data: bytes, path: Path):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._parameter
        if module in ("torch", "torch.storage") and name in STORAGES:
            return name
        if module in ("torch", "torch.storage") and name in _UNTYPED:
            return "ByteStorage"
        raise UserError(
            f"{self._path} is no plain state dict: it names {module}.{name}, and loading it would "
            "run code that the file chooses; save model.state_dict() with torch.save instead"
        )

    def persistent_load(self, pid: Any) -> Storage:
        word, kind, key, _, count = pid
        if word != "storage" or not isinstance(kind, str) or not isinstance(key, str):
            raise pickle.UnpicklingError("unknown persistent identity")
        return Storage(kind, key, count)

    def _tensor(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        flags: Any = None,
    ) -> Tensor:
        del requires_grad, hooks  # of no use to a reader of numbers
        return Tensor(storage, offset, size, stride, flags)

    def _parameter(self, data: Any, requires_grad: Any = True, hooks: Any = None) -> Any:
        del requires_grad, hooks
        return data


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _number(n: int) -> bytes:
    if n < 1 << 8:
        return b"K" + n.to_bytes(1, "little")
    if n < 1 << 16:
        return b"M" + n.to_bytes(2, "little")
    if n < 1 << 31:
        return b"J" + n.to_bytes(4, "little")
    return b"\x8a\x08" + n.to_bytes(8, "little")


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(_number(n) for n in values) + b"t"
