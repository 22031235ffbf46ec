"""Glyph classes drawn from the fonts that matplotlib ships: a few-shot data set without a download.

A class is a character; an image of it takes one of the fonts that have the character and a seeded
jitter (stroke thickness, affine map, elastic map, contrast, noise). Characters that look alike in
the reference font are kept once. Digits are left out, so that real handwritten digits are a set
out of distribution.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from flown_jax.errors import UserError

_REFERENCE_FONT = "DejaVuSans"
_FONTS = (
    _REFERENCE_FONT,
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
)
# Letters, and the symbols that a person tells apart as characters.
_CATEGORIES = ("Lu", "Ll", "Lo", "Sc", "Sm", "So")
# Names of code points that are not characters to a reader, or differ by dots or strokes only.
_NOT_CHARACTERS = (
    "DIGIT",
    "BRAILLE",
    "HEXAGRAM",
    "TETRAGRAM",
    "DIGRAM",
    "BOX DRAWINGS",
    "BLOCK",
    "QUADRANT",
    "SHADE",
    "OGHAM SPACE",
)
_CANVAS = 48  # side of a rendered master, pixels
_BOX = 34  # longer side of the glyph in its master, pixels
_BLUR = 1.6  # pixels of the master; makes thickness a threshold
_SIDE = 28  # side of an image, pixels


@dataclasses.dataclass(frozen=True)
class Jitter:
    """How much images of one character differ.

    Attributes:
      strength: factor on every field below but the threshold and the contrast.
      rotation: largest rotation, radians.
      log_scale: largest change of log size, an axis.
      shear: largest shear.
      shift: largest shift, in half images.
      elastic: standard deviation of the elastic map on a 5 x 5 grid, in half images.
      noise: smallest and largest standard deviation of the pixel noise.
      threshold: range of the ink threshold (small is a thick stroke).
      contrast: range of the ink's brightness.
    """

    strength: float = 1.0
    rotation: float = 0.35
    log_scale: float = 0.2
    shear: float = 0.35
    shift: float = 0.12
    elastic: float = 0.095
    noise: tuple[float, float] = (0.02, 0.15)
    threshold: tuple[float, float] = (0.18, 0.55)
    contrast: tuple[float, float] = (0.6, 1.0)


@dataclasses.dataclass(frozen=True)
class GlyphClasses:
    """Rendered characters: `masters` (M, 48, 48) in [0, 1] and, for class c, its rows `rows[c]`."""

    characters: tuple[str, ...]
    masters: np.ndarray
    rows: tuple[np.ndarray, ...]


def glyph_classes(alike: float = 0.85) -> GlyphClasses:
    """All characters that look different, each in every font that has it.

    Args:
      alike: two characters whose blurred, centred pictures in the reference font have a cosine
        above this are one class (0.85 keeps about 1,000).
    Returns:
      The classes in the order of their code points.
    """
    characters = _candidates()
    pictures = np.stack([_render(c, _REFERENCE_FONT) for c in characters])
    keep = _different(pictures, alike)
    return _in_all_fonts([characters[i] for i in keep], pictures[keep])


def glyphs_of(characters: Sequence[str]) -> GlyphClasses:
    """Some characters, each in every font that has it; only they are rendered.

    Args:
      characters: of the classes, in this order.
    Raises:
      UserError: a character that the reference font lacks.
    """
    charmap = _charmap(_REFERENCE_FONT)
    for character in characters:
        if len(character) != 1 or ord(character) not in charmap:
            raise UserError(f"{_REFERENCE_FONT}, a font of matplotlib, has no {character!r}.")
    pictures = np.stack([_render(character, _REFERENCE_FONT) for character in characters])
    return _in_all_fonts(characters, pictures)


def draw_glyphs(
    classes: GlyphClasses, seed: int, images_per_class: int, jitter: Jitter
) -> np.ndarray:
    """Jittered images of every class, a pure function of the arguments.

    Args:
      classes: C rendered characters.
      seed: of fonts and jitter.
      images_per_class: m.
      jitter: strength of each change.
    Returns:
      uint8 images (C, m, 28, 28), ink bright on dark.
    """
    if images_per_class < 1:
        raise UserError(f"images_per_class is {images_per_class}; at least 1 is needed.")
    images = np.empty((len(classes.rows), images_per_class, _SIDE, _SIDE), np.uint8)
    # One stream a class: an image does not depend on how many classes are drawn.
    for c, rows in enumerate(classes.rows):
        rng = np.random.default_rng((seed, c))
        masters = classes.masters[rng.choice(rows, images_per_class)]
        images[c] = _jittered(rng, masters, jitter)
    return images


def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits as images of the glyphs' size.

    Returns:
      uint8 images (1797, 28, 28), the 8 x 8 originals resized to 20 x 20 (bicubic) on a dark
      border as wide as the glyphs'; int labels (1797,).
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    border = (_SIDE - 20) // 2
    images = np.zeros((len(digits.images), _SIDE, _SIDE), np.uint8)
    for image, original in zip(images, digits.images, strict=True):
        picture = Image.fromarray((original * (255 / 16)).astype(np.uint8))
        resized = picture.resize((20, 20), Image.Resampling.BICUBIC)
        image[border : border + 20, border : border + 20] = np.asarray(resized)
    return images, digits.target.astype(np.int64)


def _in_all_fonts(characters: Sequence[str], pictures: np.ndarray) -> GlyphClasses:
    """The classes of characters whose pictures in the reference font are known."""
    charmaps = {font: frozenset(_charmap(font)) for font in _FONTS}
    masters: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    for character, picture in zip(characters, pictures, strict=True):
        first = len(masters)
        masters.append(picture)
        masters += [
            _render(character, font) for font in _FONTS[1:] if ord(character) in charmaps[font]
        ]
        rows.append(np.arange(first, len(masters)))
    return GlyphClasses(tuple(characters), np.stack(masters), tuple(rows))


def _jittered(rng: np.random.Generator, masters: np.ndarray, jitter: Jitter) -> np.ndarray:
    m, s = len(masters), jitter.strength
    angle = rng.uniform(-1, 1, m) * jitter.rotation * s
    scale = np.exp(rng.uniform(-1, 1, (m, 2)) * jitter.log_scale * s)
    shear = rng.uniform(-1, 1, m) * jitter.shear * s
    shift = rng.uniform(-1, 1, (m, 2)) * jitter.shift * s
    grid = rng.normal(size=(m, 2, 5, 5)) * jitter.elastic * s
    threshold = rng.uniform(*jitter.threshold, m)
    contrast = rng.uniform(*jitter.contrast, m)
    noise = rng.uniform(*jitter.noise, m) * s

    cos, sin = np.cos(angle), np.sin(angle)
    rotate = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    slant = np.stack([np.stack([np.ones(m), shear], -1), np.tile([0.0, 1.0], (m, 1))], -2)
    linear = (rotate @ slant) / scale[:, None, :]
    axis = np.linspace(-1, 1, _SIDE)
    points = np.stack(np.meshgrid(axis, axis, indexing="xy"), -1)  # (28, 28, 2) as (x, y)
    weights = _cubic_weights()
    elastic = np.einsum("ra,mdab,cb->mrcd", weights, grid, weights, optimize=True)
    where = np.einsum("mij,rcj->mrci", linear, points, optimize=True)
    where = where + elastic + shift[:, None, None, :]
    ink = _bilinear(masters, (where + 1) * (_CANVAS - 1) / 2)
    ink = contrast[:, None, None] / (1 + np.exp(-14 * (ink - threshold[:, None, None])))
    ink = ink + noise[:, None, None] * rng.normal(size=ink.shape)
    return (np.clip(ink, 0, 1) * 255).round().astype(np.uint8)


@functools.cache
def _cubic_weights() -> np.ndarray:
    """(28, 5): a row interpolates 5 equidistant values by a cubic spline."""
    from scipy.interpolate import CubicSpline

    nodes = np.linspace(-1, 1, 5)
    return CubicSpline(nodes, np.eye(5))(np.linspace(-1, 1, _SIDE))


def _bilinear(pictures: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Values of pictures (m, S, S) at `where` (m, r, c, 2) in pixels (x, y); 0 outside."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    where = np.clip(where + 1, 0, pictures.shape[1] + 0.999)
    low = where.astype(np.int64)
    fx, fy = np.moveaxis(where - low, -1, 0)
    x, y = np.moveaxis(low, -1, 0)
    i = np.arange(len(pictures))[:, None, None]
    top = padded[i, y, x] * (1 - fx) + padded[i, y, x + 1] * fx
    bottom = padded[i, y + 1, x] * (1 - fx) + padded[i, y + 1, x + 1] * fx
    return top * (1 - fy) + bottom * fy


def _different(pictures: np.ndarray, alike: float) -> list[int]:
    """Greedy choice of pictures whose centred cosine with every chosen one is at most `alike`.

    A character that draws nothing (the object replacement character) is no class.
    """
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1)
    flat = flat / np.maximum(norms, 1e-12)[:, None]
    cosine = flat @ flat.T
    chosen: list[int] = []
    for index in range(len(flat)):
        if norms[index] > 0 and (not chosen or cosine[index, chosen].max() <= alike):
            chosen.append(index)
    return chosen


def _candidates() -> list[str]:
    """Letters and symbols of the reference font that are not another one with a mark on it."""
    characters = []
    for code in sorted(_charmap(_REFERENCE_FONT)):
        character = chr(code)
        name = unicodedata.name(character, "")
        if (
            unicodedata.category(character) in _CATEGORIES
            and not unicodedata.decomposition(character)
            and name
            and " WITH " not in name
            and not any(word in name for word in _NOT_CHARACTERS)
        ):
            characters.append(character)
    return characters


@functools.cache
def _charmap(font: str) -> dict[int, int]:
    from matplotlib.ft2font import FT2Font

    return dict(FT2Font(str(_font_path(font))).get_charmap())


def _font_path(font: str) -> pathlib.Path:
    import matplotlib

    path = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    if not path.exists():
        raise UserError(f"matplotlib's font {path} is missing; reinstall matplotlib.")
    return path


@functools.cache
def _font(font: str):
    from PIL import ImageFont

    return ImageFont.truetype(str(_font_path(font)), 64)


def _render(character: str, font: str) -> np.ndarray:
    """(48, 48) in [0, 1]: the glyph cropped to its box, fitted, centred, blurred, max 0.9."""
    from PIL import Image, ImageDraw
    from scipy.ndimage import gaussian_filter

    font_object = _font(font)
    left, top, right, bottom = font_object.getbbox(character)
    picture = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(picture).text((4 - left, 4 - top), character, fill=255, font=font_object)
    # The font's box may be larger than the ink.
    picture = picture.crop(picture.getbbox() or (0, 0, 1, 1))
    width, height = picture.size
    factor = _BOX / max(width, height)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    canvas.paste(
        picture.resize(size, Image.Resampling.BILINEAR),
        ((_CANVAS - size[0]) // 2, (_CANVAS - size[1]) // 2),
    )
    blurred = gaussian_filter(np.asarray(canvas, np.float32) / 255, _BLUR)
    # Thin strokes vanish under the threshold unless each glyph is brought to the same maximum.
    return blurred * (0.9 / max(float(blurred.max()), 1e-6))
