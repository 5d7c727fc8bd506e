"""From a photograph as it was found to the bytes that a shard holds of it."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from .ahead import MemoryBudget
from .codecs import CODECS, EXTENSIONS, StoredFormat, check_stored_format, encode_photo
from .inputs import PhotoInput
from .photos import PIXEL_LIMIT, check_pixels, measure_photo, read_photo


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions:
    """How photographs are stored."""

    format: StoredFormat = "htj2k"
    """All but `jpeg` are lossless; `keep` leaves the bytes as they are."""
    quality: int = 95
    """1 to 100, for `jpeg`."""
    shard_bytes: int = 256_000_000
    """A shard whose photographs have reached this size is closed; at least 1."""
    pixel_limit: int = PIXEL_LIMIT
    """Larger photographs are rejected."""

    def __post_init__(self) -> None:
        check_stored_format(self.format)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100, got {self.quality}")
        if self.shard_bytes < 1:
            raise ValueError(f"shard_bytes must be at least 1, got {self.shard_bytes}")

    def as_plan(self) -> dict[str, object]:
        """Return what makes a difference to the bytes."""
        quality = {"quality": self.quality} if self.format == "jpeg" else {}
        return {
            "format": self.format,
            **quality,
            "shard_bytes": self.shard_bytes,
            "pixel_limit": self.pixel_limit,
        }


@dataclass(frozen=True, slots=True)
class EncodedPhoto:
    """A photograph as it goes into a shard."""

    key: str
    extension: str
    data: bytes
    facts: bytes
    """The json beside it: height, width, source and sha256."""
    crc32: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class PhotoEncoder:
    """Reads a photograph and makes what is stored of it; what cannot be read, a reason."""

    options: ShardOptions
    decoding: MemoryBudget

    def __call__(self, item: tuple[PhotoInput, str]) -> EncodedPhoto | str:
        """Encode a photograph under the key given with it; the reason if that cannot be done."""
        photo, key = item
        try:
            return self._encode(photo, key)
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        except ValueError as error:
            return str(error).removeprefix("photograph: ")

    def _encode(self, photo: PhotoInput, key: str) -> EncodedPhoto:
        format, limit = self.options.format, self.options.pixel_limit
        suffix = PurePosixPath(photo.name).suffix.lower().removeprefix(".")
        if format == "keep" and suffix not in EXTENSIONS:
            raise ValueError(
                f"a photograph cannot be kept as it is under the suffix {suffix!r}; rename it or "
                "use another format"
            )
        data = photo.read()
        height, width = measure_photo(data)
        check_pixels(height * width, limit)
        with self.decoding.hold(3 * height * width):
            pixels = read_photo(data, pixel_limit=limit)
            height, width, _ = pixels.shape
            if format != "keep":
                data = encode_photo(pixels, format, quality=self.options.quality)
        facts = {
            "width": width,
            "height": height,
            "source": photo.name,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        return EncodedPhoto(
            key=key,
            extension=suffix if format == "keep" else CODECS[format].extension,
            data=data,
            facts=json.dumps(facts, sort_keys=True).encode(),
            crc32=zlib.crc32(data),
            height=height,
            width=width,
        )
