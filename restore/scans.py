"""Scans: files of pictures to pages that keep their depth, and what was told about them.

Whether a scan has 16 bits is read in its header, never guessed from its values: dark ones would
become wrong. Pillow cuts colour of 16 bits to 8, so such PNG, TIFF and PNM are read here by others.
"""

import io
import re
import struct
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from ..datasets.photos import (
    PIXEL_LIMIT,
    TooManyPixelsError,
    check_pixels,
    open_photo,
    to_srgb,
)
from ..datasets.uncommon import Uncommon
from .exif import (
    PREFIX,
    exif_of_tiff,
    read_directory,
    resolution_of,
    resolution_of_exif,
    turn_exif,
)
from .formats import WRITTEN_AS, encode_pages
from .page import Page

__all__ = ["PIXEL_LIMIT", "WRITTEN_AS", "Page", "encode_pages", "read_pages"]


_XMP_ORIENTATION = rb"""(tiff:Orientation(?:=["']|>))([1-8])"""


def read_pages(source: Path | bytes, *, pixel_limit: int = PIXEL_LIMIT) -> list[Page]:
    """Read all pages of a TIFF, or the one picture of any other file; of an animation the first.

    CMYK, LAB and YCbCr become sRGB of 8 bits, palettes RGB or gray; floating point becomes 16 bits
    where TIFF has it. Reduced copies and masks in a TIFF are no pages.

    Raises:
        ValueError: If it cannot be read, or its pages have more than `pixel_limit` pixels together;
            the message begins with its name.
    """
    name = "photograph" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return _read_tiff(data, pixel_limit)
        return [_read_one(data, pixel_limit)]
    except TooManyPixelsError as error:
        raise TooManyPixelsError(f"{name}: {error}") from error
    # All: what a dozen readers raise on damaged files is not written down anywhere.
    except Exception as error:
        raise ValueError(f"{name}: {str(error) or type(error).__name__}") from error


def _read_one(data: bytes, pixel_limit: int) -> Page:
    if found := _measure_deep_pnm(data):
        check_pixels(found[1] * found[2], pixel_limit)
        return Page(pixels=_decode_deep_pnm(data, *found))
    # Never by its path: Pillow would map an uncompressed file into memory, and turn it wrongly.
    image = open_photo(io.BytesIO(data))
    check_pixels(image.width * image.height, pixel_limit)
    if isinstance(image, Uncommon):
        pixels, alpha = _split(_to_depth(image.decode()))
        return Page(pixels=pixels, alpha=alpha)
    deep = image.format == "PNG" and data[24] == 16
    if deep and _tells_late(data):
        image.load()
    if deep:
        pixels, alpha = _split(np.asarray(imagecodecs.png_decode(data)))
        profile = image.info.get("icc_profile")
    else:
        pixels, alpha, profile = _to_arrays(image)
    exif = image.info.get("exif")
    if exif is None and image.format == "PNG" and "Raw profile type exif" in image.info:
        exif = image.getexif().tobytes()
    page = Page(
        pixels=pixels,
        alpha=alpha,
        icc_profile=profile or None,
        exif=PREFIX + exif.removeprefix(PREFIX) if exif else None,
        xmp=_as_bytes(image.info.get("xmp")),
        dpi=_as_dpi(image.info.get("dpi")),
    )
    return _turn_page(page)


def _tells_late(data: bytes) -> bool:
    """Whether a PNG has something about the photograph after its pixels, where Pillow finds it only
    when it decodes them.
    """
    place, after = 8, False
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if after and kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
            return True
        after |= kind == b"IDAT"
        place += 12 + length
    return False


