"""Files that are either whole or absent, and errors of the disk told in a sentence."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flown_jax.errors import UserError

_SENTENCES = {
    errno.EACCES: "no permission to use {path}",
    errno.EPERM: "no permission to use {path}",
    errno.EROFS: "cannot write {path}: the file system is read-only",
    errno.ENOSPC: "cannot write {path}: no space left on the device",
    errno.EDQUOT: "cannot write {path}: the disk quota is used up",
    errno.ENOTDIR: "cannot use {path}: a part of it is not a folder",
    errno.ENOENT: "cannot use {path}: it, or the folder that it is to lie in, is not there",
    errno.EEXIST: "cannot use {path} as a folder: it is a file",
    errno.EISDIR: "cannot use {path} as a file: it is a folder",
    errno.ENAMETOOLONG: "cannot use {path:.80}...: its name is too long",
    errno.ELOOP: "cannot use {path}: its symbolic links go round in a circle",
}
# tensorstore wraps the system's error into a ValueError; only its text says which one.
_WRAPPED = {
    "No space left": errno.ENOSPC,
    "Permission denied": errno.EACCES,
    "Read-only file system": errno.EROFS,
    "quota exceeded": errno.EDQUOT,
}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context in which a full or forbidden disk raises UserError naming the path."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        if code is None:
            code = next((c for text, c in _WRAPPED.items() if text in str(error)), None)
        if code not in _SENTENCES:
            raise
        target = getattr(error, "filename", None) or path
        raise UserError(_SENTENCES[code].format(path=str(target))) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, whole."""
    # Unique to this call, so that writers beside each other do not take it from each other, and no
    # longer than a name may be that the path itself has not.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


@contextlib.contextmanager
def alone_in(folder: Path, *, reading: bool = False) -> Iterator[None]:
    """A context in which files of a folder that belong together are written or read together.

    One writer is in at a time and no reader beside it. A file system without locks has none.

    Args:
      folder: exists. reading: other readers may be in, too.
    """
    descriptor = os.open(folder, os.O_RDONLY)  # the lock is the folder's and leaves nothing there
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH if reading else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, what: str) -> Any:
    """The value of a JSON file.

    Raises:
      UserError: the file is absent or damaged, or holds NaN, which is no JSON; `what` begins the
        sentence.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{what} is damaged: cannot read {path}") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names of a folder as durable as its files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
