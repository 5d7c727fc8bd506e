"""Photographs that Pillow does not read, or reads wrongly."""

import io
import sys
import types

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from agedphoto.datasets import read_photo
from agedphoto.datasets.photos import measure_photo
from agedphoto.datasets.uncommon import recognise
from tests.conftest import photo_like

PHOTO = photo_like(37, 53, seed=3)
DEEP = PHOTO.astype(np.uint16) * 257
FLOAT = (PHOTO / 255).astype(np.float32)


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


LOSSLESS = {
    "jxl": imagecodecs.jpegxl_encode(PHOTO, lossless=True),
    "jxl in a box": imagecodecs.jpegxl_encode(DEEP, lossless=True),
    "jxr": imagecodecs.jpegxr_encode(PHOTO),
    "float": tiff(FLOAT, photometric="rgb"),
    "float, packed": tiff(FLOAT, photometric="rgb", compression="deflate"),
    "float planes": tiff(FLOAT.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    "half": tiff(FLOAT.astype(np.float16), photometric="rgb"),
    "deep planes": tiff(DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    "deep planes, packed": tiff(
        DEEP.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="lzw"
    ),
    "32 bits": tiff(PHOTO.astype(np.uint32) * 16843009, photometric="rgb"),
    "16-bit jp2": imagecodecs.jpeg2k_encode(DEEP, reversible=True),
    "16-bit png": imagecodecs.png_encode(DEEP),
    "16-bit tiff": tiff(DEEP, photometric="rgb"),
    "qoi": imagecodecs.qoi_encode(PHOTO),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_the_pixels_are_those_that_were_written(kind):
    data = bytes(LOSSLESS[kind])
    assert measure_photo(data) == PHOTO.shape[:2]
    # Half a float is coarser than 8 bits near white; Pillow rounds JPEG 2000 in its own way.
    tolerance = 1 if kind in ("half", "16-bit jp2") else 0
    np.testing.assert_allclose(read_photo(data).astype(int), PHOTO, atol=tolerance)


@pytest.mark.parametrize("kind", ["jxl", "jxl in a box", "jxr", "float", "deep planes"])
def test_too_many_pixels_are_refused_before_any_is_decoded(kind, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("decoded")

    for name in ("jpegxl_decode", "jpegxr_decode"):
        monkeypatch.setattr(imagecodecs, name, refuse)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    with pytest.raises(ValueError, match="1,961 pixels are more than the limit of 1,960"):
        read_photo(bytes(LOSSLESS[kind]), pixel_limit=1960)


@pytest.mark.parametrize(
    "size",
    [
        (1, 1), (8, 8), (256, 256), (300, 700), (700, 300), (9, 12), (512, 512), (600, 513),
        (90, 160), (64, 96), (1, 2000),
    ],
)  # fmt: skip
def test_the_size_of_jpeg_xl_is_found_however_it_is_written(size):
    data = bytes(imagecodecs.jpegxl_encode(np.zeros((*size, 3), np.uint8), effort=1))
    found = recognise(data)
    assert found is not None
    assert (found.height, found.width) == size


def test_gray_and_transparency_are_converted():
    gray = PHOTO[..., 0]
    got = read_photo(bytes(imagecodecs.jpegxl_encode(gray, lossless=True)))
    np.testing.assert_array_equal(got, np.repeat(gray[..., None], 3, -1))
    clear = np.dstack([PHOTO, np.zeros((37, 53), np.uint8)])
    assert (read_photo(bytes(imagecodecs.jpegxl_encode(clear, lossless=True))) == 255).all()


def test_cmyk_planes_of_16_bits_are_converted_as_pillow_converts_cmyk():
    cmyk = np.asarray(Image.fromarray(PHOTO).convert("CMYK"))
    deep = (cmyk.astype(np.uint16) * 257).transpose(2, 0, 1)
    data = tiff(deep, photometric="separated", planarconfig="separate")
    expected = np.asarray(Image.fromarray(cmyk, "CMYK").convert("RGB"))
    np.testing.assert_array_equal(read_photo(data), expected)


def test_orientation_of_a_tiff_is_applied():
    data = tiff(FLOAT, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(read_photo(data), PHOTO.transpose(1, 0, 2)[:, ::-1])


def test_brightness_beyond_one_is_scaled_and_numbers_that_are_none_are_black():
    values = np.array([[[2.0, 1.0, 0.0], [np.nan, np.inf, -1.0]]], np.float32)
    assert read_photo(tiff(values, photometric="rgb")).tolist() == [[[255, 128, 0], [0, 0, 0]]]


@pytest.mark.parametrize("kind", ["jxl", "jxl in a box", "jxr", "float", "deep planes"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_raise_a_value_error_and_nothing_else(kind):
    rng, good = np.random.default_rng(0), bytes(LOSSLESS[kind])
    for _ in range(60):
        data = bytearray(good[: rng.integers(1, len(good))] if rng.random() < 0.4 else good)
        for place in rng.integers(0, min(len(data), 300), 3):
            data[place] = rng.integers(256)
        try:
            photo = read_photo(bytes(data), pixel_limit=1_000_000)
        except ValueError as error:
            assert str(error).startswith("photograph: ")  # noqa: PT017
        else:
            assert photo.shape[2] == 3


def test_heif_is_named_with_its_remedy_and_read_by_who_can(monkeypatch):
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match="HEIF is not read here; install pillow-heif, or convert"):
        read_photo(data)

    class Plugin(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (3, 2), "RGB"
            self.tile = []

        def load(self):
            return Image.new("RGB", self.size, "red").load()

    def register() -> None:
        Image.register_open("HEIF", Plugin, lambda head: head[4:12] == b"ftypheic")

    plugins = (list(Image.ID), dict(Image.OPEN))
    monkeypatch.setitem(
        sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register)
    )
    try:
        assert measure_photo(data) == (2, 3)
    finally:
        Image.ID[:] = plugins[0]
        Image.OPEN.clear()
        Image.OPEN.update(plugins[1])
