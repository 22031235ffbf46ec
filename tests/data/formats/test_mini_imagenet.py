"""mini-ImageNet's three layouts: the same labels from each; classes are counted."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from flown_jax.data.catalogue import facts
from flown_jax.data.formats import mini_imagenet
from flown_jax.errors import UserError
from tests.data import raw_files

OFFICIAL = facts("mini_imagenet")
SHORT = {"train": "train", "validation": "val", "test": "test"}
COLOURS = raw_files.flat(100, 16)  # one image a class


def _write(folder, layout, ids=OFFICIAL.class_ids):
    """One image a class, with the classes of a split in reverse order in csv files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, short in SHORT.items():
        classes = OFFICIAL.classes_of(split)
        if layout == "pickles":
            images = np.repeat(np.repeat(COLOURS[list(classes)], 6, 1), 6, 2)[:, :84, :84]
            rows = {ids[c]: [row] for row, c in enumerate(classes)}
            value = {"image_data": images, "class_dict": rows}
            (folder / f"mini-imagenet-cache-{short}.pkl").write_bytes(pickle.dumps(value))
            continue
        lines = ["filename,label"]
        for label in reversed(classes):
            name = f"{ids[label]}00000001.jpg"
            place = "images" if layout == "csv" else f"{short}/{ids[label]}"
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / name).write_bytes(raw_files.jpeg(COLOURS[label]))
            lines.append(f"{name},{ids[label]}")
        if layout == "csv":
            (folder / f"{short}.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("layout", ["csv", "pickles", "folders"])
def test_layouts_come_back(tmp_path, layout):
    _write(tmp_path / "miniImageNet", layout)
    raw = mini_imagenet.find("mini_imagenet", tmp_path)
    assert raw.class_names == ()
    for split in SHORT:
        part = raw.splits[split]()
        assert part.images.shape == (len(OFFICIAL.classes_of(split)), 84, 84, 3)
        assert sorted(part.labels) == list(OFFICIAL.classes_of(split))
        difference = part.images[:, 40, 40].astype(int) - COLOURS[part.labels][:, 0, 0]
        assert np.abs(difference).max() <= 2  # JPEG of a flat image


def test_other_classes_get_their_own_names(tmp_path):
    ids = tuple(f"n{number:08d}" for number in range(100))
    _write(tmp_path, "csv", ids)
    assert mini_imagenet.find("mini_imagenet", tmp_path).class_names == ids


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda t: t.rsplit("\n", 1)[0], "val.* 16 classes; the files have 15"),
        (lambda t: t.replace(OFFICIAL.class_ids[64], OFFICIAL.class_ids[0]), "is in two splits"),
        (lambda t: t.replace("0001.jpg", "0002.jpg"), r"val\.csv names .*0002\.jpg, which is not"),
        (lambda t: t.replace("filename", "file"), "no rows under the header 'filename,label'"),
        (lambda t: f"{t}\n{t.splitlines()[1]}", r"val\.csv names .*0001\.jpg twice"),
        (
            lambda t: f"{t}\n{OFFICIAL.class_ids[3]}00000001.jpg,{OFFICIAL.class_ids[64]}",
            "train and validation lists both name .*0001.jpg",
        ),
        (lambda t: f"{t}\nalone.jpg", "no label in row 17"),
        (lambda t: f"{t}\n{'a' * 300}.jpg,n1", "which is not in"),
        (lambda t: f"{t}\n{'a' * 200_000},n1", "damaged: field larger than"),
        (lambda t: f"{t}\n../train.csv,n1", "train.csv, which lies outside of .*images"),
        (lambda t: f"{t}\n../../outside.jpg,n1", "outside.jpg, which lies outside of .*images"),
        (lambda t: f"{t}\n/etc/hosts,n1", "/etc/hosts, which lies outside of .*images"),
        (lambda t: f"{t}\nlink.jpg,n1", "link.jpg, which lies outside of .*images"),
        (lambda t: f"{t}\n..\\..\\outside.jpg,n1", "outside.jpg, which is not in"),
    ],
)
def test_damaged_lists_are_refused(tmp_path, damage, sentence):
    folder, outside = tmp_path / "set", tmp_path / "outside.jpg"
    _write(folder, "csv")
    outside.write_bytes(raw_files.jpeg(COLOURS[0]))
    (folder / "images" / "link.jpg").symlink_to(outside)
    path = folder / "val.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=sentence):
        mini_imagenet.find("mini_imagenet", folder)


def test_a_folder_of_images_that_is_a_link_away_is_refused(tmp_path):
    _write(tmp_path / "set", "csv")
    (tmp_path / "set" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"images is a link to .*elsewhere, outside of"):
        mini_imagenet.find("mini_imagenet", tmp_path / "set")


def test_lists_as_editors_leave_them_are_read_and_numbers_are_in_their_order(tmp_path):
    _write(tmp_path, "csv", tuple(str(number) for number in range(100)))
    for short in SHORT.values():
        path = tmp_path / f"{short}.csv"
        text = path.read_text().replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = mini_imagenet.find("mini_imagenet", tmp_path)
    assert found.class_names == tuple(str(number) for number in range(100))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8)}, "no field 'class_dict'"),
        ({"image_data": np.zeros((1, 32, 32, 3), np.uint8), "class_dict": {}}, "is expected"),
        ({"image_data": [[1]], "class_dict": {}}, "an array and a dict are expected"),
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "class_dict": []}, "and a dict are"),
        ({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "class_dict": {"a": [0.5]}}, "whole"),
    ],
)
def test_foreign_caches_are_refused(tmp_path, value, sentence):
    _write(tmp_path, "pickles")
    (tmp_path / "mini-imagenet-cache-val.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match=sentence):
        mini_imagenet.find("mini_imagenet", tmp_path)


def test_images_in_no_class_are_refused(tmp_path):
    _write(tmp_path, "pickles")
    path = tmp_path / "mini-imagenet-cache-val.pkl"
    value = pickle.loads(path.read_bytes())
    value["image_data"] = np.concatenate([value["image_data"], value["image_data"][:1]])
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match="image 16 is in no class"):
        mini_imagenet.find("mini_imagenet", tmp_path).splits["validation"]()


def test_images_in_two_classes_are_refused(tmp_path):
    _write(tmp_path, "pickles")
    path = tmp_path / "mini-imagenet-cache-val.pkl"
    value = pickle.loads(path.read_bytes())
    value["class_dict"][OFFICIAL.class_ids[64]] = [0, 1]
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match="has rows that are in a class already"):
        mini_imagenet.find("mini_imagenet", tmp_path).splits["validation"]()


def test_missing_split_is_named(tmp_path):
    _write(tmp_path, "folders")
    (tmp_path / "val").rename(tmp_path / "valid")
    with pytest.raises(UserError, match="none in validation"):
        mini_imagenet.find("mini_imagenet", tmp_path)
    assert mini_imagenet.find("cifar10", tmp_path) is None
