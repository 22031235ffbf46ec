"""Image sets by name: the embedded digits, prepared folders, sentences for what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from flown_jax.data import image_sets
from flown_jax.data.glyphs import handwritten_digits
from flown_jax.data.prepare import prepare
from flown_jax.errors import UserError
from tests.data import raw_files


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with a prepared `mnist` of 20 and 20 images."""
    folder = tmp_path_factory.mktemp("sets")
    raw_files.write_idx(folder / "raw")
    prepare("mnist", folder / "raw", folder / "data")
    return folder / "data"


def test_digits_are_split_once_and_for_all_with_equal_shares():
    train, test = image_sets.load("digits", "train"), image_sets.load("digits", "test")
    assert train.images.shape == (1200, 28, 28, 1) and test.images.shape == (597, 28, 28, 1)
    images, labels = handwritten_digits()
    counts, all_counts = np.bincount(train.labels), np.bincount(labels)
    np.testing.assert_allclose(counts, all_counts * 1200 / 1797, atol=1)
    together = np.concatenate([train.images, test.images])[..., 0]
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in images)
    assert image_sets.load("digits", "train").fingerprint() == train.fingerprint()
    assert train.labels.dtype == np.int32 and train.class_names == tuple("0123456789")


def test_fingerprint_depends_on_images_and_labels():
    digits = image_sets.load("digits", "test")
    changed = digits.images.copy()
    changed[5, 3, 3, 0] ^= 1
    others = [
        image_sets.ImageSet("digits", changed, digits.labels, digits.class_names, "test"),
        image_sets.ImageSet("x", digits.images, (digits.labels + 1) % 10, (), "x"),
    ]
    assert len({part.fingerprint() for part in (digits, *others)}) == 3


def test_prepared_set_is_loaded(data_dir):
    part = image_sets.load("mnist", "test", data_dir)
    np.testing.assert_array_equal(part.images, raw_files.pictures(20, 28, 1, 1))
    np.testing.assert_array_equal(part.labels, raw_files.cyclic(20))
    assert part.class_names == tuple("0123456789")
    assert (part.name, part.split) == ("mnist", "test")


def test_highest_finished_version_is_taken(tmp_path):
    for version in ("3.0.1", "10.0.0", "9.0.0", "11.0.0", "x.0.1"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        if version != "11.0.0":
            (tmp_path / "mnist" / version / "dataset_info.json").touch()
    assert image_sets.finished("mnist", tmp_path).name == "10.0.0"


def test_missing_set_names_the_command(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no image set cifar10 in .*prepare_data cifar10 --from="):
        image_sets.load("cifar10", "train", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no image set cifar10 in data; .* --to=data"):
        image_sets.load("cifar10", "train")


@pytest.mark.parametrize(
    ("name", "split", "folder", "sentence"),
    [
        ("imagenet", "train", ".", "there is no image set 'imagenet'; .*mini_imagenet, digits"),
        ("mnist", "validation", ".", r"no split 'validation'; its splits are train, test\."),
        ("digits", "extra", ".", "digits has no split 'extra'"),
        ("mnist", "train", "gs://bucket/data", "gs://bucket/data is not on a local disk"),
    ],
)
def test_wrong_names_are_one_sentence(name, split, folder, sentence):
    with pytest.raises(UserError, match=sentence):
        image_sets.load(name, split, folder)


@pytest.mark.parametrize("name", ["../mnist", "/tmp/mnist", "a/b"])
def test_names_are_no_paths(tmp_path, name):
    with pytest.raises(UserError, match="is no name of an image set: it has a folder in it"):
        image_sets.load(name, "train", tmp_path / "data")


def test_long_names_and_unknown_homes_are_one_sentence(tmp_path):
    for ask in (image_sets.at_hand, lambda *place: image_sets.load(place[0], "train", place[1])):
        with pytest.raises(UserError, match="cannot read .*aaa"):
            ask("a" * 300, tmp_path)
        with pytest.raises(UserError, match="cannot read .*aaa|there is no image set"):
            if ask("mnist", tmp_path / ("a" * 300)) is False:
                raise UserError("there is no image set")
        with pytest.raises(UserError, match="a home folder that is not known"):
            ask("mine", "~nobody_of_that_name/data")


def test_labels_outside_of_the_classes_are_refused(data_dir, monkeypatch):
    read = image_sets.array_record.read
    for label in (-1, 10):

        def changed(*place, label=label):
            images, labels, names = read(*place)
            return images, np.where(labels == 3, label, labels), names

        monkeypatch.setattr(image_sets.array_record, "read", changed)
        with pytest.raises(UserError, match=r"labels of -?\d to \d+ in test, and 10 classes"):
            image_sets.load("mnist", "test", data_dir)


def test_a_foreign_folder_under_the_name_is_refused(data_dir, tmp_path):
    (tmp_path / "cifar10").symlink_to(data_dir / "mnist")
    with pytest.raises(UserError, match="images of 1 channels; cifar10 has 3"):
        image_sets.load("cifar10", "train", tmp_path)
