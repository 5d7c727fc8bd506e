"""Photographs that Pillow does not read, or reads wrongly: by imagecodecs and tifffile.

JPEG XL and JPEG XR, TIFF of floating-point numbers, and TIFF whose 16-bit colours lie in separate
planes. The number of pixels is taken from the header before any are made room for. JPEG-LS is left
out: its decoder takes minutes over a few damaged bytes.

JPEG XL and XR are taken as sRGB: their decoders here do not give the profile.
"""

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import imagecodecs
import numpy as np
import tifffile
from PIL import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncommon:
    """A photograph that has been recognised and not decoded yet."""

    height: int
    width: int
    decode: Callable[[], np.ndarray]
    """Makes the array (H, W) or (H, W, 1 to 4), of unsigned integers or floating point."""
    mode: str | None = None
    """Pillow's name for what the channels are; None: L, LA, RGB or RGBA by their number."""
    info: dict[str, bytes] = field(default_factory=dict)
    orientation: int = 1
    """EXIF orientation that has yet to be applied."""

    def load(self) -> Image.Image:
        """Decode into a Pillow image of 8 bits, with orientation and profile as Pillow has them."""
        values = _to_8_bit(self.decode())
        values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        image = Image.fromarray(values, self.mode) if self.mode else Image.fromarray(values)
        image.info.update(self.info)
        if self.orientation in range(2, 9):
            image.getexif()[0x0112] = self.orientation
        return image


def recognise(data: bytes) -> Uncommon | None:
    """Return the photograph in `data` by its first bytes; None if it is of no kind known here.

    Raises:
        ValueError: If it is of a known kind and its header is damaged.
    """
    try:
        if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
            height, width = _measure_jxl(data)
            return Uncommon(
                height=height, width=width, decode=lambda: imagecodecs.jpegxl_decode(data, index=0)
            )
        if data.startswith(b"II\xbc\x01"):
            height, width = _measure_jxr(data)
            return Uncommon(
                height=height, width=width, decode=lambda: imagecodecs.jpegxr_decode(data)
            )
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return _open_tiff(data)
    except (IndexError, KeyError, struct.error, tifffile.TiffFileError) as error:
        raise ValueError(f"its header is damaged ({error})") from error
    return None


def is_misread(image: Image.Image) -> bool:
    """Whether Pillow would silently make noise of it: planes of more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    return (
        image.format == "TIFF"
        and tags.get(284) == 2
        and max(tags.get(258, (8,))) > 8
        and len(image.getbands()) > 1
    )


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _measure_jxl(data: bytes) -> tuple[int, int]:
    """Height and width by the header of the codestream (ISO/IEC 18181-1, SizeHeader)."""
    bits = int.from_bytes(_jxl_codestream(data)[2:18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio:
        across, down = _JXL_RATIOS[ratio - 1]
        return height, height * across // down
    return height, side()


def _jxl_codestream(data: bytes) -> bytes:
    """Return the bare codestream's beginning, out of its container if it lies in one."""
    place = 0
    while data[place : place + 2] != b"\xff\x0a":
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", data[place + 8 : place + 16])
            header = 16
        if kind in (b"jxlc", b"jxlp"):
            # A partial one begins with its number.
            place += header + (4 if kind == b"jxlp" else 0)
            return data[place : place + 64]
        if size < header:
            raise ValueError("its header is damaged (no codestream)")
        place += size
    return data[place : place + 64]


def _measure_jxr(data: bytes) -> tuple[int, int]:
    """Height and width by the image file directory (ITU-T T.832, A.7)."""
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    sides: dict[int, int] = {}
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        sides[tag] = struct.unpack_from("<H" if kind == 3 else "<I", data, entry + 8)[0]
    return sides[0xBC81], sides[0xBC80]


_TIFF_MODES = {
    ("MINISBLACK", 1): "L",
    ("RGB", 3): "RGB",
    ("RGB", 4): "RGBA",
    ("SEPARATED", 4): "CMYK",
}


def _open_tiff(data: bytes) -> Uncommon | None:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        mode = _TIFF_MODES.get((getattr(page.photometric, "name", ""), page.samplesperpixel))
        profile = page.tags.valueof(34675)
        orientation = page.tags.valueof(274, 1)
        height, width = page.imagelength, page.imagewidth
    if mode is None:
        return None

    def decode() -> np.ndarray:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            values = file.pages.first.asarray()
        return values.transpose(1, 2, 0) if values.shape[:2] != (height, width) else values

    return Uncommon(
        height=height,
        width=width,
        decode=decode,
        mode=mode,
        info={"icc_profile": profile} if profile else {},
        orientation=orientation,
    )


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype.kind == "u":
        top = float(np.iinfo(values.dtype).max)
    elif values.dtype.kind == "f":
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        # There is no agreed range: what goes beyond 1 is scaled.
        top = max(float(values.max(initial=0.0)), 1.0)
    else:
        raise ValueError(f"pixels of type {values.dtype} are none of a photograph")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        scaled = values.astype(np.float32) * np.float32(255.0 / top) + np.float32(0.5)
    return scaled.clip(0, 255).astype(np.uint8)
