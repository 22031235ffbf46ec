"""Files that are either whole or absent, and errors of the disk told in a sentence."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
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
        raise UserError(_SENTENCES[code].format(path=target)) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, what: str) -> Any:
    """The value of a JSON file.

    Raises:
      UserError: the file is absent or damaged; `what` begins the sentence.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{what} is damaged: cannot read {path}") from error


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
