"""Image sets of ten characters each, drawn from matplotlib's fonts: no download, no files.

`latin` and `greek` are grey, bright ink on a dark ground; `colour_symbols` has coloured ink on a
coloured ground, either one the brighter. Fonts, jitter, noise and colours are drawn from fixed
seeds, of which training and test images share none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flown_jax.data.glyphs import GlyphClasses, Jitter, draw_glyphs, glyphs_of

IMAGES_PER_CLASS = {"train": 240, "test": 120}
_SPLITS = tuple(IMAGES_PER_CLASS)
_MASK = Jitter(0.75, noise=(0.0, 0.0), contrast=(1.0, 1.0))  # ink 1 on ground 0, to be coloured
_CONTRAST = 0.4  # smallest difference of ink and ground in brightness
_NOISE = (0.02, 0.1)  # smallest and largest standard deviation, of an image in [0, 1]
_LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green, blue in the brightness


@dataclass(frozen=True)
class GlyphSet:
    """Ten characters and their names; `seed` is that of its training images.

    Attributes:
      channels: 1 grey, 3 coloured.
    """

    characters: str
    names: tuple[str, ...]
    channels: int
    seed: int


GLYPH_SETS = {
    # No two of the letters look alike, and none of one set like one of the other.
    "latin": GlyphSet("CJKMRSTVWX", tuple("CJKMRSTVWX"), 1, 100),
    "greek": GlyphSet(
        "ΓΔΘλΞΠΣΦΨΩ",
        ("Gamma", "Delta", "Theta", "lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
        1,
        200,
    ),
    "colour_symbols": GlyphSet(
        "€¥∂∞√±♥♣♫☼",
        (
            "euro",
            "yen",
            "partial differential",
            "infinity",
            "square root",
            "plus-minus",
            "heart",
            "club",
            "notes",
            "sun",
        ),
        3,
        300,
    ),
}


def draw(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of one split of a set, always the same.

    Args:
      name: of GLYPH_SETS.
      split: train or test.
    Returns:
      uint8 (N, 28, 28, C) and int32 labels (N,), N = 2,400 or 1,200; the labels go round the ten
      classes, so that any ten images in a row have all.
    """
    drawn = GLYPH_SETS[name]
    seed = drawn.seed + _SPLITS.index(split)
    classes = glyphs_of(drawn.characters)
    if drawn.channels == 1:
        images = draw_glyphs(classes, seed, IMAGES_PER_CLASS[split], Jitter())[..., None]
    else:
        images = _coloured(classes, seed, IMAGES_PER_CLASS[split])
    count, per_class = images.shape[:2]
    images = np.ascontiguousarray(images.swapaxes(0, 1)).reshape(-1, *images.shape[2:])
    return images, np.tile(np.arange(count, dtype=np.int32), per_class)


def _coloured(classes: GlyphClasses, seed: int, images_per_class: int) -> np.ndarray:
    """uint8 (C, m, 28, 28, 3): ink and ground of two colours that differ in brightness."""
    masks = draw_glyphs(classes, seed, images_per_class, _MASK)
    images = np.empty((*masks.shape, 3), np.uint8)
    for c, mask in enumerate(masks):
        # A stream of its own, which is not that of the class's jitter.
        rng = np.random.default_rng((seed, c, 1))
        ink, ground = _colours(rng, images_per_class)
        share = mask[..., None] / 255
        image = ground[:, None, None, :] + share * (ink - ground)[:, None, None, :]
        noise = rng.uniform(*_NOISE, images_per_class)[:, None, None, None]
        image = image + noise * rng.normal(size=image.shape)
        images[c] = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return images


def _colours(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ink and ground, each (count, 3) in [0, 1]: uniform among pairs of enough contrast."""
    pairs = np.empty((0, 2, 3))
    while len(pairs) < count:
        drawn = rng.uniform(size=(4 * count, 2, 3))
        brightness = drawn @ _LUMA
        pairs = np.concatenate([pairs, drawn[abs(brightness[:, 0] - brightness[:, 1]) > _CONTRAST]])
    return pairs[:count, 0], pairs[:count, 1]
