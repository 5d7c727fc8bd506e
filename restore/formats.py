"""Pages to the bytes of a file, with their colour profile, EXIF, XMP and resolution.

PNG and TIFF are made by imagecodecs and tifffile: Pillow writes no colour of 16 bits.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, features

from .exif import (
    PREFIX,
    Tag,
    read_directory,
    tags_of_exif,
    with_resolution,
    write_directory,
)
from .page import Page

WRITTEN_AS = {
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pgm": "PGM",
    ".png": "PNG",
    ".pnm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""Formats that pages are written in, by the suffix of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Format:
    deep: bool = False
    alpha: bool = False
    pages: bool = False
    color: bool = True
    profile: bool = True
    side_px: int = 2**31 - 1


_FORMATS = {
    "AVIF": _Format(alpha=True, side_px=65536),
    "BMP": _Format(profile=False),
    "JPEG": _Format(side_px=65500),
    "PGM": _Format(deep=True, color=False, profile=False),
    "PNG": _Format(deep=True, alpha=True),
    "PPM": _Format(deep=True, profile=False),
    "TIFF": _Format(deep=True, alpha=True, pages=True),
    "WEBP": _Format(alpha=True, side_px=16383),
}


def encode_pages(pages: Sequence[Page], format: str, *, quality: int = 95) -> bytes:
    """Return the content of a file that holds the pages.

    Formats without a place for EXIF, XMP or resolution (BMP, PPM, PGM) leave these out; resolution
    goes into the EXIF of WebP and AVIF. A gray page in PPM is written as what programs read under
    that name too, PGM.

    Args:
        pages: One, or for TIFF any number above 0.
        format: One of the values of `WRITTEN_AS`.
        quality: 1 to 100, for JPEG, WebP and AVIF; WebP of quality 100 is lossless.

    Raises:
        ValueError: If the format cannot hold the pages, or is unknown.
    """
    if format not in _FORMATS:
        raise ValueError(f"format must be one of {', '.join(_FORMATS)}, got {format!r}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    if not pages:
        raise ValueError("pages must be at least one, got none")
    _check(pages, format)
    try:
        if format == "TIFF":
            return _encode_tiff(pages)
        if format == "PNG":
            return _encode_png(pages[0])
        if format in ("PPM", "PGM"):
            return _encode_pnm(pages[0])
        return _encode_by_pillow(pages[0], format, quality)
    except (OSError, RuntimeError, struct.error) as error:
        raise ValueError(f"it cannot be written as {format}: {error}") from error


def _check(pages: Sequence[Page], format: str) -> None:
    holds = _FORMATS[format]
    if len(pages) > 1 and not holds.pages:
        raise ValueError(f"{format} holds one page, got {len(pages)}; write TIFF")
    for page in pages:
        if page.pixels.dtype == np.uint16 and not holds.deep:
            raise ValueError(f"{format} holds 8 bits, got 16; write PNG or TIFF")
        if page.alpha is not None and not holds.alpha:
            raise ValueError(f"{format} holds no transparency; write PNG, TIFF or WEBP")
        if page.pixels.ndim == 3 and not holds.color:
            raise ValueError(f"{format} holds only grays, got colours; write PPM or PNG")
        if page.icc_profile is not None and not holds.profile:
            raise ValueError(f"{format} holds no colour profile; write PNG or TIFF")
        if max(page.pixels.shape[:2]) > holds.side_px:
            height, width = page.pixels.shape[:2]
            raise ValueError(
                f"{format} holds sides up to {holds.side_px} px, got {width} x {height}; "
                "write PNG or TIFF"
            )


def _with_alpha(page: Page) -> np.ndarray:
    if page.alpha is None:
        return np.ascontiguousarray(page.pixels)
    return np.dstack((page.pixels, page.alpha))


def _encode_png(page: Page) -> bytes:
    encoded = bytes(imagecodecs.png_encode(_with_alpha(page), level=6))
    chunks = b""
    if page.icc_profile is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(page.icc_profile))
    if page.dpi is not None:
        per_metre = [round(dots / 0.0254) for dots in page.dpi]
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if page.exif is not None:
        chunks += _chunk(b"eXIf", page.exif.removeprefix(PREFIX))
    if page.xmp is not None:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + page.xmp)
    # After the signature (8) and the header (25), before the pixels.
    return encoded[:33] + chunks + encoded[33:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _encode_pnm(page: Page) -> bytes:
    height, width = page.pixels.shape[:2]
    kind = "P5" if page.pixels.ndim == 2 else "P6"
    top = np.iinfo(page.pixels.dtype).max
    values = page.pixels.astype(">u2") if top > 255 else page.pixels
    return f"{kind}\n{width} {height}\n{top}\n".encode() + values.tobytes()


def _encode_by_pillow(page: Page, format: str, quality: int) -> bytes:
    if not features.check({"AVIF": "avif", "WEBP": "webp"}.get(format, "jpg")):
        raise ValueError(f"{format} is not written by this Pillow; install pillow>=11.3")
    values = _with_alpha(page)
    if page.pixels.ndim == 2 and format in ("AVIF", "WEBP"):
        values = np.dstack((page.pixels,) * 3 + (() if page.alpha is None else (page.alpha,)))
    options: dict[str, Any] = {"icc_profile": page.icc_profile, "exif": page.exif}
    if page.xmp is not None:
        options["xmp"] = page.xmp
    match format:
        case "JPEG":
            options |= {"quality": quality, "subsampling": "4:4:4", "dpi": page.dpi}
        case "WEBP":
            options |= {"lossless": quality == 100, "quality": quality, "exact": True, "method": 4}
        case "AVIF":
            options |= {"quality": quality, "subsampling": "4:4:4"}
        case "BMP":
            options = {"dpi": page.dpi}
    if format in ("AVIF", "WEBP") and page.dpi is not None:
        options["exif"] = with_resolution(page.exif, page.dpi)
    if format == "AVIF" and page.icc_profile is None:
        options.pop("icc_profile")
    file = io.BytesIO()
    given = {name: value for name, value in options.items() if value is not None}
    try:
        Image.fromarray(values).save(file, format, **given)
    except ValueError as error:
        # EXIF, XMP or a profile that is too long for the format.
        raise ValueError(f"it cannot be written as {format}: {error}; write PNG") from error
    return file.getvalue()


def _encode_tiff(pages: Sequence[Page]) -> bytes:
    described = [_describe(page) for page in pages]
    # A file has one byte order, and values of EXIF are copied as they are.
    orders = {order for order, _, _ in described if order}
    if len(orders) > 1:
        raise ValueError(
            "TIFF holds one byte order, and the EXIF of the pages has two; write a file each"
        )
    order = orders.pop() if orders else "<"
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=False, byteorder=">" if order == ">" else "<") as writer:
        for page in pages:
            values = _with_alpha(page)
            writer.write(
                values,
                photometric="minisblack" if page.pixels.ndim == 2 else "rgb",
                planarconfig="contig" if values.ndim == 3 else None,
                extrasamples=None if page.alpha is None else ["unassalpha"],
                compression="zlib",
                predictor=True,
                iccprofile=page.icc_profile,
                resolution=page.dpi,
                resolutionunit="NONE" if page.dpi is None else "INCH",
                metadata=None,
                software=False,
            )
    data = bytearray(file.getvalue())
    _tell(data, pages, described, order)
    return bytes(data)


def _describe(page: Page) -> tuple[str, dict[int, Tag], dict[int, dict]]:
    return ("", {}, {}) if page.exif is None else tags_of_exif(page.exif)


def _tell(data: bytearray, pages: Sequence[Page], described: Sequence, order: str) -> None:
    """Give each page of a TIFF its EXIF and XMP: tifffile writes no levels below the first.

    The directories are written anew at the end, the old ones stay as a few hundred idle bytes.
    """
    link = 4
    for page, (_, tags, inner) in zip(pages, described, strict=True):
        directory = read_directory(data, struct.unpack_from(order + "I", data, link)[0], order)
        told = directory.tags | tags
        if page.xmp is not None:
            told[700] = Tag(1, len(page.xmp), page.xmp, 0)
        data += b"\0" * (len(data) % 2)
        struct.pack_into(order + "I", data, link, len(data))
        link = len(data) + 2 + 12 * len({*told, *inner})
        data += write_directory(told, inner, order, len(data), directory.next)
