"""Folders in TensorFlow Datasets' form: round trip, official readers, no TensorFlow."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from flown_jax.data import array_record
from flown_jax.data.catalogue import facts
from flown_jax.data.formats import RawSplit
from flown_jax.errors import UserError
from tests.data import raw_files


def _write(folder, name, count=20, side=None):
    """Two splits of random images; returns the set's folder and {split: RawSplit}."""
    official = facts(name)
    side = side or official.side
    parts = {}
    for seed, split in enumerate(("train", "test")):
        images = raw_files.pictures(count, side, official.channels, seed)
        labels = raw_files.cyclic(count, official.classes).astype(np.int32)
        coarse = labels // 5 if official.coarse else None
        parts[split] = RawSplit(images, labels, coarse)
    path = array_record.write(
        folder,
        official,
        {split: lambda part=part: part for split, part in parts.items()},
        side=side,
        class_names=official.class_names,
        description="test",
    )
    return path, parts


@pytest.mark.parametrize(
    ("name", "side"), [("mnist", 28), ("usps", 16), ("cifar100", 32), ("stl10", 64)]
)
def test_images_come_back_in_order(tmp_path, name, side):
    path, parts = _write(tmp_path, name, side=side)
    assert path == tmp_path / name / facts(name).version
    assert array_record.counts(path) == {"train": 20, "test": 20}
    for split, part in parts.items():
        images, labels, class_names = array_record.read(path, split)
        np.testing.assert_array_equal(images, part.images)
        np.testing.assert_array_equal(labels, part.labels)
        assert labels.dtype == np.int32
        assert class_names == facts(name).class_names


def test_reading_in_parts_changes_nothing(tmp_path, monkeypatch):
    path, parts = _write(tmp_path, "usps", count=23)
    monkeypatch.setattr(array_record, "_CHUNK", 5)
    np.testing.assert_array_equal(array_record.read(path, "test")[0], parts["test"].images)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "svhn_cropped", "stl10"])
def test_official_builders_open_it_as_their_own(tmp_path, name):
    import tensorflow_datasets as tfds

    _, parts = _write(tmp_path, name, count=12)
    source = tfds.data_source(name, split="train", data_dir=tmp_path, download=False)
    assert len(source) == 12
    row = source[11]
    np.testing.assert_array_equal(row["image"], parts["train"].images[11])
    assert row["label"] == parts["train"].labels[11]
    official = tfds.builder(name, data_dir=tmp_path / "none")
    assert set(row) == set(official.info.features)
    if name == "cifar10":
        assert row["id"] == b"train_00011"
    if name == "cifar100":
        assert row["coarse_label"] == parts["train"].coarse[11]


def test_two_sets_can_be_written_in_one_process(tmp_path):
    first, _ = _write(tmp_path, "mnist")
    second, parts = _write(tmp_path, "fashion_mnist")
    np.testing.assert_array_equal(array_record.read(second, "train")[0], parts["train"].images)
    assert array_record.read(first, "train")[2] == facts("mnist").class_names


def test_an_error_of_the_source_is_told_as_it_is(tmp_path):
    def broken() -> RawSplit:
        raise UserError("the file is broken.")

    with pytest.raises(UserError, match=r"^the file is broken\.$"):
        array_record.write(
            tmp_path,
            facts("mnist"),
            {"train": broken},
            side=28,
            class_names=facts("mnist").class_names,
            description="",
        )
    assert not list(tmp_path.glob("mnist/*/dataset_info.json"))


def test_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(image):
        raise RuntimeError("write() failed: No space left on device; writing x")

    monkeypatch.setattr(array_record, "_encode", full)
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: no space left on the device"):
        _write(tmp_path, "mnist")


