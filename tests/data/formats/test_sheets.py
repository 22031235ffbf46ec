"""Sheets of JPEG tiles: order of tiles, splits, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.data.formats import sheets
from flown_jax.errors import UserError
from tests.data import raw_files

IMAGES, LABELS = raw_files.flat(40, 16), raw_files.cyclic(40)
SPLIT = np.repeat([0, 1, 0, 1], 10)


def test_tiles_come_back_in_order(tmp_path):
    raw_files.write_sheets(tmp_path / "cifar10.npz", IMAGES, LABELS, SPLIT)
    raw = sheets.find("cifar10", tmp_path)
    for number, split in enumerate(("train", "test")):
        part = raw.splits[split]()
        difference = part.images.astype(int) - IMAGES[number == SPLIT]
        assert np.abs(difference).max() <= 2  # JPEG of a flat tile
        np.testing.assert_array_equal(part.labels, LABELS[number == SPLIT])
    assert "JPEG" in raw.notes[0]


def test_mini_imagenet_has_three_splits(tmp_path):
    split = np.repeat([0, 1, 2, 2], 10)
    raw_files.write_sheets(tmp_path / "mini_imagenet.npz", IMAGES, LABELS, split)
    raw = sheets.find("mini_imagenet", tmp_path)
    sizes = {name: len(part().labels) for name, part in raw.splits.items()}
    assert sizes == {"train": 10, "validation": 10, "test": 20}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": LABELS[:39]}, "40 tiles, 39 labels and 40 splits"),
        ({"split": SPLIT + 1}, "a split number 2; 0 to 1 are known"),
        ({"split": SPLIT - 1}, "a split number -1; 0 to 1 are known"),
        ({"split": SPLIT.astype(float)}, "has an array split of float64"),
        ({"cols": 4}, "4 tiles of 16 x 16 a row are expected"),
        ({"cols": [5, 5]}, r"has an array cols of int64 \(2,\)"),
        ({"tile": 0}, "5 tiles of side 0 a row; both start at 1"),
        ({"offsets": np.asarray([-5, 10])}, "offsets do not cut its blob"),
        ({"offsets": np.asarray([10, 0], np.uint64)}, "offsets do not cut its blob"),
        ({"blob": np.zeros(10, "S3")}, r"has an array blob of \|S3"),
        ({"offsets": np.asarray([0, 10**9])}, "offsets do not cut its blob"),
        ({"blob": np.zeros(10**5, np.uint8)}, "sheet 0 is truncated or damaged"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, sentence):
    path = tmp_path / "cifar10.npz"
    raw_files.write_sheets(path, IMAGES, LABELS, SPLIT)
    with np.load(path) as archive:
        values = {key: archive[key] for key in archive.files}
    np.savez(path, **{**values, **change})
    with pytest.raises(UserError, match=sentence):
        sheets.find("cifar10", tmp_path).splits["train"]()


def test_missing_array_is_named_and_plain_arrays_are_no_sheets(tmp_path):
    np.savez(tmp_path / "cifar10.npz", blob=np.zeros(3, np.uint8))
    with pytest.raises(UserError, match="no array 'offsets'"):
        sheets.find("cifar10", tmp_path)
    np.savez(tmp_path / "cifar10.npz", train_images=IMAGES)
    assert sheets.find("cifar10", tmp_path) is None
    assert sheets.find("stl10", tmp_path) is None
