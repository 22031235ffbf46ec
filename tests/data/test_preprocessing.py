"""Preprocessing: closed forms, Pillow's resize bit for bit, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from flown_jax.data import preprocessing
from flown_jax.data.preprocessing import Preprocessing
from flown_jax.errors import UserError
from tests.data import raw_files

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("side", "size"),
    [(16, 28), (28, 28), (28, 32), (32, 28), (48, 28), (64, 32), (96, 28), (96, 32), (84, 5)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows(side, size, channels):
    images = raw_files.pictures(6, side, channels)
    images[:3] = np.where(images[:3] > 127, 255, 0)  # where rounding and clipping matter most
    expected = [
        Image.fromarray(image.squeeze()).resize((size, size), Image.Resampling.BILINEAR)
        for image in images
    ]
    resized = preprocessing.resize(images, size)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized.squeeze(), np.stack([np.asarray(e) for e in expected]))


def test_resize_is_pillows_for_every_form():
    rng = np.random.default_rng(0)
    sides = np.exp(rng.uniform(0, np.log(200), (400, 3))).astype(int)
    # Tall ones, where Pillow's order of the two axes changes.
    sides[::2, 0] = np.maximum(2 * sides[::2, 1] - sides[::2, 2] + rng.integers(-1, 3, 200), 1)
    for height, width, size in [*sides.tolist(), (200, 3, 16), (3, 200, 16), (1, 1, 1)]:
        image = rng.integers(0, 256, (height, width, 1), np.uint8)
        pillow = Image.fromarray(image[..., 0]).resize((size, size), Image.Resampling.BILINEAR)
        resized = preprocessing.resize(image[None], size)[0, ..., 0]
        np.testing.assert_array_equal(resized, pillow, f"{height} x {width} to {size}")


def test_resize_keeps_a_constant_and_a_ramp():
    assert (preprocessing.resize(np.full((1, 32, 32, 3), 77, np.uint8), 28) == 77).all()
    ramp = np.broadcast_to(np.arange(0, 64, 2, dtype=np.uint8), (1, 32, 32))[..., None]
    middle = preprocessing.resize(ramp, 16)[0, 8, 2:-2, 0]
    # Away from the borders the mean of a line is the line: twice the step, at 2 i + 1/2.
    np.testing.assert_array_equal(middle, np.arange(16)[2:-2] * 4 + 1)


def test_grey_is_the_rounded_sum_and_pillows():
    images = raw_files.pictures(20, 9, 3)
    np.testing.assert_allclose(
        preprocessing.grey(images)[..., 0], images @ [0.299, 0.587, 0.114], atol=0.5001
    )
    for red in (0, 1, 12, 250):  # where the exact sum is a half for some colours
        levels = np.indices((256, 256)).transpose(1, 2, 0)
        image = np.concatenate([np.full((256, 256, 1), red), levels], -1).astype(np.uint8)
        pillow = Image.fromarray(image).convert("L")
        np.testing.assert_array_equal(preprocessing.grey(image)[..., 0], pillow)
    assert preprocessing.grey(np.full((1, 1, 1, 3), 255, np.uint8)).item() == 255
    one = raw_files.pictures(2, 9, 1)
    np.testing.assert_array_equal(preprocessing.grey(one), one)


def test_crop_takes_the_middle():
    images = np.arange(32 * 32, dtype=np.uint16).reshape(1, 32, 32, 1).astype(np.uint8)
    np.testing.assert_array_equal(preprocessing.centre_crop(images, 28), images[:, 2:30, 2:30])
    with pytest.raises(UserError, match="crop of 33 pixels does not fit images of 32 x 32"):
        preprocessing.centre_crop(images, 33)


def test_steps_follow_in_order_grey_crop_resize_normalise():
    images = raw_files.pictures(5, 32, 3)
    step = Preprocessing(size=14, channels=1, mean=(0.5,), std=(0.25,), crop=28)
    levels = preprocessing.resize(
        preprocessing.centre_crop(preprocessing.grey(images), 28), 14
    ).astype(np.float64)
    result = step.apply(images)
    assert result.dtype == np.float32 and result.shape == (5, 14, 14, 1)
    # float32 rounding of three operations on values up to 2.
    np.testing.assert_allclose(result, (levels / 255 - 0.5) / 0.25, atol=5e-7)


def test_grey_images_are_repeated_and_channels_have_their_own_statistics():
    images = raw_files.pictures(3, 8, 1)
    step = Preprocessing(size=8, channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    result = step.apply(images)
    for channel, (mean, std) in enumerate(zip(step.mean, step.std, strict=True)):
        expected = (images[..., 0] / 255 - mean) / std
        np.testing.assert_allclose(result[..., channel], expected, atol=1e-6)


def test_images_do_not_depend_on_those_beside_them(monkeypatch):
    images = raw_files.pictures(10, 32, 3)
    step = Preprocessing(size=28, channels=3, mean=(0.5,), std=(0.5,))
    whole = step.apply(images)
    monkeypatch.setattr(preprocessing, "_CHUNK", 3)
    np.testing.assert_array_equal(step.apply(images), whole)
    assert step.apply(images[:0]).shape == (0, 28, 28, 3)


@pytest.mark.parametrize("crop", [None, 28])
def test_dict_goes_through_json(crop):
    step = Preprocessing(28, 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.3), crop)
    assert Preprocessing.from_dict(json.loads(json.dumps(step.to_dict()))) == step


def test_whole_numbers_of_a_dict_are_the_same_statistics():
    step = Preprocessing.from_dict({"size": 8, "channels": 1, "mean": [0], "std": [1]})
    assert repr(step) == repr(Preprocessing(8, 1, (0.0,), (1.0,)))


FIELDS = {"size": 28, "channels": 1, "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sise": 3}, "no field 'sise'"),
        ({"mean": None}, "wrong type"),
        ({"channels": 2}, "2 channels; 1 or 3"),
        ({"size": 0}, "size 0"),
        ({"mean": [0.1, 0.2, 0.3]}, "3 values of mean for 1 channels"),
        ({"std": [0.0]}, r"std \(0\.0,\); it must be above 0"),
        ({"std": [1e-50]}, "must be above 0"),
        ({"std": [float("inf")]}, "must be above 0"),
        ({"std": [255]}, "as of images in \\[0, 1\\], not of bytes"),
        ({"mean": [127.5], "std": [127.5]}, "must be from 0 to 1, .* not of bytes"),
        ({"mean": [float("nan")]}, "must be from 0 to 1"),
        ({"mean": [-0.5]}, "must be from 0 to 1"),
        ({"mean": ["0.5"]}, "must be from 0 to 1"),
        ({"mean": [True]}, "must be from 0 to 1"),
        ({"mean": "0.5"}, "wrong type: mean is '0.5', and a list"),
        ({"mean": []}, "0 values of mean"),
        ({"size": "28"}, "size '28'"),
        ({"size": 28.5}, "size 28.5"),
        ({"size": True}, "size True"),
        ({"size": 10**9}, "size 1000000000"),
        ({"crop": -3}, "crop -3"),
        ({"crop": "no"}, "crop 'no'"),
        ({"channels": True}, "True channels"),
    ],
)
def test_wrong_fields_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        Preprocessing.from_dict({**FIELDS, **change})
    with pytest.raises(UserError, match="lacks the field 'std'"):
        Preprocessing.from_dict({k: v for k, v in FIELDS.items() if k != "std"})
    with pytest.raises(UserError, match="a mapping of its fields is wanted"):
        Preprocessing.from_dict(None)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 4), np.uint8)],
)
def test_other_arrays_are_refused(images):
    with pytest.raises(UserError, match=r"takes uint8 images \(N, H, W, 1 or 3\)"):
        Preprocessing.from_dict(FIELDS).apply(images)
    with pytest.raises(UserError, match=r"images with pixels, not \(2, 0, 8, 1\)"):
        Preprocessing.from_dict(FIELDS).apply(np.zeros((2, 0, 8, 1), np.uint8))
