"""Embedded characters: fixed images, classes that can be told apart, colours that stand out."""

from __future__ import annotations

import numpy as np
import pytest

from configs.zoo import get_config
from flown_jax.data import glyph_sets, image_sets
from flown_jax.data.catalogue import EMBEDDED
from flown_jax.data.glyphs import glyphs_of

SETS = tuple(glyph_sets.GLYPH_SETS)


@pytest.fixture(scope="module")
def parts():
    """Training and test images of every set."""
    return {name: [image_sets.load(name, split) for split in ("train", "test")] for name in SETS}


@pytest.mark.parametrize("name", SETS)
def test_sets_need_no_folder_and_are_what_the_catalogue_says(parts, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    official = image_sets.facts(name)
    assert name in EMBEDDED and official.classes == len(set(official.class_names)) == 10
    for part in parts[name]:
        count = official.counts[part.split]
        assert part.images.shape == (count, 28, 28, official.channels)
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(part.labels), [count // 10] * 10)
        assert set(part.labels[-10:]) == set(range(10))
    again = image_sets.load(name, "test", tmp_path / "absent")
    assert again.fingerprint() == parts[name][1].fingerprint()


def test_no_image_is_there_twice(parts):
    images = [image.tobytes() for both in parts.values() for part in both for image in part.images]
    assert len(set(images)) == len(images) == 3 * 3600


@pytest.mark.parametrize("name", SETS)
def test_classes_can_be_told_apart_and_training_images_tell_of_test_images(parts, name):
    train, test = (_ink(part.images) for part in parts[name])
    labels = [part.labels for part in parts[name]]
    means = np.stack([train[labels[0] == c].mean(0) for c in range(10)])
    accuracy = ((test @ _unit(means).T).argmax(1) == labels[1]).mean()
    assert 0.5 < accuracy < 0.97  # 0.65, 0.75, 0.93: nearest mean, the ground's colour known


def test_latin_and_greek_letters_look_different():
    letters = "".join(glyph_sets.GLYPH_SETS[name].characters for name in ("latin", "greek"))
    classes = glyphs_of(letters)
    pictures = np.stack([classes.masters[rows[0]].ravel() for rows in classes.rows])
    cosine = np.corrcoef(pictures) - np.eye(len(letters))
    assert cosine.max() < 0.85  # Theta and Omega, 0.84; "one class" begins at 0.85


def test_ink_stands_out_of_the_ground_in_either_direction(parts):
    images = parts["colour_symbols"][0].images / 255
    brightness = images @ [0.299, 0.587, 0.114]
    ground = np.median(np.concatenate([brightness[:, :2], brightness[:, -2:]], 1), axis=(1, 2))
    low, high = np.quantile(brightness.reshape(len(images), -1), (0.015, 0.985), axis=1)
    # The strongest noise alone comes to 0.15.
    assert np.maximum(high - ground, ground - low).min() > 0.2
    darker = (ground - low > high - ground).mean()
    assert 0.4 < darker < 0.6
    assert images.mean((1, 2)).std(0).min() > 0.15  # every channel varies from image to image


@pytest.mark.parametrize("name", SETS)
def test_zoo_variants_have_the_statistics_of_the_training_images(parts, name):
    config = get_config(name)
    images = parts[name][0].images / 255
    assert config.data.name == name and config.inputs.channels == images.shape[-1]
    assert config.inputs.mean == (round(images.mean(), 2),) * images.shape[-1]
    assert config.inputs.std == (round(images.std(), 2),) * images.shape[-1]


def _ink(images: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 784) of how far each pixel's colour is from that of the border."""
    values = images.astype(float)
    border = np.concatenate([values[:, :2], values[:, -2:]], 1)
    distance = np.linalg.norm(values - np.median(border, axis=(1, 2), keepdims=True), axis=-1)
    return _unit(distance.reshape(len(images), -1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors - vectors.mean(1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