def _read_tiff(data: bytes, pixel_limit: int) -> list[Page]:
    pages: list[Page] = []
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        listed = [page.aspage() for page in file.pages]
        # Bit 0 of the type: a smaller copy of another page. Bit 2: a mask.
        kept = [index for index, page in enumerate(listed) if not page.subfiletype & 0b101]
        kept = kept or [0]
        sizes = [listed[index].imagelength * listed[index].imagewidth for index in kept]
        check_pixels(sum(sizes), pixel_limit)
        image = None
        for index in kept:
            page = listed[index]
            order, big = file.byteorder, file.is_bigtiff
            tags = read_directory(data, page.offset, order, big=big).tags
            profile = tags[34675].value if 34675 in tags else None
            plain = _is_plain(page)
            if plain:
                pixels, alpha = _decode_tiff(page, len(data))
            else:
                image = _open_tiff(data) if image is None else image
                image.seek(index)
                pixels, alpha, profile = _to_arrays(image)
            read = Page(
                pixels=pixels,
                alpha=alpha,
                icc_profile=profile or None,
                exif=exif_of_tiff(data, page.offset, order, big=big),
                xmp=_as_bytes(tags[700].value) if 700 in tags else None,
                dpi=_as_dpi(resolution_of(tags, order)),
            )
            pages.append(_turn_page(read, turned=not plain))
    return pages


def _open_tiff(data: bytes) -> Image.Image:
    image = open_photo(io.BytesIO(data))
    if isinstance(image, Uncommon):
        raise ValueError("such a TIFF is not read here; convert it to PNG")
    return image


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Whether it is gray or RGB of whole bytes or more; Pillow reads what is left."""
    return page.bitspersample >= 8 and page.photometric in (0, 1, 2)


def _decode_tiff(page: tifffile.TiffPage, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    ends = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(start + length > size for start, length in ends):
        raise ValueError("the file is truncated")
    if page.samplesperpixel > 8:
        raise ValueError(f"{page.samplesperpixel} channels are none of a photograph")
    values = page.asarray()
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        values = values.transpose(1, 2, 0)
    if page.photometric == 0 and values.dtype.kind == "u":
        values = (1 << page.bitspersample) - 1 - values
    values = _to_depth(values, page.bitspersample)
    colors = 3 if page.photometric == 2 else 1
    if values.ndim == 2:
        return values, None
    pixels = values[..., :3] if colors == 3 else values[..., 0]
    kind = page.extrasamples[0] if page.extrasamples else 0
    if kind not in (1, 2):
        return np.ascontiguousarray(pixels), None
    alpha = values[..., colors]
    if kind == 1:
        # Colours that were multiplied by it.
        top = np.iinfo(alpha.dtype).max
        over = np.maximum(alpha, 1).astype(np.float64)
        scaled = pixels * (top / over[..., None] if colors == 3 else top / over) + 0.5
        pixels = scaled.clip(0, top).astype(alpha.dtype)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(alpha)


def _to_depth(values: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Bring numbers of any kind to uint8 or uint16, their full range to its full range."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0).astype(np.float64)
        # There is no agreed range: what goes beyond 1 is scaled.
        top = max(float(values.max(initial=0.0)), 1.0)
        return (values.clip(0, top) * (65535 / top) + 0.5).astype(np.uint16)
    if values.dtype.kind != "u":
        raise ValueError(f"pixels of type {values.dtype} are none of a photograph")
    bits = bits or values.dtype.itemsize * 8
    if bits in (8, 16):
        return values.astype(np.uint8 if bits == 8 else np.uint16)
    top = (1 << bits) - 1
    return (values.astype(np.float64) * (65535 / top) + 0.5).astype(np.uint16)


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Part pixels from alpha, by the number of channels."""
    if values.ndim == 2:
        return values, None
    channels = values.shape[2]
    alpha = np.ascontiguousarray(values[..., -1]) if channels in (2, 4) else None
    pixels = values[..., 0] if channels < 3 else values[..., :3]
    return np.ascontiguousarray(pixels), alpha


