"""Images sorted into class folders: labels by name or number, one size for all."""

from __future__ import annotations

import shutil

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


def test_what_operating_systems_leave_is_passed_over(tmp_path):
    written = _write(tmp_path, "cifar10", str)
    for name in ("._000.png", ".DS_Store", "Thumbs.db", "desktop.ini", "~$x.png"):
        (tmp_path / "train" / "3" / name).write_bytes(b"no picture")
        (tmp_path / "train" / name).write_bytes(b"no picture")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        for place in (tmp_path / "train", tmp_path / "train" / "3"):
            (place / name).mkdir()
            (place / name / "000.png").write_bytes(b"no picture")
    (tmp_path / "train" / "empty").mkdir()
    raw = class_folders.find("cifar10", tmp_path)
    assert raw.notes == () and len(raw.files) == 30
    np.testing.assert_array_equal(raw.splits["train"]().images, written["train"][0])


def test_what_else_is_no_picture_is_told(tmp_path):
    _write(tmp_path, "cifar10", str)
    (tmp_path / "train" / "3" / "deeper").mkdir()
    (tmp_path / "train" / "3" / "000.png.part").touch()
    (tmp_path / "test" / "readme.txt").touch()
    (note,) = class_folders.find("cifar10", tmp_path).notes
    assert note.startswith("left out: 3 that are no pictures in class folders, as ")


def test_folders_of_one_class_and_odd_numbers_are_refused(tmp_path):
    _write(tmp_path, "cifar10", str)
    shutil.copytree(tmp_path / "train" / "3", tmp_path / "train" / "cat")
    with pytest.raises(UserError, match="3 and .*cat are both class 3 of cifar10"):
        class_folders.find("cifar10", tmp_path).splits["train"]()
    (tmp_path / "train" / "cat").rename(tmp_path / "train" / "\N{SUPERSCRIPT TWO}")
    with pytest.raises(UserError, match="is no class of cifar10"):
        class_folders.find("cifar10", tmp_path).splits["train"]()