def test_unknown_split_and_damaged_folders_are_one_sentence(tmp_path):
    path, _ = _write(tmp_path, "mnist")
    with pytest.raises(UserError, match=r"has no split 'extra'; it has train, test\."):
        array_record.read(path, "extra")
    (records,) = path.glob("mnist-train*")
    data = records.read_bytes()
    records.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{path} is truncated or damaged"):
        array_record.read(path, "train")
    records.unlink()
    with pytest.raises(UserError, match=f"{path} is truncated or damaged"):
        array_record.read(path, "train")
    (path / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="lists no splits"):
        array_record.counts(path)
    (path / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*dataset_info\.json"):
        array_record.read(path, "train")


CLASS = "tensorflow_datasets.core.features.image_feature.Image"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("features.json", CLASS, "made_by_a_stranger.Feature", "asks for made_by_a_stranger"),
        ("features.json", f'"pythonClassName": "{CLASS}"',
         '"python_class_name": "made_by_a_stranger.Feature"', "asks for made_by_a_stranger"),
        ("features.json", '"featuresDict"', '"type": "made_by_a_stranger.X", "a"', "asks for made"),
        ("features.json", '"label"', '"../label"', "names files outside of its folder"),
        ("dataset_info.json", "{DATASET}-", "../{DATASET}-", "names files outside of its folder"),
        ("dataset_info.json", "{DATASET}-", "/tmp/{DATASET}-", "names files outside"),
        ("dataset_info.json", '"name": "mnist"', '"name": "../mnist"', "names files outside"),
        ("dataset_info.json", '"20"', '"1000000000000"', "promises 1,000,000,000,000 images"),
        ("dataset_info.json", '"20"', '"-20"', "truncated or damaged"),
        ("dataset_info.json", None, "[]", "holds no fields"),
        ("features.json", None, "", "cannot read .*features.json"),
    ],
)  # fmt: skip
def test_descriptions_that_name_code_or_other_files_are_refused(
    tmp_path, monkeypatch, file, old, new, sentence
):
    path, _ = _write(tmp_path, "mnist")
    (tmp_path / "made_by_a_stranger.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    text = (path / file).read_text()
    assert old is None or old in text
    (path / file).write_text(new if old is None else text.replace(old, new, 1))
    with pytest.raises(UserError, match=sentence):
        array_record.read(path, "train")


@pytest.mark.parametrize("mode", ["I;16", "P", "RGBA"])
def test_records_of_other_depths_are_refused(tmp_path, monkeypatch, mode):
    def encode(image):
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0]).convert(mode).save(buffer, "PNG")
        return buffer.getvalue()

    monkeypatch.setattr(array_record, "_encode", encode)
    path, _ = _write(tmp_path, "mnist")
    with pytest.raises(UserError, match=f"Pillow's mode {mode}"):
        array_record.read(path, "train")


def test_tfrecord_without_tensorflow_says_how_to_convert(tmp_path, monkeypatch):
    path, _ = _write(tmp_path, "mnist")
    info = json.loads((path / "dataset_info.json").read_text())
    del info["fileFormat"]  # TensorFlow Datasets' default
    (path / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="'tfrecord', which only TensorFlow reads: install"
    ) as error:
        array_record.read(path, "train")
    assert "experiments.prepare_data" in str(error.value)
    assert "file_format='array_record'" in str(error.value)


def test_tfrecord_is_read_where_tensorflow_is_installed(tmp_path):
    pytest.importorskip("tensorflow", reason="TFRecord needs TensorFlow")
    import tensorflow_datasets as tfds

    images, labels = raw_files.pictures(20, 28, 1), raw_files.cyclic(20)

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(names=list("0123456789")),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield index, {"image": image, "label": int(label)}

    Mnist(data_dir=tmp_path).download_and_prepare()
    path = tmp_path / "mnist" / "3.0.1"
    assert list(path.glob("*.tfrecord-*"))
    read = array_record.read(path, "train")
    np.testing.assert_array_equal(read[0], images)
    np.testing.assert_array_equal(read[1], labels)
    assert read[2] == tuple("0123456789")


PROGRAM = """
import pathlib, sys
from flown_jax.data import image_sets, prepare
prepare.prepare("mnist", sys.argv[1], sys.argv[2])
image_sets.load("mnist", "test", sys.argv[2])
image_sets.load("digits", "test")
print("tensorflow" in sys.modules, "torch" in sys.modules)
"""


def test_tensorflow_is_never_imported(tmp_path):
    raw_files.write_idx(tmp_path / "raw")
    arguments = [sys.executable, "-c", PROGRAM, tmp_path / "raw", tmp_path / "data"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_catalogue_counts_and_classes_are_consistent():
    for name in ("mini_imagenet", "cifar100"):
        official = facts(name)
        assert official.classes == 100 and len(set(official.class_names)) == 100
    mini = facts("mini_imagenet")
    assert [len(r) for r in mini.class_splits.values()] == [64, 16, 20]
    assert {s: n // len(mini.classes_of(s)) for s, n in mini.counts.items()} == {
        "train": 600,
        "validation": 600,
        "test": 600,
    }
    assert dataclasses.replace(mini, class_splits={}).classes_of("train") == range(100)
