"""Single picture files, decoded to grey levels or RGB.

Pictures of 16 bits lose their lower 8 bits, colour becomes grey and grey colour as in Pillow, and
a picture is turned as its EXIF orientation says. What would need a guess is refused: transparent
pixels, several frames, 16 bits of which only the lower 8 are used, 32 bits, floats.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from flown_jax.data.formats import damaged
from flown_jax.errors import UserError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp"),
    *(".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"),
)


def read(source: Path | bytes, channels: int, where: Path | None = None):
    """A picture of Pillow's, grey or RGB.

    Args:
      source: a file or its bytes. channels: 1 or 3. where: named in errors, the file if None.
    Raises:
      UserError: it cannot be decoded, or only by guessing.
    """
    from PIL import Image, ImageOps

    place = where or (Path("a picture") if isinstance(source, bytes) else source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            # Pillow warns of pictures that would fill the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                # Phones keep previews as further frames of an MPO, which is a JPEG.
                if (frames := getattr(picture, "n_frames", 1)) > 1 and picture.format != "MPO":
                    raise UserError(f"{place} has {frames} frames; a picture of one is wanted.")
                return _plain(ImageOps.exif_transpose(picture), channels, place)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything
        raise damaged(place, error) from error


def _plain(picture, channels: int, where: Path):
    from PIL import Image

    if picture.mode.startswith("I;16"):
        levels = np.asarray(picture)
        if 0 < levels.max() < 256:
            raise UserError(f"{where} has 16 bits a pixel and no value above 255; save it in 8.")
        picture = Image.fromarray((levels >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise UserError(
            f"{where} has 32 bits a pixel, whose range is not known; save it in 8 bits."
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if np.asarray(picture)[..., 3].min() < 255:
            raise UserError(
                f"{where} has transparent pixels; lay it on the background that is wanted first."
            )
    return picture.convert("L" if channels == 1 else "RGB")
