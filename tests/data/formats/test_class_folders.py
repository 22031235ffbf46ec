"""Images sorted into class folders: labels by name or number, one size for all."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flown_jax.data.catalogue import facts
from flown_jax.data.formats import class_folders
from flown_jax.errors import UserError
from tests.data import raw_files


def _write(folder, name, class_of, side=32):
    """Two PNG images a class in train and one in test, {split: (images, labels)}."""
    official = facts(name)
    result = {}
    for seed, (split, count) in enumerate((("train", 20), ("test", 10))):
        images = raw_files.pictures(count, side, official.channels, seed)
        labels = np.sort(raw_files.cyclic(count))
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / class_of(int(label)) / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0] if official.channels == 1 else image).save(path)
        result[split] = (images, labels)
    return result


@pytest.mark.parametrize(
    ("name", "class_of"),
    [
        ("cifar10", str),
        ("cifar10", lambda label: facts("cifar10").class_names[label].capitalize()),
        (
            "fashion_mnist",
            lambda label: facts("fashion_mnist").class_names[label].replace("/", "-"),
        ),
    ],
)
def test_images_come_back(tmp_path, name, class_of):
    written = _write(tmp_path / name, name, class_of)
    raw = class_folders.find(name, tmp_path)
    assert len(raw.files) == 30
    for split, (images, labels) in written.items():
        part = raw.splits[split]()
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)


def test_unknown_class_missing_split_and_other_sizes_are_refused(tmp_path):
    _write(tmp_path, "cifar10", str)
    raw = class_folders.find("cifar10", tmp_path)
    Image.new("RGB", (31, 32)).save(tmp_path / "train" / "3" / "x.png")
    with pytest.raises(UserError, match=r"x\.png is 31 x 32 pixels; .* are 32 x 32"):
        raw.splits["train"]()
    (tmp_path / "train" / "3" / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"x\.png is truncated or damaged"):
        raw.splits["train"]()
    (tmp_path / "train" / "3").rename(tmp_path / "train" / "zebra")
    with pytest.raises(UserError, match="zebra is no class of cifar10; name class folders 0 to 9"):
        raw.splits["train"]()
    (tmp_path / "test").rename(tmp_path / "tests")
    with pytest.raises(UserError, match="class folders in train but none in test"):
        class_folders.find("cifar10", tmp_path)


def test_folders_without_images_are_none(tmp_path):
    (tmp_path / "train" / "0").mkdir(parents=True)
    assert class_folders.find("cifar10", tmp_path) is None
