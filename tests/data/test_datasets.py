"""Few-shot data sets by name: splits that are disjoint and complete, foreign sets, errors."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from flown_jax.data import array_record, datasets
from flown_jax.data.catalogue import facts
from flown_jax.data.datasets import ClassImages
from flown_jax.data.formats import RawSplit
from flown_jax.data.glyphs import Jitter, draw_glyphs, glyph_classes, handwritten_digits
from flown_jax.errors import UserError
from tests.data import raw_files

GLYPHS = {
    "seed": 1,
    "alike": 0.4,
    "train_classes": 10,
    "validation_classes": 5,
    "images_per_class": 3,
    "jitter": 1.0,
}
SIDES = {"mini_imagenet": 8, "cifar10": 6}
PER_CLASS = {"train": 4, "validation": 2, "test": 3}


@pytest.fixture(scope="module")
def glyphs():
    return datasets.few_shot("glyphs", **GLYPHS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a small `mini_imagenet` and `cifar10`, and {set: {split: RawSplit}}."""
    folder = tmp_path_factory.mktemp("sets")
    parts = {name: _write(folder, name, side) for name, side in SIDES.items()}
    return folder, parts


def _write(folder, name, side):
    official = facts(name)
    parts = {}
    for seed, split in enumerate(split for split in official.counts if split in PER_CLASS):
        classes = official.classes_of(split)
        count = len(classes) * PER_CLASS[split]
        # The classes take turns: those of one class are not neighbours.
        labels = raw_files.cyclic(count, len(classes)).astype(np.int32) + classes.start
        parts[split] = RawSplit(raw_files.pictures(count, side, 3, seed), labels)
    array_record.write(
        folder,
        official,
        {split: lambda part=part: part for split, part in parts.items()},
        side=side,
        class_names=official.class_names,
        description="test",
    )
    return parts


def _settings(folder, **changes):
    return {
        "data_dir": folder,
        "foreign": ("cifar10",),
        "train_classes": 0,
        "images_per_class": 0,
        **changes,
    }


def _assert_disjoint_and_complete(data):
    everything = np.concatenate([data.split[name] for name in datasets.SPLITS])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(data.classes)))
    assert len(data.split) == 3 and all(len(ids) for ids in data.split.values())
    assert set(data.titles) == {"in_distribution", *data.foreign}


def test_glyphs_are_split_into_classes_of_one_size(glyphs):
    _assert_disjoint_and_complete(glyphs)
    assert [len(glyphs.split[name]) for name in ("train", "validation")] == [10, 5]
    assert {images.shape for images in glyphs.classes.images} == {(3, 28, 28, 1)}
    assert glyphs.classes.channels == 1 and glyphs.absent == ()
    assert glyphs.titles["in_distribution"].startswith("In distribution: characters")


def test_glyphs_are_the_drawn_characters_under_their_names(glyphs):
    classes = glyph_classes(GLYPHS["alike"])
    drawn = draw_glyphs(classes, 1, 3, Jitter(strength=1.0))
    np.testing.assert_array_equal(np.stack(glyphs.classes.images)[..., 0], drawn)
    found = [unicodedata.lookup(name) for name in glyphs.classes.names]
    assert tuple(found) == classes.characters
    assert not any(character.isdigit() for character in found)


def test_digits_are_foreign_to_glyphs_each_with_its_images(glyphs):
    (name, digits), *others = glyphs.foreign.items()
    images, labels = handwritten_digits()
    assert name == "out_of_distribution" and not others
    assert digits.names == tuple(f"digit {d}" for d in range(10)) and digits.channels == 1
    for digit, part in enumerate(digits.images):
        np.testing.assert_array_equal(part[..., 0], images[labels == digit])


def test_seed_makes_the_split_and_the_images(glyphs):
    again = datasets.few_shot("glyphs", **GLYPHS)
    other = datasets.few_shot("glyphs", **{**GLYPHS, "seed": 2})
    for name, ids in glyphs.split.items():
        np.testing.assert_array_equal(again.split[name], ids)
    assert again.classes.fingerprint() == glyphs.classes.fingerprint()
    assert set(other.split["train"]) != set(glyphs.split["train"])
    assert other.classes.fingerprint() != glyphs.classes.fingerprint()


def test_mini_imagenet_has_the_classes_of_its_splits(prepared):
    folder, parts = prepared
    data = datasets.few_shot("mini_imagenet", **_settings(folder))
    _assert_disjoint_and_complete(data)
    assert data.classes.names == facts("mini_imagenet").class_names and data.classes.channels == 3
    for split, part in parts["mini_imagenet"].items():
        np.testing.assert_array_equal(data.split[split], facts("mini_imagenet").classes_of(split))
        for c in data.split[split]:
            expected = part.images[part.labels == c]
            assert len(expected) == PER_CLASS[split]
            np.testing.assert_array_equal(data.classes.images[c], expected)


def test_foreign_images_are_the_test_split_in_their_own_size(prepared):
    folder, parts = prepared
    data = datasets.few_shot("mini_imagenet", **_settings(folder))
    assert list(data.foreign) == ["cifar10"] and data.absent == ()
    assert data.foreign["cifar10"].names == facts("cifar10").class_names
    test = parts["cifar10"]["test"]
    for c, images in enumerate(data.foreign["cifar10"].images):
        np.testing.assert_array_equal(images, test.images[test.labels == c])
    assert data.titles == {
        "in_distribution": "In distribution: mini-ImageNet, the 20 test classes",
        "cifar10": "Out of distribution: CIFAR-10",
    }


