"""Arrays in a .npz: plain, Keras's, without splits, KMNIST's own."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.data.catalogue import facts
from flown_jax.data.formats import npz
from flown_jax.errors import UserError
from tests.data import raw_files

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
        ({"train_labels": np.asarray([{}] * 20, object)}, "truncated or damaged"),
    ],
)
def test_foreign_arrays_are_refused(tmp_path, change, sentence):
    values = {"train_images": IMAGES, "train_labels": LABELS, **change}
    np.savez(tmp_path / "mnist.npz", **values)
    with pytest.raises(UserError, match=f"mnist.npz .*({sentence})"):
        npz.find("mnist", tmp_path).splits["train"]()


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
