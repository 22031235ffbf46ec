"""Image sets of a user's own."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flown_jax.data import image_sets
from flown_jax.errors import UserError


def arrays(**changed) -> dict:
    rng = np.random.default_rng(0)
    found = {
        "train_images": rng.integers(0, 256, (6, 5, 5, 3)).astype(np.uint8),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": rng.integers(0, 256, (2, 5, 5, 3)).astype(np.uint8),
        "test_labels": np.array([1, 0]),
    }
    found |= changed
    return {name: value for name, value in found.items() if value is not None}


def test_a_file_is_an_image_set(tmp_path):
    given = arrays(class_names=np.array(["cat", "dog", "hen"]))
    np.savez(tmp_path / "pets.npz", **given)
    train, test = (image_sets.load("pets", split, tmp_path) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images, given["train_images"])
    np.testing.assert_array_equal(test.labels, given["test_labels"])
    assert train.class_names == test.class_names == ("cat", "dog", "hen")
    assert train.labels.dtype == np.int32
    assert train.fingerprint() != test.fingerprint()


def test_grey_images_get_their_axis_and_classes_get_numbers(tmp_path):
    grey = {f"{s}_images": arrays()[f"{s}_images"][..., 0] for s in ("train", "test")}
    np.savez(tmp_path / "pets.npz", **arrays(**grey))
    test = image_sets.load("pets", "test", tmp_path)
    assert test.images.shape == (2, 5, 5, 1)
    assert test.class_names == ("0", "1", "2")  # the test split lacks one


@pytest.mark.parametrize(
    ("changed", "split", "sentence"),
    [
        ({}, "validation", "has no split 'validation'; its splits are train, test"),
        ({"test_labels": None}, "test", "has no array test_labels"),
        ({"test_images": np.zeros((2, 5, 5))}, "test", "must be uint8 (n, H, W)"),
        ({"test_images": np.zeros((2, 5, 5, 2), np.uint8)}, "test", "not uint8 (2, 5, 5, 2)"),
        ({"test_labels": np.array([1, 0, 1])}, "test", "must be whole numbers (2,), not"),
        ({"test_labels": np.array([0.5, 1])}, "test", "must be whole numbers (2,), not float64"),
        ({"test_labels": np.array([-1, 0])}, "test", "must be numbers from 0"),
        ({"class_names": np.array(["cat"])}, "test", "labels up to 2, and 1 class_names"),
        ({"test_labels": np.array([{}, {}])}, "test", "no .npz file of plain arrays"),
        (
            {"test_labels": np.array([[1], [0]])},
            "test",
            "must be whole numbers (2,), not int64 (2, 1)",
        ),
        ({"test_labels": np.eye(2)}, "train", "must be whole numbers (2,), not float64 (2, 2)"),
        ({"test_labels": np.array([True, False])}, "test", "must be whole numbers (2,), not bool"),
        ({"test_labels": np.array(["a", "b"])}, "train", "must be whole numbers (2,), not <U1"),
        ({"test_labels": np.array([-1, 0])}, "train", "test_labels of"),
        ({"train_labels": np.array([1, 2, 3] * 2)}, "train", "no train image of class 0; number"),
        ({"train_labels": np.array([0, 1, 3] * 2)}, "test", "no train image of class 2; number"),
        ({"test_labels": np.array([0, 3])}, "test", "no train image of class 3; number"),
        (
            {"train_labels": np.array([0, 1, -1] * 2).astype(np.uint8)},
            "train",
            "labels up to 255, and no train image of class 2",
        ),
        (
            {"test_labels": np.array([0, -1]).astype(np.uint32)},
            "train",
            "labels up to 4294967295, and no train image of class 3",
        ),
        (
            {
                "test_labels": np.array([0, -1]).astype(np.uint64),
                "class_names": np.array(["a", "b"]),
            },
            "train",
            "labels up to 18446744073709551615, and 2 class_names",
        ),
        ({"class_names": np.array("cat")}, "train", "must be texts (classes,)"),
        ({"train_images": np.ones((6, 3, 5, 5), np.uint8)}, "train", "not uint8 (6, 3, 5, 5)"),
        ({"train_images": np.ones((6, 5, 5), np.uint8)}, "train", "no value above 1; grey levels"),
        ({"train_images": np.ones((6, 5, 5), np.int16)}, "train", "not int16 (6, 5, 5)"),
        ({"train_images": np.zeros((6, 0, 5), np.uint8)}, "train", "has no pixels"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, changed, split, sentence):
    np.savez(tmp_path / "pets.npz", **arrays(**changed))
    with pytest.raises(UserError, match=re.escape(sentence)):
        image_sets.load("pets", split, tmp_path)


def test_names_allow_classes_without_images(tmp_path):
    names = np.array(["cat", "dog", "hen", "owl"])
    np.savez(tmp_path / "pets.npz", **arrays(train_labels=np.array([1, 2] * 3), class_names=names))
    assert image_sets.load("pets", "train", tmp_path).class_names == ("cat", "dog", "hen", "owl")


def test_a_damaged_or_absent_file_is_one_sentence(tmp_path):
    (tmp_path / "pets.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"pets.npz is no .npz file"):
        image_sets.load("pets", "train", tmp_path)
    with pytest.raises(UserError, match=r"one of your own would be .*toys.npz"):
        image_sets.load("toys", "train", tmp_path)
