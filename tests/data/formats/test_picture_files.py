"""Single pictures: depths, palettes, alpha, orientation, frames; what would need a guess."""

from __future__ import annotations

import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from flown_jax.data.formats import picture_files
from flown_jax.errors import UserError

RAMP = np.linspace(0, 255, 784).astype(np.uint8).reshape(28, 28)
GREY = Image.fromarray(RAMP)
SIXTEEN = RAMP.astype(np.uint16) * 257


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def with_alpha(alpha: int, mode: str = "RGBA") -> Image.Image:
    picture = GREY.convert(mode)
    picture.putalpha(alpha)
    return picture


def empty_png(side: int) -> bytes:
    """A PNG that promises side x side pixels and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        encoded(GREY),
        encoded(Image.fromarray(SIXTEEN)),
        encoded(Image.fromarray(SIXTEEN), "TIFF"),
        encoded(Image.frombytes("I;16B", (28, 28), SIXTEEN.astype(">u2").tobytes()), "TIFF"),
        encoded(GREY.convert("P")),
        encoded(GREY, "GIF"),
        encoded(with_alpha(255)),
        encoded(with_alpha(255, "LA")),
        encoded(GREY.convert("RGB"), "WEBP", lossless=True),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_ramp_comes_back_from_every_form(data, channels):
    found = np.asarray(picture_files.read(data, channels))
    expected = RAMP if channels == 1 else np.repeat(RAMP[..., None], 3, -1)
    np.testing.assert_array_equal(found, expected)


def test_a_picture_is_turned_as_it_says():
    turned, orientation = Image.fromarray(RAMP[:14]), Image.Exif()
    orientation[0x0112] = 6
    found = np.asarray(picture_files.read(encoded(turned, exif=orientation), 1))
    np.testing.assert_array_equal(found, np.rot90(RAMP[:14], -1))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            encoded(Image.fromarray(RAMP.astype(np.uint16))),
            "16 bits a pixel and no value above 255",
        ),
        (encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "32 bits a pixel"),
        (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "32 bits a pixel"),
        (encoded(with_alpha(128)), "transparent pixels"),
        (encoded(GREY.convert("P"), transparency=3), "transparent pixels"),
        (encoded(GREY, transparency=7), "transparent pixels"),
        (encoded(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]), "has 2 frames"),
        (encoded(GREY, save_all=True, append_images=[GREY.rotate(90)]), "has 2 frames"),
        (encoded(GREY, "JPEG")[:-200], "truncated or damaged"),
        (empty_png(10), "truncated or damaged"),
        (empty_png(10_000), "truncated or damaged: .* exceeds limit"),
        (empty_png(60_000), "truncated or damaged: .* exceeds limit"),
        (b"", "truncated or damaged"),
    ],
)
def test_what_would_need_a_guess_is_refused(data, sentence):
    with pytest.raises(UserError, match=f"x.png .*{sentence}"):
        picture_files.read(data, 1, pathlib.Path("x.png"))
