"""What a user gives to a meta-model: taken rightly, or refused in a sentence."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.meta_model.given import checked_images, checked_sampling, classes_of

NUMBERS = [7, 3, 7, 5]
IMAGES = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)


class Tensor:
    """An array of a library whose scalars are equal to themselves alone, as PyTorch's are."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.ndim = self.values.ndim

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __iter__(self):
        return (Tensor(value) for value in self.values)


@pytest.mark.parametrize(
    "labels",
    [
        tuple(NUMBERS),
        iter(NUMBERS),
        np.array(NUMBERS),
        np.array(NUMBERS, np.uint8),
        np.array(NUMBERS, float),
        np.array(NUMBERS)[:, None],
        jnp.array(NUMBERS),
        jnp.array(NUMBERS)[:, None],
        list(jnp.array(NUMBERS)),
        list(np.array(NUMBERS)),
        Tensor(NUMBERS),
        list(Tensor(NUMBERS)),
    ],
)
def test_labels_of_any_library_are_the_same_classes(labels):
    classes, place = classes_of(labels, None, 4)
    assert classes == [7, 3, 5] and place == [0, 1, 0, 2]
    assert all(type(name) in (int, float) for name in classes)


def test_names_and_truths_are_labels_too():
    names = ["b", "a", "b"]
    for labels in (names, np.array(names), np.array(names, object)):
        assert classes_of(labels, None, 3) == (["b", "a"], [0, 1, 0])
    assert classes_of([(1, 2), (3,), (3,)], None, 3) == ([(1, 2), (3,)], [0, 1, 1])
    assert classes_of(np.array([True, False, True]), None, 3) == ([True, False], [0, 1, 0])
    assert classes_of(jnp.array([1, 0, 1]), range(2), 3) == ([0, 1], [1, 0, 1])
    assert classes_of([1, 0, 1], jnp.array([0, 1]), 3) == ([0, 1], [1, 0, 1])


@pytest.mark.parametrize(
    ("labels", "class_names", "sentence"),
    [
        (np.eye(3)[[0, 1, 2]], None, r"labels have the shape \(3, 3\), .* give the class numbers"),
        (jnp.eye(3), None, r"labels have the shape \(3, 3\)"),
        (jnp.array(1), None, r"labels have the shape \(\)"),
        ([[0], [1], [2]], None, r"must be one name or number an image, and one is \[0\]"),
        ([np.array([0]), 1, 2], None, "must be one name or number an image"),
        ([0.0, 1.0, float("nan")], None, "finite numbers, and one is nan"),
        (jnp.array([0, 1, jnp.nan]), None, "finite numbers, and one is nan"),
        ([0, 1, None], None, "one is None"),
        ([0, 1, True], None, "equal values of several types"),
        ("abc", None, "must be a list or an array, not 'abc'"),
        ({0, 1, 2}, None, "must be a list or an array"),
        ({0: 1, 1: 2, 2: 3}, None, "must be a list or an array"),
        (3, None, "labels must be a list or an array, not 3"),
        (None, None, "labels must be a list or an array, not None"),
        ([], None, "3 images came with 0 labels"),
        ([0, 1], None, "3 images came with 2 labels"),
        ([0, 1, 2], 3, "class_names must be a list"),
        ([0, 1, 2], [0, 1, 2, 1], "class_names has 1 twice"),
        ([0, 1, 2], [0, 1], "label 2 is not among"),
        ([0, 1, 2], range(4), "class 3 has no image"),
        ([0, 1, 2], ["0", "1", "2"], "label 0 is not among"),
    ],
)
def test_labels_that_mean_nothing_are_refused(labels, class_names, sentence):
    with pytest.raises(UserError, match=sentence):
        classes_of(labels, class_names, 3)


def images_of(images, sides=(8, 8), channels=(1,)):
    return checked_images(images, sides=sides, channels=channels)


def test_images_of_any_library_are_the_same():
    halves = IMAGES.astype(np.float16)
    for images in (halves, halves[..., 0], jnp.array(halves), halves.tolist()):
        found = images_of(images)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, halves.astype(np.float32))
    found = images_of(jnp.array(IMAGES, jnp.bfloat16))
    np.testing.assert_allclose(found, IMAGES, atol=0.01)
    whole = (255 * IMAGES).astype(np.uint8)
    np.testing.assert_array_equal(images_of(jnp.array(whole)), whole)


@pytest.mark.parametrize(
    ("images", "options", "sentence"),
    [
        (255 * IMAGES, {}, r"must lie in \[0, 1\], and these reach"),
        (IMAGES - 0.5, {}, r"must lie in \[0, 1\]"),
        (IMAGES * np.nan, {}, "hold NaN"),
        (IMAGES.astype(np.int64), {}, "images are int64; give uint8"),
        (IMAGES > 0.5, {}, "images are bool"),
        (IMAGES.astype(complex), {}, "images are complex128"),
        (IMAGES.astype(str), {}, "images are <U"),
        ([IMAGES[0], IMAGES[1, :4]], {}, "no array of numbers of one shape"),
        (np.moveaxis(IMAGES, 3, 1), {}, r"shape \(4, 1, 8, 8\)"),
        (np.zeros((4, 3, 8, 8)), {"sides": None, "channels": (1, 3)}, r"shape \(4, 3, 8, 8\)"),
        (IMAGES[:, :4], {}, r"shape \(4, 4, 8, 1\); .* takes \(m, 8, 8\) or \(m, 8, 8, 1\)"),
        (IMAGES[0, ..., 0], {}, r"shape \(8, 8\)"),
        (IMAGES[:0], {}, r"shape \(0, 8, 8, 1\)"),
        (np.zeros((8, 8, 3)), {"sides": None, "channels": (1, 3)}, "may be one image"),
        (np.zeros((8, 8, 1)), {"sides": None}, "may be one image with channels or grey ones 1 pix"),
    ],
)
def test_images_that_could_mean_something_else_are_refused(images, options, sentence):
    with pytest.raises(UserError, match=sentence):
        images_of(images, **options)


KNOWN = {"samples": 4, "solver": "euler", "steps": 3, "temperature": 0.7, "seed": 0}


def test_numbers_of_any_library_are_pythons():
    given = {"samples": np.int64(2), "steps": jnp.array(5), "seed": np.uint32(2**32 - 1)}
    found = checked_sampling(**{**KNOWN, **given, "temperature": jnp.float32(0.5)})
    assert found == {
        "samples": 2,
        "solver": "euler",
        "steps": 5,
        "temperature": 0.5,
        "seed": 2**32 - 1,
    }
    assert checked_sampling(**{**KNOWN, "temperature": 0})["temperature"] == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("samples", [0, -1, 2.0, True, "2", None, float("nan")]),
        ("steps", [0, -1, 2.5, True, "2"]),
        ("seed", [-5, 1.0, True, 2**32, "0", None]),
        ("temperature", [float("nan"), float("inf"), -0.1, True, "1", [1.0], 1j, None]),
        ("solver", ["eulr", 1, None, ["euler"]]),
    ],
)
def test_numbers_outside_of_their_range_are_refused(name, values):
    for value in values:
        with pytest.raises(UserError, match=f"^{name} is .*; "):
            checked_sampling(**{**KNOWN, name: value})