def test_a_smaller_run_has_the_first_classes_and_images(prepared):
    folder, _ = prepared
    whole = datasets.few_shot("mini_imagenet", **_settings(folder))
    settings = _settings(folder, train_classes=5, images_per_class=3)
    small = datasets.few_shot("mini_imagenet", **settings)
    _assert_disjoint_and_complete(small)
    assert [len(small.split[name]) for name in datasets.SPLITS] == [5, 16, 20]
    for split, count in (("train", 3), ("validation", 2), ("test", 3)):
        for c, original in zip(small.split[split], whole.split[split], strict=False):
            assert small.classes.names[c] == whole.classes.names[original]
            expected = whole.classes.images[original][:count]
            np.testing.assert_array_equal(small.classes.images[c], expected)
    assert {len(images) for images in small.foreign["cifar10"].images} == {3}


def test_foreign_sets_that_were_not_prepared_are_named(prepared):
    folder, _ = prepared
    names = ("stl10", "cifar10", "svhn_cropped")
    data = datasets.few_shot("mini_imagenet", **_settings(folder, foreign=names))
    assert data.absent == ("stl10", "svhn_cropped")
    assert list(data.foreign) == ["cifar10"]
    assert set(data.titles) == {"in_distribution", "cifar10"}


def test_missing_or_damaged_sets_are_told(prepared, tmp_path):
    folder, _ = prepared
    with pytest.raises(UserError, match="no image set mini_imagenet in .*prepare_data mini_im"):
        datasets.few_shot("mini_imagenet", **_settings(tmp_path))
    (tmp_path / "mini_imagenet").symlink_to(folder / "mini_imagenet")
    broken = tmp_path / "stl10" / "1.0.0"
    broken.mkdir(parents=True)
    (broken / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="stl10"):
        datasets.few_shot("mini_imagenet", **_settings(tmp_path, foreign=("stl10",)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"foreign": ("mnist",)}, "mnist has grey images and mini_imagenet colour ones: .*cifar10"),
        ({"foreign": ("digits",)}, "digits has grey images"),
        ({"foreign": ("glyphs",)}, "data.foreign has 'glyphs'; beside mini_imagenet it takes svhn"),
        ({"foreign": ("cifar",)}, "data.foreign has 'cifar'; .* cifar10, cifar100, stl10"),
        ({"foreign": ("mini_imagenet",)}, "data.foreign has 'mini_imagenet'"),
        ({"foreign": ("cifar10", "cifar10")}, "names a set twice: cifar10, cifar10"),
        ({"foreign": "cifar10"}, r"data.foreign is 'cifar10'; .*\('cifar10',\)"),
        ({"train_classes": 65}, "data.train_classes is 65; mini_imagenet has 64 training classes"),
        ({"train_classes": -1}, "data.train_classes is -1"),
        ({"images_per_class": -1}, "data.images_per_class is -1; 0"),
        ({"alike": 0.8}, "data.alike is no setting of mini_imagenet; .*data_dir, foreign, train"),
    ],
)
def test_wrong_settings_are_one_sentence(prepared, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        datasets.few_shot("mini_imagenet", **_settings(prepared[0], **changes))


def test_unknown_set_is_refused_with_those_at_hand():
    with pytest.raises(UserError, match=r"'omniglot'.*at hand are glyphs, mini_imagenet\."):
        datasets.few_shot("omniglot", **GLYPHS)


def test_missing_setting_is_named():
    settings = {name: value for name, value in GLYPHS.items() if name != "jitter"}
    with pytest.raises(UserError, match="data.jitter is missing; glyphs needs seed, alike"):
        datasets.few_shot("glyphs", **settings)


def test_too_few_classes_are_refused_with_their_number():
    with pytest.raises(UserError, match=r"alike = 0.4 leaves \d+ characters, too few for 5000"):
        datasets.few_shot("glyphs", **{**GLYPHS, "train_classes": 5000})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -5},
        {"seed": 0.5},
        {"train_classes": 0},
        {"validation_classes": -1},
        {"images_per_class": 0},
        {"images_per_class": True},
        {"alike": float("nan")},
        {"jitter": -1.0},
        {"jitter": float("inf")},
        {"jitter": "1"},
    ],
)
def test_numbers_out_of_range_are_one_sentence(change):
    ((name, value),) = change.items()
    with pytest.raises(UserError, match=f"data.{name} is {value!r}; "):
        datasets.few_shot("glyphs", **{**GLYPHS, **change})


def test_fingerprint_depends_on_bytes_shapes_and_the_order_of_classes():
    a, b = raw_files.pictures(4, 6, 1), raw_files.pictures(4, 6, 1, seed=1)
    changed = a.copy()
    changed[3, 5, 5, 0] ^= 1
    marks = [
        ClassImages(images, names).fingerprint()
        for images, names in (
            ((a, b), ("a", "b")),
            ((b, a), ("b", "a")),
            ((changed, b), ("a", "b")),
            ((a.reshape(4, 4, 9, 1), b.reshape(4, 4, 9, 1)), ("a", "b")),
            ((np.concatenate([a, b[:2]]), b[2:]), ("a", "b")),
        )
    ]
    assert len(set(marks)) == 5
    assert ClassImages((a.copy(), b.copy()), ("a", "b")).fingerprint() == marks[0]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        ((np.zeros((2, 6, 6), np.uint8),), ("a",)),
        ((np.zeros((2, 6, 6, 2), np.uint8),), ("a",)),
        ((np.zeros((2, 6, 6, 3)),), ("a",)),
        ((raw_files.pictures(2, 6, 3), raw_files.pictures(2, 8, 3)), ("a", "b")),
        ((raw_files.pictures(2, 6, 3),), ("a", "b")),
        ((), ()),
    ],
)
def test_images_that_do_not_fit_together_are_no_class_images(images, names):
    with pytest.raises(ValueError, match="image"):
        ClassImages(images, names)
