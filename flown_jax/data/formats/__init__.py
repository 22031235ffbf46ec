"""Raw files of image sets, one format a file.

A format has `find(name, folder)`: the files of the image set `name` in a folder as `Raw`, or None
where the folder has none of them. Nothing is decoded before a split is asked for, so that one
split at a time is in memory. What a format cannot read is a `UserError` naming the file.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flown_jax.errors import UserError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
# What the unpackers raise for a file that ends early or is no archive.
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, gzip.BadGzipFile)
# Images are packed to a tenth at best; what unpacks to far more is made to fill the memory.
_UNPACKED, _RATIO = 2**28, 200
# What operating systems and their tools leave in folders, beside names that begin with a dot.
_STRAY = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
_STRAY |= {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


@dataclass(frozen=True)
class RawSplit:
    """Decoded images of one split in the order of the files.

    Attributes:
      images: uint8 (N, H, W, C).
      labels: (N,) integers from 0; -1 where there is no label.
      coarse: (N,) coarse labels, where the format has them.
    """

    images: np.ndarray
    labels: np.ndarray
    coarse: np.ndarray | None = None


@dataclass(frozen=True)
class Raw:
    """Raw files found in a folder.

    Attributes:
      what: the format in words.
      files: those that are read.
      splits: for each split, the function that decodes it.
      class_names: where they are not the official ones.
      notes: what a reader of the report must know.
    """

    what: str
    files: tuple[Path, ...]
    splits: Mapping[str, Callable[[], RawSplit]]
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def locate(folder: Path, names: str | Iterable[str], subfolders: Iterable[str] = ()) -> Path | None:
    """The first file of these names in the folder, or in a subfolder of it; None if absent.

    Names are tried as they are and with .gz and .bz2 behind.
    """
    names = [names] if isinstance(names, str) else list(names)
    for place in (folder, *(folder / sub for sub in subfolders)):
        for name in names:
            for suffix in ("", *_OPENERS):
                if (path := place / f"{name}{suffix}").is_file():
                    return path
    return None


def locate_all(
    folder: Path,
    wanted: Mapping[str, str | Iterable[str]],
    subfolders: Iterable[str] = (),
    *,
    optional: Collection[str] = (),
) -> dict[str, Path]:
    """Path of each wanted file; empty if the folder has none of them.

    Raises:
      UserError: some of them are there and one that is not optional is missing.
    """
    found = {key: locate(folder, names, subfolders) for key, names in wanted.items()}
    present = {key: path for key, path in found.items() if path is not None}
    missing = [key for key in wanted if key not in present and key not in optional]
    if present and missing:
        names = wanted[missing[0]]
        name = names if isinstance(names, str) else next(iter(names))
        one = next(iter(present.values()))
        raise UserError(f"{one.parent} has {one.name} but lacks {name}.")
    return present


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked if its name ends in .gz or .bz2.

    Raises:
      UserError: it cannot be read or unpacked.
    """
    try:
        if path.suffix not in _OPENERS:
            return path.read_bytes()
        packed, data = path.stat().st_size, bytearray()
        with _OPENERS[path.suffix](path, "rb") as file:
            while chunk := file.read(2**24):
                data += chunk
                check_unpacked(len(data), packed, path)
        return bytes(data)
    except (*_DAMAGE, OSError) as error:
        raise damaged(path, error) from error


def check_unpacked(size: int, packed: int, where: object) -> None:
    """Raises UserError if `packed` bytes unpack to so many that they are no images."""
    if size > max(_UNPACKED, _RATIO * packed):
        raise UserError(
            f"{where} unpacks from {packed:,} to {size:,} bytes or more, which no images do."
        )


def is_stray(path: Path) -> bool:
    """Whether a name is one that operating systems, editors and downloads leave in folders."""
    name = path.name.lower()
    return name.startswith((".", "~$")) or name.endswith("~") or name in _STRAY


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Bytes of the wanted files of an archive (.tar, .tar.gz), by their last name.

    Raises:
      UserError: the archive is damaged or lacks one of them.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name in names and member.isfile():
                    check_unpacked(member.size, path.stat().st_size, f"{name} of {path}")
                    stream = archive.extractfile(member)
                    found[name] = stream.read() if stream else b""
                    if len(found[name]) < member.size:
                        raise EOFError(f"{name} ends early")
                if len(found) == len(names):
                    break
    except (*_DAMAGE, OSError) as error:
        raise damaged(path, error) from error
    for name in names:
        if name not in found:
            raise UserError(f"{path} has no file {name}; it may be truncated.")
    return found


def damaged(path: Path, error: BaseException) -> UserError:
    """The sentence about a file that cannot be read.

    Raises:
      MemoryError, ImportError: `error` is one of these, which is no fault of the file's.
    """
    if isinstance(error, MemoryError | ImportError):
        raise error
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path} is truncated or damaged: {reason}.")


def records(data: bytes, size: int, where: str) -> np.ndarray:
    """Bytes as records of a fixed size, uint8 (N, size).

    Raises:
      UserError: the length is no multiple of the size; `where` begins the sentence.
    """
    if not data or len(data) % size:
        raise UserError(
            f"{where} has {len(data):,} bytes, which is no whole number of records of {size:,} "
            "bytes; it is truncated or another format."
        )
    return np.frombuffer(data, np.uint8).reshape(-1, size)


def shift_labels(labels: np.ndarray, lowest: int, highest: int, where: str) -> np.ndarray:
    """Labels of lowest..highest moved to begin at 0, int32 (N,).

    Args:
      labels: whole numbers of any type, (N,), (N, 1) or (1, N).
    Raises:
      UserError: other shapes, what is no whole number, a label outside; `where` begins the
        sentence.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iuf" or labels.ndim < 1 or labels.size != max(labels.shape):
        raise UserError(
            f"{where} has labels of {labels.dtype} {labels.shape}; whole numbers, one an image, "
            "are expected."
        )
    labels = labels.reshape(-1)
    outside = ~((labels >= lowest) & (labels <= highest) & (labels == np.floor(labels)))
    if outside.any():
        index = int(np.argmax(outside))
        label = labels[index]
        if whole := label == np.floor(label) and np.isfinite(label):
            label = int(label)
        fault = f"outside {lowest}..{highest}" if whole else "no whole number"
        raise UserError(f"{where}: label {label} of image {index} is {fault}.")
    return (labels.astype(np.int64) - lowest).astype(np.int32)