def _to_arrays(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, bytes | None]:
    """Decode; return pixels, alpha and the profile that still holds."""
    image.load()
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16), None, profile
    if image.mode == "P":
        gray = _is_gray_palette(image) and (profile is None or profile[16:20] != b"RGB ")
        clear = image.has_transparency_data
        image = image.convert("RGBA" if clear else "RGB")
        if gray:
            red, alpha = image.getchannel(0), image.getchannel(3) if clear else None
            return np.array(red), None if alpha is None else np.array(alpha), profile
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = _must(ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
        profile = None
    if image.mode == "1":
        image = image.convert("L")
    if image.has_transparency_data:
        gray = image.mode in ("L", "LA", "La")
        pixels, alpha = _split(np.array(image.convert("LA" if gray else "RGBA")))
        return pixels, alpha, profile
    if image.mode not in ("L", "RGB"):
        gray = image.mode in ("I", "F")
        image = to_srgb(image).convert("L" if gray else "RGB")
        profile = profile if gray else None
    return np.array(image), None, profile


def _must(image: Image.Image | None) -> Image.Image:
    assert image is not None
    return image


def _is_gray_palette(image: Image.Image) -> bool:
    palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _turn_page(page: Page, *, turned: bool = False) -> Page:
    """Turn it upright by its EXIF, else its XMP, and make both say so.

    `turned`: the pixels are upright already; Pillow turns TIFF by itself.
    """
    exif, orientation = (None, None) if page.exif is None else turn_exif(page.exif)
    xmp = page.xmp
    if xmp is not None:
        said = re.search(_XMP_ORIENTATION, xmp)
        orientation = int(said[2]) if said and orientation is None else orientation
        xmp = re.sub(_XMP_ORIENTATION, rb"\g<1>1", xmp)
    orientation = orientation or 1
    dpi = page.dpi
    if dpi is None and exif is not None:
        dpi = _as_dpi(resolution_of_exif(exif))
    elif dpi is not None and orientation > 4:
        dpi = dpi[::-1]
    applied = 1 if turned else orientation
    return replace(
        page,
        pixels=_turn(page.pixels, applied),
        alpha=None if page.alpha is None else _turn(page.alpha, applied),
        exif=exif,
        xmp=xmp,
        dpi=dpi,
    )


def _turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an orientation of the EXIF standard to (H, W) or (H, W, 3)."""
    if orientation in range(5, 9):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _measure_deep_pnm(data: bytes) -> tuple[bytes, int, int, int, int] | None:
    """Return kind, width, height, maximum and where the pixels begin, if a PGM or PPM has more than
    8 bits.
    """
    gap = rb"(?:\s|#[^\n]*\n)+"
    header = rb"(P[2356])" + gap + rb"(\d+)" + gap + rb"(\d+)" + gap + rb"(\d+)\s"
    found = re.match(header, data[:4096])
    if found is None:
        return None
    width, height, top = (int(found[group]) for group in (2, 3, 4))
    if not 255 < top < 65536:
        return None
    return found[1], width, height, top, found.end()


def _decode_deep_pnm(
    data: bytes, kind: bytes, width: int, height: int, top: int, start: int
) -> np.ndarray:
    shape = (height, width, 3) if kind in (b"P3", b"P6") else (height, width)
    count = int(np.prod(shape))
    if kind in (b"P5", b"P6"):
        if len(data) - start < 2 * count:
            raise ValueError("the file is truncated")
        values = np.frombuffer(data, ">u2", count, start)
    else:
        words = re.sub(rb"#[^\n]*", b"", data[start:]).split()
        if len(words) < count:
            raise ValueError("the file is truncated")
        values = np.array(words[:count], dtype=np.uint32)
    if int(values.max(initial=0)) > top:
        raise ValueError(f"a value is above its maximum of {top}")
    scaled = values if top == 65535 else (values.astype(np.float64) * (65535 / top) + 0.5)
    return scaled.astype(np.uint16).reshape(shape)


def _as_bytes(xmp: object) -> bytes | None:
    text = xmp.encode() if isinstance(xmp, str) else xmp
    return text.rstrip(b"\0") or None if isinstance(text, bytes) else None


def _as_dpi(dpi: object) -> tuple[float, float] | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    across, down = (float(value) for value in dpi)
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
