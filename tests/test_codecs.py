"""Photographs as bytes."""

import numpy as np
import pytest

from agedphoto.datasets import FORMATS, decode_photo, encode_photo
from agedphoto.datasets.codecs import CODECS, check_format
from tests.conftest import photo_like


@pytest.mark.parametrize("size", [(40, 56), (1, 1), (1, 300), (97, 3)])
@pytest.mark.parametrize("format", FORMATS)
def test_lossless_formats_give_back_every_byte_and_jpeg_comes_close(format, size):
    photo = photo_like(*size, seed=1)
    data = encode_photo(photo, format)
    back = decode_photo(data, CODECS[format].extension)
    assert back.shape == photo.shape
    assert back.dtype == np.uint8
    if CODECS[format].lossless:
        np.testing.assert_array_equal(back, photo)
    else:
        assert np.abs(back.astype(int) - photo).mean() < 3
    assert encode_photo(photo, format) == data


def test_only_jpeg_is_lossy():
    assert [format for format in FORMATS if not CODECS[format].lossless] == ["jpeg"]


def test_a_lower_jpeg_quality_makes_a_smaller_file():
    photo = photo_like(64, 64, seed=0)
    assert len(encode_photo(photo, "jpeg", quality=20)) < len(encode_photo(photo, "jpeg"))


@pytest.mark.parametrize("format", FORMATS)
def test_photos_that_are_not_contiguous_are_encoded_alike(format):
    photo = photo_like(48, 40, seed=2)
    assert encode_photo(photo[::2, ::-1], format) == encode_photo(photo[::2, ::-1].copy(), format)


@pytest.mark.parametrize("format", ["htj2k", "png", "webp"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.95])
def test_lossless_data_cut_short_is_an_error(format, keep):
    data = encode_photo(photo_like(64, 64, seed=0), format)
    with pytest.raises(ValueError, match="damaged"):
        decode_photo(data[: int(keep * len(data))], CODECS[format].extension)


@pytest.mark.parametrize("format", FORMATS)
def test_data_of_another_kind_is_an_error(format):
    with pytest.raises(ValueError, match=f"damaged .{CODECS[format].extension} data of 15 bytes"):
        decode_photo(b"not a picture\xff\xd9", CODECS[format].extension)


def test_a_gray_picture_is_not_a_photograph():
    import imagecodecs

    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\), got uint8 \(8, 8\)"):
        decode_photo(bytes(imagecodecs.png_encode(np.zeros((8, 8), np.uint8))), "png")


def test_unknown_names_are_answered_with_the_list():
    with pytest.raises(ValueError, match="unknown extension 'gif'; there are: j2c, png"):
        decode_photo(b"", "gif")
    with pytest.raises(ValueError, match="unknown format 'tiff'; there are: htj2k, png"):
        check_format("tiff")


def test_a_photo_that_a_format_cannot_hold_is_an_error_with_its_size():
    with pytest.raises(ValueError, match="16384 x 2 px cannot be written as webp"):
        encode_photo(np.zeros((2, 16384, 3), np.uint8), "webp")
