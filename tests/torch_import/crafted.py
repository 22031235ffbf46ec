"""Checkpoints made byte by byte: what a pickle says of its tensors may be anything."""

from __future__ import annotations

import zipfile
from pathlib import Path

STORAGE = b"ctorch\nFloatStorage\n"


def text(value: str) -> bytes:
    """The pickle of a text."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(n: int) -> bytes:
    """The pickle of a whole number of any size and sign."""
    value = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(value)]) + value


def several(values) -> bytes:
    """The pickle of a tuple of whole numbers."""
    return b"(" + b"".join(number(n) for n in values) + b"t"


def tensor(size, stride, offset=0, count=4, kind=STORAGE, tail=b"") -> bytes:
    """The pickle of a tensor of storage "0"; `tail` follows the last argument."""
    storage = b"(" + text("storage") + kind + text("0") + text("cpu") + number(count) + b"tQ"
    rest = number(offset) + several(size) + several(stride)
    rest += b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + tail + b"tR"


def state(**tensors: bytes) -> bytes:
    """The pickle of a dict of these."""
    parts = [text(name) + value for name, value in tensors.items()]
    return b"\x80\x02}(" + b"".join(parts) + b"u."


def checkpoint(path: Path, pickled: bytes, storage: bytes = bytes(16), **options) -> Path:
    """A file of torch's form with this pickle and one storage."""
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", storage)
        file.writestr("archive/version", "3\n")
    return path
