"""idx files: what was written comes back; damaged and foreign files are one sentence."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from flown_jax.data.formats import idx
from flown_jax.errors import UserError
from tests.data import raw_files


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", [".", "raw", "KMNIST/raw"])
def test_files_come_back(tmp_path, packed, place):
    written = raw_files.write_idx(tmp_path / place, packed=packed)
    raw = idx.find("kmnist", tmp_path)
    assert len(raw.files) == 4
    for split, (images, labels) in written.items():
        part = raw.splits[split]()
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)


def test_other_sets_and_empty_folders_have_no_idx_files(tmp_path):
    assert idx.find("mnist", tmp_path) is None
    raw_files.write_idx(tmp_path)
    assert idx.find("cifar10", tmp_path) is None
    # Another set's folder of torchvision's is not taken.
    raw_files.write_idx(tmp_path / "below" / "FashionMNIST" / "raw")
    assert idx.find("mnist", tmp_path / "below") is None


def test_missing_file_is_named(tmp_path):
    raw_files.write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="has train-images.*lacks t10k-labels-idx1-ubyte"):
        idx.find("mnist", tmp_path)


def _write(folder, name, data):
    raw_files.write_idx(folder, packed=False)
    (folder / name).write_bytes(data)
    return idx.find("mnist", folder).splits["train"]


GOOD = raw_files.idx_bytes(raw_files.pictures(20, 28, 1)[..., 0])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (GOOD[:-5], "header promises 15,680 bytes .* there are 15,675"),
        (GOOD + b"x", "there are 15,681"),
        (raw_files.idx_bytes(raw_files.cyclic(20)), "magic number 2049, not 2051"),
        (b"\x1f\x8b", "no idx file"),
        (raw_files.idx_bytes(np.zeros((20, 32, 32), np.uint8)), "32 x 32 pixels; 28 x 28"),
        (raw_files.idx_bytes(np.zeros((19, 28, 28), np.uint8)), "19 images .* 20 labels"),
        (struct.pack(">4i", 2051, -1, 28, 28), "is truncated or damaged"),
    ],
)
def test_damaged_images_are_refused(tmp_path, data, sentence):
    split = _write(tmp_path, "train-images-idx3-ubyte", data)
    with pytest.raises(UserError, match=f"train-images-idx3-ubyte .*{sentence}"):
        split()


def test_labels_out_of_range_are_refused(tmp_path):
    labels = raw_files.cyclic(20)
    labels[7] = 10
    split = _write(tmp_path, "train-labels-idx1-ubyte", raw_files.idx_bytes(labels))
    with pytest.raises(UserError, match=r"label 10 of image 7 is outside 0\.\.9"):
        split()


def test_truncated_packed_file_is_refused(tmp_path):
    raw_files.write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(GOOD)[:-200])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz is truncated or damaged"):
        idx.find("mnist", tmp_path).splits["train"]()
