"""SVHN's MATLAB files: the last axis counts images, 10 is the digit 0."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from flown_jax.data.formats import svhn
from flown_jax.errors import UserError
from tests.data import raw_files


def test_files_come_back_and_ten_is_zero(tmp_path):
    written = raw_files.write_svhn(tmp_path, ("train", "test", "extra"))
    raw = svhn.find("svhn_cropped", tmp_path)
    assert set(raw.splits) == set(written)
    for split, (images, labels) in written.items():
        part = raw.splits[split]()
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)
        assert 0 in part.labels


def test_extra_may_be_missing_and_test_may_not(tmp_path):
    raw_files.write_svhn(tmp_path)
    assert set(svhn.find("svhn_cropped", tmp_path).splits) == {"train", "test"}
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"lacks test_32x32\.mat"):
        svhn.find("svhn_cropped", tmp_path)


X = np.zeros((32, 32, 3, 4), np.uint8)
Y = np.asarray([[1], [2], [3], [10]], np.uint8)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"X": X}, "no arrays X and y"),
        ({"X": X.transpose(3, 0, 1, 2), "y": Y}, r"\(32, 32, 3, N\) is expected"),
        ({"X": X.astype(float), "y": Y}, "images of float64"),
        ({"X": X, "y": Y[:3]}, "4 images and 3 labels"),
        ({"X": X, "y": Y - 1}, r"label 0 of image 0 is outside 1\.\.10"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, sentence):
    raw_files.write_svhn(tmp_path)
    savemat(tmp_path / "train_32x32.mat", content)
    with pytest.raises(UserError, match=f"train_32x32.mat.*{sentence}"):
        svhn.find("svhn_cropped", tmp_path).splits["train"]()


def test_truncated_file_is_refused(tmp_path):
    raw_files.write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"train_32x32\.mat is truncated or damaged"):
        svhn.find("svhn_cropped", tmp_path).splits["train"]()
