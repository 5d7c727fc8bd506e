"""Photographs on disk: finding them, and reading them as upright 8-bit sRGB.

Read as a person sees them: EXIF orientation applied, embedded ICC profile converted to sRGB,
transparency laid on white, the first frame of an animation, 16-bit gray rounded to 8 bits (Pillow
cuts 16-bit colour to 8 itself). What Pillow cannot read, `uncommon` may.
"""

import importlib
import io
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .uncommon import Uncommon, is_misread, recognise

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
PHOTO_SUFFIXES = HEIF_SUFFIXES | frozenset(
    {".avif", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jhc", ".jp2", ".jpc", ".jpe"}
    | {".jpeg", ".jpf", ".jpg", ".jph", ".jpx", ".jxl", ".jxr", ".mpo", ".pbm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".wdp", ".webp"}
)
"""Names of what is looked for in folders. HEIF is among them though nothing here may read it: who
has such photographs is to hear of each."""
PIXEL_LIMIT = 250_000_000
"""Photographs with more pixels are refused: a small file can claim any size."""

_UNREADABLE = (
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    OverflowError,
    MemoryError,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise on damaged files, by experience more than by its documentation."""

_HEIF_BRANDS = {b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")}

_PILLOW_LIMIT = threading.Lock()


class TooManyPixelsError(ValueError):
    """A photograph claims more pixels than are allowed."""


def find_photos(sources: Path | Sequence[Path], *, recursive: bool = True) -> list[Path]:
    """List the photographs named or lying in folders, by suffix, in sorted order, each once.

    Hidden files and folders are passed over. A file named outright is listed whatever its suffix.

    Raises:
        ValueError: If a source does not exist, or none holds a photograph.
    """
    sources = [sources] if isinstance(sources, Path) else list(sources)
    found: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            inside = source.rglob("*") if recursive else source.glob("*")
            found.update(dict.fromkeys(sorted(path for path in inside if _is_photo(path, source))))
        elif source.exists():
            found[source] = None
        else:
            raise ValueError(f"no such file or folder: {source}")
    if not found:
        suffixes = " ".join(sorted(PHOTO_SUFFIXES))
        raise ValueError(f"no photographs in {', '.join(map(str, sources))}; looked for {suffixes}")
    return list(found)


def read_photo(
    source: Path | bytes, *, pixel_limit: int = PIXEL_LIMIT
) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photograph as upright 8-bit sRGB.

    Raises:
        ValueError: If it cannot be read or has more than `pixel_limit` pixels; the message begins
            with its name.
    """
    image = open_upright(source, pixel_limit=pixel_limit)
    try:
        return np.array(to_srgb(image), dtype=np.uint8)
    except _UNREADABLE as error:
        raise ValueError(f"{_name(source)}: {_reason(error)}") from error


def open_upright(source: Path | bytes, *, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """Open and load a photograph in its own mode, its EXIF orientation applied and reset.

    Raises:
        ValueError: As `read_photo`.
    """
    try:
        # Never by its path: Pillow would map an uncompressed file into memory, and turn it wrongly.
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            opened = open_photo(file)
            check_pixels(opened.width * opened.height, pixel_limit)
            if isinstance(opened, Uncommon):
                return _turn_upright(opened.load())
            opened.load()
            return _turn_upright(opened)
    except TooManyPixelsError as error:
        raise TooManyPixelsError(f"{_name(source)}: {error}") from error
    except _UNREADABLE as error:
        raise ValueError(f"{_name(source)}: {_reason(error)}") from error


def open_photo(file: IO[bytes]) -> Image.Image | Uncommon:
    """Read the header of a photograph; what is returned has `height` and `width` as stored.

    Raises:
        UnidentifiedImageError: If nothing here reads such a file.
        Exception: Whatever Pillow raises on damaged ones.
    """
    with suppress(UnidentifiedImageError):
        image = _open(file)
        if not is_misread(image):
            return image
    file.seek(0)
    data = file.read()
    if data[4:12] in _HEIF_BRANDS:
        return _open_heif(data)
    if (found := recognise(data)) is None:
        raise UnidentifiedImageError("not a picture that can be read here")
    return found


def measure_photo(data: bytes) -> tuple[int, int]:
    """Return height and width as the header says, before any turning; nothing is decoded.

    Raises:
        ValueError: If the header cannot be read.
    """
    try:
        opened = open_photo(io.BytesIO(data))
    except _UNREADABLE as error:
        raise ValueError(_reason(error)) from error
    return opened.height, opened.width


def check_pixels(pixels: int, pixel_limit: int) -> None:
    """Raise TooManyPixelsError if a photograph claims more pixels than are allowed."""
    if pixels > pixel_limit:
        raise TooManyPixelsError(f"{pixels:,} pixels are more than the limit of {pixel_limit:,}")


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode and profile to mode RGB in sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        image = _apply_profile(image, profile)
    return image.convert("RGB")


def name_photos(paths: Iterable[Path], root: Path | None = None) -> list[str]:
    """Give each photograph a short unique key of letters, digits, `-` and `_`.

    WebDataset splits names at the first dot, so there is none in a key. The key is the path below
    `root` without its suffix; a second photograph of the same key gets `_2`, and so on.
    """
    return name_keys(
        (
            path.relative_to(root) if root and path.is_relative_to(root) else Path(path.name)
        ).as_posix()
        for path in paths
    )


def name_keys(names: Iterable[str]) -> list[str]:
    """Give each photograph its key, as `name_photos` does, by its name with slashes."""
    keys: list[str] = []
    taken: set[str] = set()
    last: Counter[str] = Counter()
    for name in names:
        # 80 characters leave room in a tar header for a number and the suffix.
        plain = "-".join(PurePosixPath(name).with_suffix("").parts)[-80:]
        base = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in plain)
        key, count = base, last[base]
        while not count or key in taken:
            count += 1
            key = base if count == 1 else f"{base}_{count}"
        last[base] = count
        taken.add(key)
        keys.append(key)
    return keys


def _is_photo(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in PHOTO_SUFFIXES and not hidden and path.is_file()


def _open(source: IO[bytes]) -> Image.Image:
    """Open without Pillow's own limit of pixels, which is lower than ours and warns on stderr."""
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open_heif(data: bytes) -> Image.Image:
    try:
        # An extra of the user's: its decoders are under licences that we do not bring along.
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise UnidentifiedImageError(
            "HEIF is not read here; install pillow-heif, or convert it to JPEG"
        ) from error
    return _open(io.BytesIO(data))


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _UNREADABLE:
        # EXIF that cannot be read says nothing; viewers ignore it too.
        return image.copy()


def _to_8_bit(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    # 16-bit scans arrive as I;16, or as I with values up to 65535; F has no agreed range.
    top = 65535.0 if image.mode.startswith("I") else max(float(values.max(initial=0.0)), 1.0)
    return Image.fromarray((values.clip(0, top) * (255.0 / top) + 0.5).astype(np.uint8), "L")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):
        # A profile that does not fit its picture tells nothing; viewers ignore it too.
        return image
    return converted if converted is not None else image


def _name(source: Path | bytes) -> str:
    return "photograph" if isinstance(source, bytes) else str(source)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
