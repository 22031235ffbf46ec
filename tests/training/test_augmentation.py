"""Augmented images are cut from the images they come from, and nothing but the key decides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flown_jax.errors import UserError
from flown_jax.training import augmentation as module
from flown_jax.training.augmentation import augmentation
from tests.layers.helpers import quick_jit

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 10, 10, 2)), jnp.float32)
FILL = (-3.0, 5.0)


def windows(image):
    """Every crop of the image with a black margin of 4, and its mirror image."""
    height, width, _ = image.shape
    padded = np.stack([np.pad(image[..., c], 4, constant_values=FILL[c]) for c in (0, 1)], -1)
    cuts = [padded[y : y + height, x : x + width] for y in range(9) for x in range(9)]
    return np.stack([*cuts, *(cut[:, ::-1] for cut in cuts)])


def test_a_shifted_image_is_a_window_of_it():
    augment = quick_jit(augmentation("crop_flip", FILL))
    found = set()
    for seed in range(5):
        for image, changed in zip(IMAGES, augment(jax.random.key(seed), IMAGES), strict=True):
            (same,) = np.flatnonzero((windows(np.asarray(image)) == changed).all((1, 2, 3)))
            found.add(int(same))
    assert len(found) > 20  # 30 draws of 162
    assert {place // 81 for place in found} == {0, 1}


@pytest.mark.parametrize("name", ["none", "crop_flip", "resized_crop_flip"])
def test_only_the_key_decides(name):
    augment = quick_jit(augmentation(name, FILL))
    once, twice, other = (augment(jax.random.key(seed), IMAGES) for seed in (1, 1, 2))
    assert once.shape == IMAGES.shape and once.dtype == IMAGES.dtype
    np.testing.assert_array_equal(once, twice)
    assert (name == "none") == bool((once == other).all())


def test_an_enlarged_part_stays_a_plane():
    """Linear interpolation keeps planes, whatever the part, up to the mirror image."""
    rows, columns = jnp.meshgrid(jnp.arange(12.0), jnp.arange(12.0), indexing="ij")
    plane = jnp.broadcast_to(jnp.stack([rows, columns], -1), (8, 12, 12, 2))
    out = np.asarray(quick_jit(augmentation("resized_crop_flip"))(jax.random.key(0), plane))
    inner = out[:, 2:-2, 2:-2]  # the rim of a part at the image's edge is cut
    down, across = np.diff(inner, axis=1)[..., 0], np.diff(inner, axis=2)[..., 1]
    for slopes in (down, np.abs(across)):
        # A part of 8 to 100 % of the area, its sides in ratios up to 4/3.
        assert slopes.min() > 0.2 and slopes.max() <= 1.0 + 1e-5
        np.testing.assert_allclose(slopes, slopes[:, :1, :1] + 0 * slopes, atol=1e-4)
    assert len(np.unique(down[:, 0, 0].round(4))) > 4


def test_the_whole_image_is_the_largest_part(monkeypatch):
    monkeypatch.setattr(module, "_AREA", (1.0, 1.0))
    monkeypatch.setattr(module, "_RATIO", (1.0, 1.0))
    out = np.asarray(quick_jit(augmentation("resized_crop_flip"))(jax.random.key(3), IMAGES))
    for image, changed in zip(np.asarray(IMAGES), out, strict=True):
        errors = [np.abs(changed - form).max() for form in (image, image[:, ::-1])]
        assert min(errors) < 1e-5


def test_an_unknown_one_is_refused():
    with pytest.raises(UserError, match="augmentation is 'mixup'; it is one of none, crop_flip"):
        augmentation("mixup")
