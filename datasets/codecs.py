"""Photographs as bytes: the formats that shards hold.

HTJ2K (JPEG 2000 Part 15) is the default: lossless, a quarter smaller than PNG, decoded three times
faster on a CPU and much faster still on a GPU. It is written as a raw codestream, `.j2c`.

Photographs of other people, and those that were kept as they are, may be of any kind. imagecodecs
decodes what is plain 8-bit RGB; the rest goes the longer way of `read_photo`, which converts.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import imagecodecs
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .photos import (
    PHOTO_SUFFIXES,
    PIXEL_LIMIT,
    TooManyPixelsError,
    check_pixels,
    open_photo,
    read_photo,
)
from .plain import is_whole

Format: TypeAlias = Literal["htj2k", "png", "webp", "jpeg"]
"""Formats that photographs are encoded in."""
FORMATS: tuple[Format, ...] = get_args(Format)
StoredFormat: TypeAlias = Literal["htj2k", "png", "webp", "jpeg", "keep"]
"""The same, and `keep`: the bytes of the file as they are."""
STORED_FORMATS: tuple[StoredFormat, ...] = get_args(StoredFormat)
EXTENSIONS = frozenset(suffix.removeprefix(".") for suffix in PHOTO_SUFFIXES)
"""Of the names of photographs in shards."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How one format is named, written and read."""

    extension: str
    lossless: bool
    encode: Callable[[np.ndarray, int], bytes | bytearray]
    """Of a photo and a quality, which only lossy formats heed."""


CODECS: dict[Format, Codec] = {
    "htj2k": Codec("j2c", True, lambda photo, _: imagecodecs.htj2k_encode(photo)),
    "png": Codec("png", True, lambda photo, _: imagecodecs.png_encode(photo)),
    "webp": Codec("webp", True, lambda photo, _: imagecodecs.webp_encode(photo, lossless=True)),
    "jpeg": Codec(
        "jpg",
        False,
        lambda photo, quality: imagecodecs.jpeg8_encode(photo, level=quality, subsampling="444"),
    ),
}

_PLAIN_DECODERS: dict[str | None, Callable[[bytes], np.ndarray]] = {
    "PNG": imagecodecs.png_decode,
    "WEBP": imagecodecs.webp_decode,
    "JPEG": imagecodecs.jpeg8_decode,
}
_ORIENTATION = 0x0112
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")

# OpenJPH fills its tables when it first encodes, without a lock: threads that begin together write
# photographs that come back wrong, without an error, in about one process of a hundred. So the
# first one is encoded here, where there is one thread.
imagecodecs.htj2k_decode(imagecodecs.htj2k_encode(np.zeros((1, 1, 3), np.uint8)))


def encode_photo(
    photo: UInt8[np.ndarray, "H W 3"], format: Format = "htj2k", *, quality: int = 95
) -> bytes:
    """Encode an 8-bit RGB photograph; `quality`, 1 to 100, is for JPEG.

    Raises:
        ValueError: If the format is unknown or cannot hold so large a photograph.
    """
    codec = CODECS[check_format(format)]
    try:
        return bytes(codec.encode(np.ascontiguousarray(photo), quality))
    except (RuntimeError, ValueError) as error:
        # Every error of imagecodecs is a RuntimeError.
        raise ValueError(
            f"a photograph of {photo.shape[1]} x {photo.shape[0]} px cannot be written as "
            f"{format}: {error}"
        ) from error


def decode_photo(
    data: bytes, extension: str, *, pixel_limit: int = PIXEL_LIMIT
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a photograph by the extension of its name in the shard: upright 8-bit sRGB.

    Raises:
        ValueError: If the extension is unknown, there are more than `pixel_limit` pixels, or the
            decoder sees that the bytes are damaged. Of a few changed bytes most formats see
            nothing: that is for a checksum to find.
    """
    if extension not in EXTENSIONS:
        raise ValueError(
            f"unknown extension {extension!r}; there are: {', '.join(sorted(EXTENSIONS))}"
        )
    decode = _decode_codestream if extension == "j2c" else _decode_any
    try:
        return decode(data, pixel_limit)
    except TooManyPixelsError as error:
        raise ValueError(f".{extension} data of {len(data)} bytes: {error}") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).removeprefix("photograph: ")
        raise ValueError(f"damaged .{extension} data of {len(data)} bytes: {reason}") from error


def check_format(format: str) -> Format:
    """Return `format`, or raise ValueError with the list of formats that can be encoded."""
    for known in FORMATS:
        if format == known:
            return known
    raise ValueError(f"unknown format {format!r}; there are: {', '.join(FORMATS)}")


def check_stored_format(format: str) -> StoredFormat:
    """Return `format`, or raise ValueError with the list of formats that shards may have."""
    for known in STORED_FORMATS:
        if format == known:
            return known
    raise ValueError(f"unknown format {format!r}; there are: {', '.join(STORED_FORMATS)}")


def _decode_codestream(data: bytes, pixel_limit: int) -> np.ndarray:
    # A codestream ends with its end marker; OpenJPH would fill in what is missing.
    if not data.endswith(b"\xff\xd9"):
        raise ValueError("it has no end")
    if data.startswith(b"\xff\x4f\xff\x51") and len(data) >= 24:
        right, bottom, left, top = struct.unpack_from(">4I", data, 8)
        check_pixels((right - left) * (bottom - top), pixel_limit)
    photo = imagecodecs.htj2k_decode(data)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        # A codestream of somebody else: gray, or of more bits.
        return read_photo(data, pixel_limit=pixel_limit)
    return photo


def _decode_any(data: bytes, pixel_limit: int) -> np.ndarray:
    try:
        opened = open_photo(io.BytesIO(data))
    except Exception:
        # The longer way says what is wrong with it.
        return read_photo(data, pixel_limit=pixel_limit)
    if not (isinstance(opened, Image.Image) and _is_plain(opened, data)):
        return read_photo(data, pixel_limit=pixel_limit)
    check_pixels(opened.width * opened.height, pixel_limit)
    return _PLAIN_DECODERS[opened.format](data)


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether it is stored as upright 8-bit RGB and nothing has to be converted."""
    if image.format not in _PLAIN_DECODERS or image.mode != "RGB":
        return False
    if not is_whole(data, image.format):
        return False
    if "icc_profile" in image.info or "transparency" in image.info:
        return False
    if getattr(image, "is_animated", False):
        return False
    if image.format == "PNG":
        # Other arguments are 16 bits. Orientation may stand after the pixels: Pillow would decode
        # them to learn of it.
        tiles = image.tile  # pyright: ignore[reportAttributeAccessIssue]
        return tiles[0].args == "RGB" and not any(word in data for word in _PNG_EXIF)
    return image.getexif().get(_ORIENTATION, 1) == 1
