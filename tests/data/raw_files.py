"""Small raw files in the layouts in which the owners of image sets publish them."""

from __future__ import annotations

import bz2
import gzip
import io
import pathlib
import struct
import tarfile

import numpy as np
from PIL import Image


def pictures(count: int, side: int, channels: int, seed: int = 0) -> np.ndarray:
    """Random images uint8 (count, side, side, channels): every transposition changes them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def cyclic(count: int, classes: int = 10) -> np.ndarray:
    """Labels 0, 1, ..., each class equally often."""
    return (np.arange(count) % classes).astype(np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """An idx file of a uint8 array."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + array.tobytes()


def write_idx(folder: pathlib.Path, count: int = 20, packed: bool = True) -> dict:
    """The four files of an MNIST-like set; returns {split: (images, labels)}."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {}
    for seed, (split, prefix) in enumerate((("train", "train"), ("test", "t10k"))):
        images, labels = pictures(count, 28, 1, seed), cyclic(count)
        for name, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels)):
            data = idx_bytes(array)
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
        result[split] = (images, labels)
    return result


def cifar_planes(images: np.ndarray) -> np.ndarray:
    """(N, 3072): red, green and blue plane, each row by row."""
    return np.stack([np.concatenate([i[..., c].ravel() for c in range(3)]) for i in images])


def python2_pickle(array: np.ndarray, **lists: list[int]) -> bytes:
    """What Python 2 and its NumPy wrote for {"data": uint8 array, name: list of small ints}."""

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    data = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    data += number(0) + b"\x85" + text(b"b") + b"\x87R"
    data += b"(" + number(1) + number(len(array)) + number(array.shape[1]) + b"\x86" + kind
    data += b"\x89" + text(array.tobytes()) + b"tb"
    result = b"\x80\x02}(" + text(b"data") + data
    for name, values in lists.items():
        result += text(name.encode()) + b"](" + b"".join(map(number, values)) + b"e"
    return result + b"u."


def write_cifar10(folder: pathlib.Path, kind: str, per_batch: int = 10) -> dict:
    """Five training batches and a test batch, python or binary; returns {split: ...}."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    batches = []
    for seed, name in enumerate(names):
        images, labels = pictures(per_batch, 32, 3, seed), cyclic(per_batch)
        planes = cifar_planes(images)
        if kind == "python":
            (folder / name).write_bytes(python2_pickle(planes, labels=labels.tolist()))
        else:
            data = np.concatenate([labels[:, None], planes], axis=1)
            (folder / f"{name}.bin").write_bytes(data.tobytes())
        batches.append((images, labels))
    train = tuple(np.concatenate(parts) for parts in zip(*batches[:5], strict=True))
    return {"train": train, "test": batches[5]}


def write_cifar100(folder: pathlib.Path, kind: str) -> dict:
    """train and test with 100 images each; returns {split: (images, labels, coarse)}."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {}
    for seed, split in enumerate(("train", "test")):
        images, labels = pictures(100, 32, 3, seed), cyclic(100, 100)
        coarse = labels // 5
        planes = cifar_planes(images)
        if kind == "python":
            data = python2_pickle(
                planes, fine_labels=labels.tolist(), coarse_labels=coarse.tolist()
            )
            (folder / split).write_bytes(data)
        else:
            data = np.concatenate([coarse[:, None], labels[:, None], planes], axis=1)
            (folder / f"{split}.bin").write_bytes(data.tobytes())
        result[split] = (images, labels, coarse)
    return result


def write_stl10(folder: pathlib.Path, unlabelled: bool = True) -> dict:
    """The binary files of STL-10: planes column by column, labels from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {}
    for seed, split in enumerate(("train", "test")):
        images, labels = pictures(10, 96, 3, seed), cyclic(10)
        _write_columns(folder / f"{split}_X.bin", images)
        (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
        result[split] = (images, labels)
    if unlabelled:
        images = pictures(3, 96, 3, 9)
        _write_columns(folder / "unlabeled_X.bin", images)
        result["unlabelled"] = (images, np.full(3, -1))
    return result


def _write_columns(path: pathlib.Path, images: np.ndarray) -> None:
    columns = [i[:, x, c].tobytes() for i in images for c in range(3) for x in range(96)]
    path.write_bytes(b"".join(columns))


def write_svhn(folder: pathlib.Path, splits: tuple[str, ...] = ("train", "test")) -> dict:
    """MATLAB files with X (32, 32, 3, N) and y (N, 1), the digit 0 as 10."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    result = {}
    for seed, split in enumerate(splits):
        images, labels = pictures(20, 32, 3, seed), cyclic(20)
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        content = {"X": images.transpose(1, 2, 3, 0), "y": stored}
        savemat(folder / f"{split}_32x32.mat", content)
        result[split] = (images, labels)
    return result


def write_usps(folder: pathlib.Path, kind: str) -> dict:
    """USPS as libsvm's text, as zip.train or as HDF5; levels are multiples of 51."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {}
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        steps = rng.integers(0, 6, (20, 256))  # levels 0, .2, ..., 1
        values, labels = np.round(steps / 5 * 2 - 1, 6), cyclic(20)
        result[split] = ((steps * 51).astype(np.uint8).reshape(-1, 16, 16, 1), labels)
        if kind == "libsvm":
            lines = [
                f"{label + 1} " + " ".join(f"{i + 1}:{v:g}" for i, v in enumerate(row) if v != 0)
                for row, label in zip(values, labels, strict=True)
            ]
            name = "usps.bz2" if split == "train" else "usps.t.bz2"
            (folder / name).write_bytes(bz2.compress("\n".join([*lines, ""]).encode()))
        elif kind == "zip":
            lines = [
                f"{label}.0000 " + " ".join(f"{v:.3f}" for v in row) + " "
                for row, label in zip(values, labels, strict=True)
            ]
            data = gzip.compress("\n".join([*lines, ""]).encode())
            (folder / f"zip.{split}.gz").write_bytes(data)
        else:
            import h5py

            with h5py.File(folder / "usps.h5", "a") as file:
                group = file.create_group(split)
                group["data"] = (steps / 5).astype(np.float32)
                group["target"] = labels.astype(np.int64)
    return result


def flat(count: int, side: int) -> np.ndarray:
    """Images of one colour each, which JPEG keeps up to 2 grey levels."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (count, side, side, 3)).copy()


def jpeg(image: np.ndarray) -> bytes:
    """A JPEG file of uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def write_sheets(
    path: pathlib.Path, images: np.ndarray, labels: np.ndarray, split: np.ndarray, **extra
) -> None:
    """A .npz of JPEG sheets, 5 tiles a row and 2 rows a sheet."""
    tile = images.shape[1]
    sheets = [
        jpeg(part.reshape(2, 5, tile, tile, 3).transpose(0, 2, 1, 3, 4).reshape(2 * tile, -1, 3))
        for part in images.reshape(-1, 10, tile, tile, 3)
    ]
    offsets = np.cumsum([0, *map(len, sheets)])
    np.savez(
        path,
        **{
            "blob": np.frombuffer(b"".join(sheets), np.uint8),
            "offsets": offsets,
            "tile": tile,
            "cols": 5,
            "labels": labels.astype(np.uint8),
            "split": split.astype(np.uint8),
            **extra,
        },
    )


def pack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """A .tar.gz with a folder in it."""
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, arcname=folder.name)
