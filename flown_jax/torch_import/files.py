"""Files of weights: PyTorch's checkpoints and safetensors, read and written without PyTorch."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.files import write_bytes, writing
from flown_jax.torch_import import state_pickle
from flown_jax.torch_import.state_pickle import STORAGES, Tensor

# The number 0x1950a86a20f9469cfc6c as a pickle: how torch.save began before torch 1.6.
_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
_ZIP = b"PK\x03\x04"
# The keys under which training scripts keep the state dict beside other things.
_WRAPPERS = ("state_dict", "model")
# PyTorch lets storages begin at multiples of this, so that it can map them into memory.
_ALIGNMENT = 64


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Names to arrays of a file's state dict, in the file's order.

    Args:
      path: a file of `torch.save` since torch 1.6, of any name, that holds a dict of tensors or
        one under the key "state_dict" or "model"; or a safetensors file.
    Returns:
      Arrays of their own, with the stored types; bfloat16 is that of `ml_dtypes`.
    Raises:
      UserError: there is no such file, it is damaged, of another format, or holds anything that
        only code could rebuild; nothing of the file is run.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, where a file of weights is wanted")
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if start.startswith(_ZIP):
        return _read_zip(path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith(_LEGACY):
        raise UserError(
            f"{path} has PyTorch's format from before torch 1.6; load it with torch and save its "
            "state dict again"
        )
    if start.startswith(b"\x80"):
        raise UserError(
            f"{path} is a plain pickle, which runs code when it is loaded; save a state dict with "
            "torch.save or safetensors instead"
        )
    raise UserError(f"{path} is neither a PyTorch checkpoint nor a safetensors file")


def write_state_dict(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write names and arrays as `torch.save` writes a state dict; torch.load reads it.

    Args:
      path: the file; it appears whole or not at all.
      state: names to arrays of floats, whole numbers or booleans.
    Raises:
      UserError: an entry has a type that PyTorch has no storage for, or the disk refuses.
    """
    path = Path(path)
    kinds = {dtype: kind for kind, dtype in STORAGES.items()}
    tensors, arrays = [], []
    for name, value in state.items():
        array = np.asarray(value)
        if array.dtype.newbyteorder("=") not in kinds:
            raise UserError(f"{path}: entry {name!r} has the type {array.dtype}, unknown to torch")
        array = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
        tensors.append((name, kinds[array.dtype], array.shape))
        arrays.append(array)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", state_pickle.dumps(tensors))
        _add(archive, "byteorder", b"little")
        for k, array in enumerate(arrays):
            _add(archive, f"data/{k}", _little_endian(array).tobytes())
        _add(archive, "version", b"3\n")
    with writing(path):
        write_bytes(path, buffer.getvalue())


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            return _Checkpoint(path, archive).state_dict()
    except UserError:
        raise
    # NotImplementedError, RuntimeError: a compression or encryption that zipfile does not know.
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is truncated or damaged: {_reason(error)}") from error


class _Checkpoint:
    """A zip with FOLDER/data.pkl, FOLDER/data/KEY for each storage, and FOLDER/byteorder."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path, self._archive = path, archive
        members = archive.namelist()
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError(f"{path} is a zip file, but no PyTorch checkpoint: no data.pkl in it")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in members:
            raise UserError(f"{path} is a TorchScript program, not a state dict")
        if not any(archive.getinfo(name).CRC for name in members):
            for name in members:  # torch was told to write no checksums, so there are none to check
                del archive.getinfo(name).CRC
        self._big = self._folder + "byteorder" in members and self._member("byteorder") == b"big"
        self._storages: dict[tuple[str, str], np.ndarray] = {}

    def state_dict(self) -> dict[str, np.ndarray]:
        content = state_pickle.loads(self._member("data.pkl"), self._path)
        tensors = _state_in(content, self._path)
        return {name: self._array(name, tensor) for name, tensor in tensors.items()}

    def _array(self, name: str, tensor: Tensor) -> np.ndarray:
        try:
            storage, offset, size, stride = tensor.checked()
        except (ValueError, TypeError) as error:
            raise UserError(f"{self._path}: tensor {name!r} has an unknown form") from error
        numbers = self._storage(name, storage.key, storage.kind)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= len(numbers):
            raise UserError(
                f"{self._path} is damaged: tensor {name!r} needs {last + 1} numbers of a storage "
                f"that holds {len(numbers)}"
            )
        if 0 in size:
            return np.zeros(size, numbers.dtype)
        strides = tuple(step * numbers.itemsize for step in stride)
        view = np.lib.stride_tricks.as_strided(numbers[offset:], size, strides, writeable=False)
        try:
            return view.copy(order="C")
        except (MemoryError, ValueError) as error:
            raise UserError(f"{self._path}: tensor {name!r} of {size} is too large") from error

    def _storage(self, name: str, key: str, kind: str) -> np.ndarray:
        if (key, kind) not in self._storages:
            try:
                raw = self._member(f"data/{key}")
            except KeyError as error:
                raise UserError(
                    f"{self._path} is damaged: the storage {key!r} of tensor {name!r} is missing"
                ) from error
            self._storages[key, kind] = _numbers(raw, STORAGES[kind], self._big)
        return self._storages[key, kind]

    def _member(self, name: str) -> bytes:
        return self._archive.read(self._folder + name)


def _numbers(raw: bytes, dtype: np.dtype, big_endian: bool) -> np.ndarray:
    """The whole numbers of `dtype` in `raw`, in the machine's byte order."""
    size = dtype.itemsize
    code = f"{'>' if big_endian else '<'}u{size}"
    bits = np.frombuffer(raw, code, count=len(raw) // size).astype(f"u{size}")
    return bits != 0 if dtype == np.bool_ else bits.view(dtype)


def _little_endian(array: np.ndarray) -> np.ndarray:
    """The bits of an array as little-endian whole numbers, also where bfloat16 has no order."""
    size = array.dtype.itemsize
    return np.ascontiguousarray(array).view(f"u{size}").astype(f"<u{size}", copy=False)


def _state_in(content: Any, path: Path) -> Mapping[str, Tensor]:
    """The one dict of tensors in what a checkpoint holds."""
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no state dict but one {_kind(content)}")
    if _is_state(content):
        return content
    wrapped = [key for key in _WRAPPERS if _is_state(content.get(key))]
    if len(wrapped) > 1:
        raise UserError(f"{path} holds two state dicts, under the keys {' and '.join(wrapped)}")
    if wrapped:
        return content[wrapped[0]]
    if not content:
        raise UserError(f"{path} holds an empty dict, not a state dict")
    key, value = next(
        (k, v) for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))
    )
    raise UserError(
        f"{path} holds no state dict: its entry {key!r} is no tensor but of type {_kind(value)}"
    )


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _kind(value: Any) -> str:
    return {Tensor: "tensor", state_pickle.Storage: "storage"}.get(
        type(value), type(value).__name__
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no safetensors file, or a damaged one") from error


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Append a member whose data begin at a multiple of `_ALIGNMENT`, by padding its header."""
    info = zipfile.ZipInfo(f"archive/{name}")
    assert archive.fp is not None
    header = archive.fp.tell() + 30 + len(info.filename) + 4
    padding = -header % _ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    archive.writestr(info, data)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
