"""Plain photographs: what the header must say before a decoder may be trusted with the pixels.

Plain is a photograph whose stored samples are its pixels: three channels of 8 bits, nothing to
turn, no profile, nothing transparent, one frame. For such a file every decoder means the same;
what to make of all others is decided in one place, `decode_photo`. Whatever is not understood is
not plain, so a mistake here costs speed and never pixels.
"""

import struct
import zlib
from collections.abc import Callable

from PIL import Image

Size = tuple[int, int]

_EXIF_ORIENTATION = 0x0112


def plain_size(data: bytes, extension: str) -> Size | None:
    """Return (height, width) of a plain photograph by its header, None for any other.

    Plain are HTJ2K codestreams without loss, PNG, WebP without loss, and JPEG in YCbCr. Where the
    file is cut short it is not plain; of damage in its midst the header says nothing.
    """
    read = _READERS.get(extension)
    try:
        return read(data) if read else None
    except (struct.error, IndexError):
        return None


def is_whole(data: bytes, format: str | None) -> bool:
    """Whether a file of Pillow's format JPEG or PNG is all there; of others nothing is said.

    The decoder of JPEG fills in what is missing, and that of PNG loses memory over it.
    """
    if format == "JPEG":
        return data.endswith(b"\xff\xd9")
    return format != "PNG" or _png_is_whole(data)


def _png_is_whole(data: bytes) -> bool:
    place, kind = 8, b""
    while kind != b"IEND":
        if place + 12 > len(data):
            return False
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if place > len(data) or not _agrees(data, place, length):
            return False
    return True


def _htj2k_size(data: bytes) -> Size | None:
    """Of a raw codestream (ISO/IEC 15444-1, annex A), high-throughput and reversible."""
    if not data.startswith(b"\xff\x4f\xff\x51") or not data.endswith(b"\xff\xd9"):
        return None
    width, height, left, top = struct.unpack_from(">4I", data, 8)
    channels = struct.unpack_from(">H", data, 40)[0]
    if (left, top, channels) != (0, 0, 3) or data[42:51] != 3 * b"\x07\x01\x01":
        return None
    place, lossless = 4 + struct.unpack_from(">H", data, 4)[0], False
    while (marker := data[place : place + 2]) != b"\xff\x90":  # the first tile
        if marker == b"\xff\x52":
            style, transform = data[place + 12], data[place + 13]
            lossless = style == 0x40 and transform == 1
        elif marker not in (b"\xff\x50", b"\xff\x55", b"\xff\x5c", b"\xff\x64"):
            # A channel of its own coding, or whatever else is not ours.
            return None
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return (height, width) if lossless else None


def _png_size(data: bytes) -> Size | None:
    if not data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if data[24:29] != b"\x08\x02\0\0\0":  # 8 bits, RGB, not interlaced
        return None
    place = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 40]
        if kind in (b"tEXt", b"zTXt"):
            # ImageMagick and some cameras hide EXIF and XMP in texts.
            if content.startswith((b"Raw profile", b"XML:")):
                return None
        elif kind not in (b"IHDR", b"IDAT", b"IEND", b"cHRM", b"gAMA", b"pHYs", b"sRGB", b"tIME"):
            return None
        place += 12 + length
        # imagecodecs leaks the picture of a file that it cannot decode, so none may get there.
        if place > len(data) or not _agrees(data, place, length):
            return None
        if kind == b"IEND":
            return height, width


def _agrees(data: bytes, end: int, length: int) -> bool:
    """Whether the chunk of PNG that ends here has the checksum that it says."""
    begin = end - 8 - length
    return struct.unpack_from(">I", data, end - 4)[0] == zlib.crc32(data[begin : end - 4])


def _webp_size(data: bytes) -> Size | None:
    """Of the simple lossless kind; the extended one may hold a profile, EXIF, alpha, frames."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or data[20] != 0x2F:
        return None
    length = struct.unpack_from("<I", data, 16)[0]
    if len(data) != 20 + length + length % 2:
        return None
    bits = struct.unpack_from("<I", data, 21)[0]
    if bits >> 28:  # alpha, or a version that is not there yet
        return None
    return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1


def _jpeg_size(data: bytes) -> Size | None:
    if not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9"):
        return None
    place, size, has_exif = 2, None, False
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        length = struct.unpack_from(">H", data, place + 2)[0]
        content = data[place + 4 : place + 2 + length]
        if marker == 0xDA:  # the scan
            return size
        if marker in (0xC0, 0xC1, 0xC2):  # Huffman-coded: baseline, extended, progressive
            depth, height, width, channels = struct.unpack_from(">BHHB", content)
            # By these numbers libjpeg takes them for YCbCr.
            if depth != 8 or channels != 3 or content[6:15:3] != b"\x01\x02\x03" or not height:
                return None
            size = height, width
        elif 0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
        elif marker == 0xE1:
            is_exif = content.startswith(b"Exif\0\0")
            if (has_exif and is_exif) or _is_turned(content):
                return None
            has_exif = has_exif or is_exif
        elif marker == 0xE2 and content.startswith((b"ICC_PROFILE\0", b"MPF\0")):
            return None
        elif marker == 0xEE and content.startswith(b"Adobe") and content[11:12] != b"\1":
            return None  # RGB
        place += 2 + length
    return None


def _is_turned(content: bytes) -> bool:
    """Whether an APP1 segment says that the picture does not lie as it is to be seen."""
    if not content.startswith(b"Exif\0\0"):
        return b"Orientation" in content  # XMP
    exif = Image.Exif()
    try:
        exif.load(content)
        return exif.get(_EXIF_ORIENTATION, 1) != 1
    except Exception:
        # Damaged EXIF raises a bit of everything in Pillow; then it is not for us to say.
        return True


_READERS: dict[str, Callable[[bytes], Size | None]] = {
    "j2c": _htj2k_size,
    "png": _png_size,
    "webp": _webp_size,
    "jpg": _jpeg_size,
    "jpeg": _jpeg_size,
}
