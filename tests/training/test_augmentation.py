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


SHARP = np.asarray(np.random.default_rng(1).random((8, 24, 12, 3)), np.float32)


@pytest.mark.parametrize("name", ["random_crop_flip", "degraded"])
def test_a_window_is_five_sixths_and_only_the_key_decides(name):
    augment = quick_jit(augmentation(name))
    once, twice, other = (augment(jax.random.key(seed), SHARP) for seed in (1, 1, 2))
    assert once.shape == (8, 20, 10, 3) and once.dtype == SHARP.dtype
    np.testing.assert_array_equal(once, twice)
    assert (np.asarray(once) != other).any(axis=(1, 2, 3)).any()


def inner_windows(image):
    """Every window of 20 x 10 inside of the image, and its mirror image."""
    cuts = np.stack([image[y : y + 20, x : x + 10] for y in range(5) for x in range(3)])
    return np.concatenate([cuts, cuts[:, :, ::-1]])


def test_a_window_lies_inside_of_the_image():
    augment = quick_jit(augmentation("random_crop_flip"))
    found = set()
    for seed in range(20):
        for image, cut in zip(SHARP, augment(jax.random.key(seed), SHARP), strict=True):
            (same,) = np.flatnonzero((inner_windows(image) == cut).all((1, 2, 3)))
            found.add(int(same))
    assert found == set(range(30))  # 160 draws of 30: one is missed once in 8 runs, not this seed


def test_the_sides_of_low_resolution_are_those_of_the_resizing():
    """A matrix is jax.image.resize down and up, for sides of 14, 18, 22, 27 and 32 of 40."""
    identity = jnp.eye(40)
    matrices = module._blurs(40)
    assert len(matrices) == 6
    np.testing.assert_array_equal(matrices[-1], identity)
    for size, matrix in zip((14, 18, 22, 27, 32), matrices[:-1], strict=True):
        small = jax.image.resize(identity, (size, 40), "bilinear")
        expected = jax.image.resize(small, (40, 40), "bilinear")
        np.testing.assert_allclose(matrix, expected, atol=1e-5)  # float32 positions


def test_half_of_the_images_are_blurred_alike_on_both_axes(monkeypatch):
    """With colours left alone: a window, or one of five low resolutions of a window."""
    for name in ("_BRIGHTNESS", "_SATURATION", "_CONTRAST"):
        monkeypatch.setattr(module, name, (1.0, 1.0))
    augment = quick_jit(augmentation("degraded"))
    rows, columns = module._blurs(20), module._blurs(10)
    windows = np.stack([inner_windows(image) for image in SHARP])
    blurred = np.einsum("sij,nwjkc,slk->nswilc", rows, windows, columns, optimize=True)
    seen = []
    for seed in range(20):
        for forms, out in zip(blurred, augment(jax.random.key(seed), SHARP), strict=True):
            distance = np.abs(forms - np.asarray(out)).max(axis=(2, 3, 4))
            assert distance.min() < 1e-5
            seen.append(np.unravel_index(distance.argmin(), distance.shape)[0])
    counts = np.bincount(seen, minlength=6)
    assert abs(counts[5] - 80) < 20  # 3 standard deviations of 160 draws
    assert counts[:5].min() >= 5


def test_colours_are_changed_image_by_image(monkeypatch):
    """Undone by three numbers of each image: brightness, saturation, contrast."""
    monkeypatch.setattr(module, "_SHARES", ())
    images = np.concatenate([SHARP] * 4)
    key = jax.random.key(0)
    changed = np.asarray(quick_jit(augmentation("degraded"))(key, images), np.float64)
    cut = np.asarray(augmentation("random_crop_flip")(jax.random.split(key, 5)[0], images))
    grey, new_grey = (x.mean(-1, keepdims=True) for x in (cut.astype(np.float64), changed))
    colour, new_colour = cut - grey, changed - new_grey

    def slope(x, y):
        """The factor y / x of each image, and that nothing else is in y."""
        factor = (x * y).sum((1, 2, 3), keepdims=True) / (x * x).sum((1, 2, 3), keepdims=True)
        np.testing.assert_allclose(y, factor * x, atol=1e-5)
        return factor.ravel()

    centred, new_centred = (x - x.mean((1, 2, 3), keepdims=True) for x in (grey, new_grey))
    brightness = new_grey.mean((1, 2, 3)) / grey.mean((1, 2, 3))
    contrast = slope(centred, new_centred) / brightness
    saturation = slope(colour, new_colour) / brightness / contrast
    for factor, (low, high) in zip(
        (brightness, saturation, contrast), ((0.7, 1.3), (0.0, 1.4), (0.6, 1.4)), strict=True
    ):
        assert low - 1e-4 < factor.min() < low + 0.2 < high - 0.2 < factor.max() < high + 1e-4


def test_grey_images_have_no_saturation(monkeypatch):
    for name in ("_BRIGHTNESS", "_CONTRAST"):
        monkeypatch.setattr(module, name, (1.0, 1.0))
    monkeypatch.setattr(module, "_SHARES", ())
    key = jax.random.key(0)
    out = quick_jit(augmentation("degraded"))(key, SHARP[..., :1])
    cut = augmentation("random_crop_flip")(jax.random.split(key, 5)[0], SHARP[..., :1])
    np.testing.assert_allclose(out, cut, atol=1e-6)
