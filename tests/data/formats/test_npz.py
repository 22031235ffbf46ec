"""Arrays in a .npz: plain, Keras's, without splits, KMNIST's own."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from flown_jax.data import formats
from flown_jax.data.catalogue import facts
from flown_jax.data.formats import npz
from flown_jax.errors import UserError
from tests.data import raw_files

pytestmark = pytest.mark.fast

IMAGES, LABELS = raw_files.pictures(20, 28, 1), raw_files.cyclic(20)


@pytest.mark.parametrize(
    "keys",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_arrays_come_back(tmp_path, keys):
    values = (IMAGES[..., 0], LABELS, IMAGES[:10, ..., 0], LABELS[:10])
    np.savez_compressed(tmp_path / "mnist.npz", **dict(zip(keys, values, strict=True)))
    raw = npz.find("mnist", tmp_path)
    np.testing.assert_array_equal(raw.splits["train"]().images, IMAGES)
    np.testing.assert_array_equal(raw.splits["test"]().labels, LABELS[:10])


def test_arrays_without_splits_are_cut_at_four_fifths(tmp_path):
    np.savez(tmp_path / "kmnist.npz", images=IMAGES[..., 0], labels=LABELS)
    raw = npz.find("kmnist", tmp_path)
    np.testing.assert_array_equal(raw.splits["train"]().images, IMAGES[:16])
    np.testing.assert_array_equal(raw.splits["test"]().images, IMAGES[16:])
    assert raw.notes == (
        "kmnist.npz has no splits: the first 16 images are train, the last 4 test",
    )


def test_kmnist_files_come_back(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / f"kmnist-{split}-imgs.npz", IMAGES[..., 0])
        np.savez(tmp_path / f"kmnist-{split}-labels.npz", LABELS)
    part = npz.find("kmnist", tmp_path).splits["train"]()
    np.testing.assert_array_equal(part.images, IMAGES)
    np.testing.assert_array_equal(part.labels, LABELS)
    assert npz.find("mnist", tmp_path) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_images": IMAGES.astype(float)}, "images of float64"),
        ({"train_images": IMAGES[0]}, r"\(28, 28, 1\)|20 labels"),
        ({"train_labels": LABELS[:5]}, "20 images and 5 labels"),
        ({"train_labels": LABELS.astype(float)}, "labels of float64"),
        ({"train_labels": LABELS > 3}, "labels of bool"),
        ({"train_labels": np.eye(20, dtype=int)}, "20 images and 400 labels"),
        ({"train_labels": np.full(20, -1).astype(np.uint32)}, "label 4294967295 of image 0"),
        ({"train_images": IMAGES.transpose(0, 3, 1, 2)}, ""),
        ({"train_images": IMAGES.astype(np.int16)}, "images of int16"),
        ({"train_images": (IMAGES > 127).astype(np.uint8)}, "no value above 1; grey levels from"),
        ({"train_labels": np.asarray([{}] * 20, object)}, "truncated or damaged"),
    ],
)
def test_foreign_arrays_are_refused(tmp_path, change, sentence):
    values = {"train_images": IMAGES, "train_labels": LABELS, **change}
    np.savez(tmp_path / "mnist.npz", **values)
    if not sentence:  # the sides of a set are checked later
        assert npz.find("mnist", tmp_path).splits["train"]().images.shape == (20, 1, 28, 28)
        return
    with pytest.raises(UserError, match=f"mnist.npz.*({sentence})"):
        npz.find("mnist", tmp_path).splits["train"]()


def _crafted(path, header: bytes, data: bytes = b"abc", **options) -> None:
    """A .npz whose array `labels` has that header."""
    head = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("labels.npy", head + data)


@pytest.mark.parametrize("shape", ["(10**13,)", "(10000000000000,)", "(-1,)", "(-3, -1)", "(2,)"])
def test_headers_of_other_sizes_than_the_bytes_are_refused(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n"
    _crafted(tmp_path / "mnist.npz", header.encode())
    with pytest.raises(UserError, match=r"mnist\.npz is truncated or damaged"):
        npz.member(tmp_path / "mnist.npz", "labels")


def test_arrays_that_unpack_to_far_more_than_images_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_UNPACKED", 10**6)
    np.savez_compressed(tmp_path / "mnist.npz", labels=np.zeros(4 * 10**6, np.uint8))
    with pytest.raises(UserError, match="labels of .*mnist.npz unpacks from"):
        npz.member(tmp_path / "mnist.npz", "labels")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (np.array("cat"), r"must be texts \(classes,\), not <U3 \(\)"),
        (np.zeros(10**6, "U0"), "must be texts"),
        (np.array([0.5]), "must be texts"),
        (np.array(["cat", "dog", "cat"]), "has 'cat' twice"),
    ],
)
def test_class_names_that_are_none_are_refused(tmp_path, names, sentence):
    np.savez(tmp_path / "x.npz", class_names=names)
    with pytest.raises(UserError, match=sentence):
        npz.class_names(tmp_path / "x.npz")


def test_class_names_of_bytes_are_texts(tmp_path):
    np.savez(tmp_path / "x.npz", class_names=np.array([b"cat", b"dog"]))
    assert npz.class_names(tmp_path / "x.npz") == ("cat", "dog")


def test_other_class_names_are_refused(tmp_path):
    names = list(facts("cifar10").class_names)
    names[2] = "monkey"
    values = {"train_images": IMAGES, "train_labels": LABELS}
    np.savez(tmp_path / "cifar10.npz", class_names=names, **values)
    with pytest.raises(UserError, match="calls class 2 'monkey'; in cifar10 it is 'bird'"):
        npz.find("cifar10", tmp_path)
    np.savez(tmp_path / "cifar10.npz", class_names=names[:9], **values)
    with pytest.raises(UserError, match="has 9 classes; cifar10 has 10"):
        npz.find("cifar10", tmp_path)


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, train_images=IMAGES, train_labels=LABELS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"mnist\.npz is truncated or damaged"):
        npz.find("mnist", tmp_path)


def test_a_lack_of_memory_is_not_told_as_a_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "mnist.npz"
    np.savez(path, labels=np.zeros(3))

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(np, "load", full)
    with pytest.raises(MemoryError):
        npz.member(path, "labels")
