"""Laws of reading headers: what is plain is the same to every decoder, all else is not plain."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from conftest import photo_like
from PIL import Image, PngImagePlugin

from agedphoto.datasets.codecs import CODECS, FORMATS, encode_photo
from agedphoto.datasets.plain import plain_size

PHOTO = photo_like(33, 47, seed=1)


def saved(format: str, *, image: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(PHOTO)).save(file, format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def text(key: str, value: str = "x", *, compressed: bool = False) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(key, value, zip=compressed)
    return info


def png_with(kind: bytes, content: bytes) -> bytes:
    """A PNG with a chunk more, before its end."""
    data = saved("PNG")
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return data[:-12] + struct.pack(">I", len(content)) + kind + content + crc + data[-12:]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_encoded_here_is_plain_and_has_its_size(format):
    for height, width in ((33, 47), (1, 1), (5, 300)):
        data = encode_photo(photo_like(height, width, seed=2), format)
        assert plain_size(data, CODECS[format].extension) == (height, width)


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        ("png", saved("PNG")),
        ("png", saved("PNG", pnginfo=text("Comment"))),
        ("png", saved("PNG", pnginfo=text("Comment", compressed=True), dpi=(72, 72))),
        ("jpg", saved("JPEG")),
        ("jpeg", saved("JPEG", progressive=True, subsampling=2)),
        ("jpg", saved("JPEG", exif=exif(1))),
        ("jpg", saved("JPEG", comment="a comment", dpi=(300, 300))),
        ("webp", saved("WEBP", lossless=True)),
    ],
)
def test_plain_files_of_other_writers_are_plain(extension, data):
    assert plain_size(data, extension) == PHOTO.shape[:2]


GRAY, CMYK = Image.fromarray(PHOTO).convert("L"), Image.fromarray(PHOTO).convert("CMYK")
RGBA, PALETTE = Image.fromarray(PHOTO).convert("RGBA"), Image.fromarray(PHOTO).convert("P")
DEEP = PHOTO.astype(np.uint16) * 257
FRAMES = {"save_all": True, "append_images": [GRAY.convert("RGB")]}


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        ("png", saved("PNG", image=GRAY)),
        ("png", saved("PNG", image=RGBA)),
        ("png", saved("PNG", image=PALETTE)),
        ("png", imagecodecs.png_encode(DEEP)),
        ("png", saved("PNG", icc_profile=b"any")),
        ("png", saved("PNG", exif=exif(6))),
        ("png", png_with(b"eXIf", exif(6).tobytes())),
        ("png", saved("PNG", transparency=(0, 0, 0))),
        ("png", saved("PNG", pnginfo=text("Raw profile type exif"))),
        ("png", saved("PNG", pnginfo=text("XML:com.adobe.xmp", "tiff:Orientation=6"))),
        ("png", saved("PNG", **FRAMES)),
        ("jpg", saved("JPEG", image=GRAY)),
        ("jpg", saved("JPEG", image=CMYK)),
        ("jpg", saved("JPEG", exif=exif(3))),
        ("jpg", saved("JPEG", icc_profile=b"any")),
        ("jpg", saved("JPEG", keep_rgb=True)),
        ("jpg", saved("JPEG", xmp=b"<x tiff:Orientation='6'/>")),
        ("jpg", saved("MPO", **FRAMES)),
        ("webp", saved("WEBP", lossless=False)),
        ("webp", saved("WEBP", lossless=True, image=RGBA.rotate(9))),
        ("webp", saved("WEBP", lossless=True, exif=exif(6))),
        ("webp", saved("WEBP", lossless=True, icc_profile=b"any")),
        ("webp", saved("WEBP", lossless=True, **FRAMES)),
        ("j2c", imagecodecs.htj2k_encode(PHOTO[..., 0])),
        ("j2c", imagecodecs.htj2k_encode(DEEP)),
        ("j2c", imagecodecs.htj2k_encode(PHOTO, level=90, reversible=False)),
        ("j2c", imagecodecs.jpeg2k_encode(PHOTO, codecformat="j2k", reversible=True)),
        ("gif", saved("GIF")),
        ("bmp", saved("BMP")),
        ("tif", saved("TIFF")),
        ("png", saved("JPEG")),
        ("jpg", saved("PNG")),
    ],
)
def test_what_has_to_be_converted_is_not_plain(extension, data):
    assert plain_size(data, extension) is None


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_cut_short_is_not_plain_wherever_it_is_cut(format):
    data = encode_photo(PHOTO, format)
    assert plain_size(data, CODECS[format].extension)
    assert all(plain_size(data[:end], CODECS[format].extension) is None for end in range(len(data)))


@pytest.mark.parametrize("format", FORMATS)
def test_any_bytes_give_an_answer(format):
    rng, extension = np.random.default_rng(3), CODECS[format].extension
    data = encode_photo(PHOTO, format)
    for _ in range(2000):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 120), 3):
            changed[place] = rng.integers(256)
        size = plain_size(bytes(changed), extension)
        assert size is None or len(size) == 2
