"""Files of weights: PyTorch's checkpoints and safetensors, read and written without PyTorch."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError
from flown_jax.files import write_bytes, writing
from flown_jax.torch_import import state_pickle
from flown_jax.torch_import.state_content import state_in
from flown_jax.torch_import.state_tensors import (
    SAFETENSORS,
    STORAGES,
    arrays,
    numbers,
    storage_type,
)

# The number 0x1950a86a20f9469cfc6c, as a pickle of any protocol: how torch.save began before 1.6.
_PICKLED, _LEGACY = b"\x80", bytes.fromhex("8a0a6cfc9c46f9206aa85019")
_ZIP = b"PK\x03\x04"
# Files that are mistaken for weights, by their first bytes.
_OTHERS = {
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"BZh": "is compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed with xz; unpack it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"Rar!": "is a RAR archive; unpack it first",
    b"\x89HDF": "is an HDF5 file; only PyTorch's checkpoints and safetensors are read",
    b"\x93NUMPY": "is a NumPy array; only PyTorch's checkpoints and safetensors are read",
    b"version https://": "is a pointer of Git LFS in place of the file; fetch it with git lfs pull",
    b"<": "is a web page in place of the file; download it again",
}
# A checkpoint and its pickle may unpack to so many bytes, or to 20 times the file's length.
_UNPACKED, _PICKLE = 1 << 28, 1 << 22
# PyTorch lets storages begin at multiples of this, so that it can map them into memory.
_ALIGNMENT = 64


def read_state_dict(path: str | Path, key: str | None = None) -> dict[str, np.ndarray]:
    """Names to arrays of a file's state dict, in the file's order; safetensors are sorted by name.

    Args:
      path: a file of `torch.save`, of any name, that holds a dict of tensors, or one among other
        things (see `state_content.state_in`); or a safetensors file.
      key: of a checkpoint's entry, where several are dicts of tensors.
    Returns:
      Arrays of their own, with the stored types; bfloat16 and 8-bit floats are those of
      `ml_dtypes`.
    Raises:
      UserError: there is no such file, it is damaged, of another format, holds several state
        dicts, or something in place of one that only code could rebuild; nothing of it is run.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder, where a file of weights is wanted")
        with open(path, "rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if start.startswith(_ZIP):
        return _read_zip(path, key)
    if start.startswith(_PICKLED) and _LEGACY in start[:32]:
        return _read_legacy(path, key)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    for magic, sentence in _OTHERS.items():
        if start.startswith(magic):
            raise UserError(f"{path} {sentence}")
    if start[257:262] == b"ustar":
        raise UserError(
            f"{path} is a tar archive, perhaps of PyTorch's format from before torch 0.1.10; "
            "unpack it, or load it with torch and save its state dict again"
        )
    if start.startswith(_PICKLED):
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


def _read_zip(path: Path, key: str | None) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            return _Checkpoint(path, archive).state_dict(key)
    except UserError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError),
        # A compression or encryption that zipfile does not know; fields beyond the file.
        *(NotImplementedError, RuntimeError, LookupError, OverflowError, MemoryError),
    ) as error:
        raise UserError(f"{path} is truncated or damaged: {_reason(error)}") from error


class _Checkpoint:
    """A zip with FOLDER/data.pkl, FOLDER/data/KEY for each storage, and FOLDER/byteorder.

    Archivers that pack one again compress it, name the folder anew or drop it, and add files.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path, self._archive = path, archive
        self._members = {info.filename.replace("\\", "/"): info for info in archive.infolist()}
        pickles = [name for name in self._members if f"/{name}".endswith("/data.pkl")]
        pickles = [name for name in pickles if not name.startswith("__MACOSX/")]
        if len(pickles) != 1:
            raise UserError(
                f"{path} is a zip file, but no PyTorch checkpoint: "
                f"{'more than one' if pickles else 'no'} data.pkl in it; unpack an archive of files"
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in self._members:
            raise UserError(f"{path} is a TorchScript program, not a state dict")
        unpacked = sum(info.file_size for info in self._members.values())
        pickled = self._members[pickles[0]].file_size
        length = 20 * path.stat().st_size
        if unpacked > max(_UNPACKED, length) or pickled > max(_PICKLE, length):
            raise UserError(f"{path} is no checkpoint: it would unpack to {unpacked:,} bytes")
        if not any(info.CRC for info in self._members.values()):
            for info in self._members.values():  # torch was told to write none, so none is checked
                del info.CRC
        order = b"little"
        if f"{self._folder}byteorder" in self._members:
            order = self._member("byteorder").strip()
        if order not in (b"little", b"big"):
            raise UserError(f"{path} is damaged: it knows no byte order {order[:20]!r}")
        self._big = order == b"big"

    def state_dict(self, key: str | None) -> dict[str, np.ndarray]:
        content = state_pickle.loads(self._member("data.pkl"), self._path)
        tensors = state_in(content, self._path, key)
        return arrays(tensors, lambda key: self._member(f"data/{key}"), self._path, self._big)

    def _member(self, name: str) -> bytes:
        return self._archive.read(self._members[self._folder + name])


def _read_legacy(path: Path, key: str | None) -> dict[str, np.ndarray]:
    """The format before torch 1.6: five pickles, then each storage's count and little-endian bytes.

    The pickles are the magic number, a version, the machine, the content, the storages' keys.
    """
    stream = io.BytesIO(path.read_bytes())
    _, version, _ = (state_pickle.loads(stream, path) for _ in range(3))
    if version != 1001:
        raise UserError(f"{path} has a version of PyTorch's old format that is unknown")
    seen: dict[str, state_pickle.Storage] = {}
    content = state_pickle.loads(stream, path, seen)
    keys = state_pickle.loads(stream, path)
    storages: dict[str, bytes] = {}
    for name in keys if isinstance(keys, list) else ():
        dtype = storage_type(seen[name]) if isinstance(name, str) and name in seen else None
        if dtype is None:
            raise UserError(f"{path} is damaged, or has a storage {name!r} of an unknown type")
        count = int.from_bytes(stream.read(8), "little", signed=True)
        if not 0 <= count * dtype.itemsize <= len(stream.getbuffer()) - stream.tell():
            raise UserError(f"{path} is truncated or damaged: the storage {name!r} is not whole")
        storages[name] = stream.read(count * dtype.itemsize)
    return arrays(state_in(content, path, key), storages.__getitem__, path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors

    try:
        entries = safetensors.deserialize(path.read_bytes())
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no safetensors file, or a damaged one") from error
    found = {}
    for name, entry in sorted(entries, key=lambda entry: entry[0]):  # the file has no order
        dtype = SAFETENSORS.get(entry["dtype"])
        if dtype is None:
            raise UserError(
                f"{path}: tensor {name!r} has elements of an unknown type ({entry['dtype']})"
            )
        found[name] = numbers(bytes(entry["data"]), dtype).reshape(entry["shape"])
    return found


def _little_endian(array: np.ndarray) -> np.ndarray:
    """The bits of an array as little-endian whole numbers, also where bfloat16 has no order."""
    size = array.dtype.itemsize
    return np.ascontiguousarray(array).view(f"u{size}").astype(f"<u{size}", copy=False)


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
