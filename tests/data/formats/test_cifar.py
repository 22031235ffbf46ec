"""CIFAR's files: both kinds, as folders and archives; what is damaged is one sentence."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from flown_jax.data.formats import cifar
from flown_jax.errors import UserError
from tests.data import raw_files

PLACES = {
    ("cifar10", "python"): ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ("cifar10", "binary"): ("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    ("cifar100", "python"): ("cifar-100-python", "cifar-100-python.tar.gz"),
    ("cifar100", "binary"): ("cifar-100-binary", "cifar-100-binary.tar.gz"),
}


def _write(name, folder, kind):
    writer = raw_files.write_cifar10 if name == "cifar10" else raw_files.write_cifar100
    return writer(folder, kind)


@pytest.mark.parametrize(("name", "kind"), PLACES)
@pytest.mark.parametrize("place", ["itself", "below", "archive"])
def test_files_come_back(tmp_path, name, kind, place):
    subfolder, archive = PLACES[name, kind]
    folder = tmp_path / "files"
    folder.mkdir()
    if place == "archive":
        written = _write(name, tmp_path / subfolder, kind)
        raw_files.pack(folder / archive, tmp_path / subfolder)
    else:
        written = _write(name, folder if place == "itself" else folder / subfolder, kind)
    raw = cifar.find(name, folder)
    for split, (images, labels, *coarse) in written.items():
        part = raw.splits[split]()
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)
        if coarse:
            np.testing.assert_array_equal(part.coarse, coarse[0])
        else:
            assert part.coarse is None


def test_the_other_set_is_not_taken(tmp_path):
    raw_files.write_cifar10(tmp_path, "python")
    assert cifar.find("cifar100", tmp_path) is None
    assert cifar.find("mnist", tmp_path) is None


def test_missing_batch_is_named(tmp_path):
    raw_files.write_cifar10(tmp_path, "python")
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(UserError, match="has data_batch_1 but lacks data_batch_4"):
        cifar.find("cifar10", tmp_path)


def test_truncated_files_are_refused(tmp_path):
    raw_files.write_cifar10(tmp_path, "binary")
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_2\.bin has 30,729 bytes"):
        cifar.find("cifar10", tmp_path).splits["train"]()


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_truncated_archive_is_refused(tmp_path, keep):
    raw_files.write_cifar10(tmp_path / "cifar-10-batches-bin", "binary")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    raw_files.pack(archive, tmp_path / "cifar-10-batches-bin")
    data = archive.read_bytes()
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / archive.name).write_bytes(data[: int(len(data) * keep)])
    raw = cifar.find("cifar10", folder)
    with pytest.raises(UserError, match=r"binary\.tar\.gz (is truncated|has no file)"):
        raw.splits["train"]()
        raw.splits["test"]()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1, 2], "holds a list, not a dict"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "no field 'labels'"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}, r"\(images, 3072\)"),
        ({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}, "data of float32"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "2 images and 1 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 12]}, r"label 12 .* 0\.\.9"),
    ],
)
def test_foreign_batches_are_refused(tmp_path, value, sentence):
    raw_files.write_cifar10(tmp_path, "python")
    (tmp_path / "test_batch").write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match=sentence):
        cifar.find("cifar10", tmp_path).splits["test"]()
