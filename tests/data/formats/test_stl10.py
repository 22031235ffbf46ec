"""STL-10's binary files: orientation, labels, splits without labels, archives."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.data.formats import stl10
from flown_jax.errors import UserError
from tests.data import raw_files


@pytest.mark.parametrize("place", [".", "stl10_binary"])
def test_files_come_back_upright(tmp_path, place):
    written = raw_files.write_stl10(tmp_path / place)
    raw = stl10.find("stl10", tmp_path)
    assert set(raw.splits) == {"train", "test", "unlabelled"}
    for split, (images, labels) in written.items():
        part = raw.splits[split]()
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)


def test_archive_comes_back(tmp_path):
    written = raw_files.write_stl10(tmp_path / "stl10_binary")
    folder = tmp_path / "new"
    folder.mkdir()
    raw_files.pack(folder / "stl10_binary.tar.gz", tmp_path / "stl10_binary")
    raw = stl10.find("stl10", folder)
    for split, (images, _) in written.items():
        np.testing.assert_array_equal(raw.splits[split]().images, images)


def test_unlabelled_images_may_be_missing(tmp_path):
    raw_files.write_stl10(tmp_path, unlabelled=False)
    assert set(stl10.find("stl10", tmp_path).splits) == {"train", "test"}
    assert stl10.find("cifar10", tmp_path) is None


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("train_X.bin", b"\0" * 27647, "27,647 bytes, which is no whole number"),
        ("train_y.bin", b"\1" * 9, "10 images; there are 9 labels"),
        ("train_y.bin", b"\0" * 10, r"label 0 of image 0 is outside 1\.\.10"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, data, sentence):
    raw_files.write_stl10(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=sentence):
        stl10.find("stl10", tmp_path).splits["train"]()


def test_missing_file_is_named(tmp_path):
    raw_files.write_stl10(tmp_path)
    (tmp_path / "test_y.bin").unlink()
    with pytest.raises(UserError, match=r"lacks test_y\.bin"):
        stl10.find("stl10", tmp_path)
