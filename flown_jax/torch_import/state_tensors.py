"""Tensors of a checkpoint: views of blocks of numbers, turned into arrays of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
# A storage without an element type counts bytes; its class had two names in torch 1.11 to 2.x.
_UNTYPED = ("UntypedStorage", "_UntypedStorage")
# Types that came after the storages with a name; their tensors name them.
_DTYPES = {
    f"torch.{name}": np.dtype(getattr(ml_dtypes, name))
    for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
} | {f"torch.uint{bits}": np.dtype(f"u{bits // 8}") for bits in (16, 32, 64)}
# The names of the same types in safetensors.
SAFETENSORS: dict[str, np.dtype] = {
    **{f"F{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.dtype(np.bool_),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
# Views may repeat numbers; together they take no more than this, or 8 times what is stored.
_VIEWS = 1 << 28


class Storage(NamedTuple):
    """A block of numbers: the kind, such as a key of `STORAGES`, the member's key, how many."""

    kind: str
    key: str
    elements: Any


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements. Nothing of it is checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any
    flags: Any
    dtype: Any = None


def storage_type(storage: Storage) -> np.dtype | None:
    """The type of a storage's elements, bytes where it has none; None where it is unknown."""
    return np.dtype(np.uint8) if storage.kind in _UNTYPED else STORAGES.get(storage.kind)


def arrays(
    tensors: Mapping[str, Tensor], raw: Callable[[str], bytes], path: Path, big_endian: bool = False
) -> dict[str, np.ndarray]:
    """An array of its own for each tensor.

    Args:
      tensors: by name.
      raw: the bytes of the storage with a key; raises KeyError where there is none.
      path: for sentences.
      big_endian: the order of the bytes in storages.
    Raises:
      UserError: a tensor has a type or form that is unknown, or goes beyond its storage.
    """
    storages: dict[tuple[str, np.dtype], np.ndarray] = {}
    found: dict[str, np.ndarray] = {}
    taken = stored = 0
    for name, tensor in tensors.items():
        where = f"{path}: tensor {name!r}"
        storage, dtype, offset, size, stride = _checked(tensor, where)
        if (storage.key, dtype) not in storages:
            try:
                data = raw(storage.key)
            except KeyError as error:
                raise UserError(
                    f"{path} is damaged: the storage {storage.key!r} of tensor {name!r} is missing"
                ) from error
            storages[storage.key, dtype] = numbers(data, dtype, big_endian)
            stored += len(data)
        block = storages[storage.key, dtype]
        taken += math.prod(size) * dtype.itemsize
        if taken > max(_VIEWS, 8 * stored):
            raise UserError(f"{where} of shape {size} is larger than the file has numbers for")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= len(block):
            raise UserError(
                f"{path} is damaged: tensor {name!r} needs {last + 1} numbers of a storage that "
                f"holds {len(block)}"
            )
        try:
            found[name] = _view(block, offset, size, stride)
        except (ValueError, OverflowError, MemoryError) as error:
            raise UserError(f"{where} of shape {size} is too large") from error
    return found


def numbers(raw: bytes, dtype: np.dtype, big_endian: bool = False) -> np.ndarray:
    """The whole numbers of `dtype` in `raw`, in the machine's byte order."""
    size = dtype.itemsize
    code = f"{'>' if big_endian else '<'}u{size}"
    bits = np.frombuffer(raw, code, count=len(raw) // size).astype(f"u{size}")
    return bits != 0 if dtype == np.bool_ else bits.view(dtype)


def _checked(
    tensor: Tensor, where: str
) -> tuple[Storage, np.dtype, int, tuple[int, ...], tuple[int, ...]]:
    """Storage, type, offset, size, stride, all of them what PyTorch writes."""
    storage, offset, size, stride, flags, name = tensor
    if not isinstance(storage, Storage) or flags:
        raise UserError(f"{where} has an unknown form")
    dtype = storage_type(storage) if name is None else _DTYPES.get(name)
    if dtype is None:
        raise UserError(f"{where} has elements of an unknown type ({name or storage.kind})")
    lists = isinstance(size, tuple | list) and isinstance(stride, tuple | list)
    if not lists or len(size) != len(stride):
        raise UserError(f"{where} has an unknown form")
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (offset, *size, *stride)):
        raise UserError(f"{where} has a size, stride or offset that no tensor has")
    return storage, dtype, offset, tuple(size), tuple(stride)


def _view(
    block: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> np.ndarray:
    if 0 in size:
        return np.zeros(size, block.dtype)
    # The stride of an axis of one entry is never taken, and may be anything.
    strides = tuple(step * block.itemsize * (n > 1) for n, step in zip(size, stride, strict=True))
    bits = block.view(f"u{block.itemsize}")[offset:]  # NumPy does not stride over 8-bit floats
    view = np.lib.stride_tricks.as_strided(bits, size, strides, writeable=False)
    return view.copy(order="C").view(block.dtype)
