"""Glyph images and handwritten digits: deterministic, distinct classes, readable images."""

from __future__ import annotations

import dataclasses
import unicodedata

import numpy as np
import pytest

from flown_jax.data.glyphs import (
    GlyphClasses,
    Jitter,
    draw_glyphs,
    glyph_classes,
    glyphs_of,
    handwritten_digits,
)
from flown_jax.errors import UserError

ALIKE = 0.6


@pytest.fixture(scope="module")
def classes() -> GlyphClasses:
    return glyph_classes(ALIKE)


@pytest.fixture(scope="module")
def images(classes) -> np.ndarray:
    return draw_glyphs(classes, seed=3, images_per_class=6, jitter=Jitter())


def first(classes: GlyphClasses, count: int) -> GlyphClasses:
    return GlyphClasses(classes.characters[:count], classes.masters, classes.rows[:count])


def test_images_are_a_function_of_the_seed(classes, images):
    few = first(classes, 5)
    again = draw_glyphs(few, seed=3, images_per_class=6, jitter=Jitter())
    other = draw_glyphs(few, seed=4, images_per_class=6, jitter=Jitter())
    # Image by image: a class does not depend on how many classes are drawn with it.
    np.testing.assert_array_equal(again, images[:5])
    assert all((other[c] != images[c]).any() for c in range(5))


def test_classes_are_distinct_characters_without_digits(classes):
    assert len(set(classes.characters)) == len(classes.characters) > 90
    assert list(classes.characters) == sorted(classes.characters)
    for character in classes.characters:
        assert unicodedata.category(character)[0] in "LS"
        assert "DIGIT" not in unicodedata.name(character) and not character.isnumeric()


def test_no_two_classes_are_alike(classes):
    pictures = np.stack([classes.masters[rows[0]].ravel() for rows in classes.rows])
    cosine = np.corrcoef(pictures)
    np.fill_diagonal(cosine, 0)
    assert cosine.max() <= ALIKE + 1e-6


def test_a_lower_threshold_keeps_fewer_classes(classes):
    fewer = glyph_classes(0.4)
    assert 0 < len(fewer.characters) < len(classes.characters)


def test_rows_partition_the_masters(classes):
    np.testing.assert_array_equal(np.concatenate(classes.rows), np.arange(len(classes.masters)))
    assert classes.masters.min() >= 0 and classes.masters.max() <= 1
    np.testing.assert_allclose(classes.masters.max((1, 2)), 0.9, atol=1e-3)


def test_images_are_neither_blank_nor_saturated(classes, images):
    assert images.dtype == np.uint8 and images.shape == (len(classes.characters), 6, 28, 28)
    values = images.reshape(-1, 28 * 28) / 255
    low, high = np.quantile(values, [0.05, 0.999], axis=1)
    assert (high - low).min() > 0.4  # the ink stands out of the noise in every image
    ink = (values > 0.5).mean(1)
    assert ink.max() < 0.8 and np.median(ink) > 0.03
    # Bright on dark: the border carries little.
    border = np.concatenate([images[..., 0, :], images[..., -1, :]], -1)
    assert np.median(border) < 60


def test_images_of_a_class_vary_and_resemble_each_other(images):
    flat = images.reshape(*images.shape[:2], -1).astype(float)
    assert all((flat[:, 0] != flat[:, i]).any(1).all() for i in range(1, 6))
    flat = flat - flat.mean(-1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
    within = np.einsum("cmx,cnx->cmn", flat, flat)[:, *np.triu_indices(6, 1)].mean()
    between = np.einsum("cx,dx->cd", flat[:, 0], flat[:, 0])
    between = between[~np.eye(len(flat), dtype=bool)].mean()
    assert within > between + 0.1  # 0.34 and 0.18: the jitter is strong


def test_strength_zero_leaves_the_font_and_the_stroke_only(classes):
    still = dataclasses.replace(Jitter(strength=0), threshold=(0.3, 0.3), contrast=(1.0, 1.0))
    one_font = GlyphClasses(
        classes.characters, classes.masters, tuple(rows[:1] for rows in classes.rows)
    )
    images = draw_glyphs(first(one_font, 4), seed=0, images_per_class=3, jitter=still)
    np.testing.assert_array_equal(images[:, 0], images[:, 1])
    np.testing.assert_array_equal(images[:, 0], images[:, 2])


def test_chosen_characters_are_rendered_like_all_of_them(classes):
    count = len(classes.characters)
    places = [count - 1, 0, count // 2]
    chosen = glyphs_of([classes.characters[place] for place in places])
    for rows, place in zip(chosen.rows, places, strict=True):
        np.testing.assert_array_equal(chosen.masters[rows], classes.masters[classes.rows[place]])


@pytest.mark.parametrize("character", ["\U0010ffff", "ab", ""])
def test_what_the_font_lacks_is_refused(character):
    with pytest.raises(UserError, match="DejaVuSans, a font of matplotlib, has no"):
        glyphs_of(["A", character])


def test_no_image_at_all_is_refused(classes):
    with pytest.raises(UserError, match="images_per_class is 0; at least 1"):
        draw_glyphs(classes, seed=0, images_per_class=0, jitter=Jitter())


def test_handwritten_digits_are_all_there():
    from sklearn.datasets import load_digits

    images, labels = handwritten_digits()
    assert images.shape == (1797, 28, 28) and images.dtype == np.uint8
    np.testing.assert_array_equal(labels, load_digits().target)
    assert (images[:, :4].max(), images[:, -4:].max()) == (0, 0)
    assert (images[:, :, :4].max(), images[:, :, -4:].max()) == (0, 0)
    assert images.max((1, 2)).min() > 150
    # Resizing keeps where the ink lies: its centre, in shares of the ink's box.
    weights = np.arange(20) - 9.5
    small = load_digits().images
    resized = images[:, 4:24, 4:24].astype(float)
    for axis in (1, 2):
        ours = (resized.sum(axis) * weights).sum(1) / resized.sum((1, 2)) / 20
        theirs = (small.sum(axis) * (np.arange(8) - 3.5)).sum(1) / small.sum((1, 2)) / 8
        np.testing.assert_allclose(ours, theirs, atol=0.02)
