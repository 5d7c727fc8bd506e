"""Photos and shards to measure on where the user gives none: smooth pictures with some noise.

Codecs find them about as hard as photographs (HTJ2K 2.3 bytes of 3 a pixel at this noise). What
they show does not matter to anyone here.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from agedphoto.datasets import Format, encode_photo, find_photos, read_photo, write_shards

NOISE = 4.0
"""Levels of 255."""


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write photos of (height, width) as PNG."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(make_photo(number, size)).save(
            folder / f"{number:04d}.png", compress_level=1
        )
    return folder


def make_photo(number: int, size: tuple[int, int]) -> np.ndarray:
    """Return photo `number`, uint8 (H, W, 3)."""
    generator = np.random.default_rng(number)
    height, width = size
    rough = generator.integers(0, 256, (12, 18, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))
    noise = generator.standard_normal(soft.shape, dtype=np.float32) * np.float32(NOISE)
    return (soft + noise).clip(0, 255).astype(np.uint8)


def make_shards(
    photos: Path, shards: Path, format: Format = "htj2k", *, least_shards: int = 1
) -> str:
    """Write shards of a folder of photos, at least so many as far as there are photos."""
    found = find_photos(photos)
    count = min(least_shards, len(found))
    # Shards are cut by size, which two photos tell well enough.
    size = sum(len(encode_photo(read_photo(path), format)) for path in found[:2]) * len(found) // 2
    shard_bytes = 256_000_000 if count == 1 else max(1, size // (2 * count))
    write_shards(found, shards, root=photos, format=format, shard_bytes=shard_bytes)
    return str(shards)


def enough_photos(photos: Path, folder: Path, count: int) -> Path:
    """Return a folder with at least so many photos: the given ones, as often as it takes."""
    found = find_photos(photos)
    if len(found) >= count:
        return photos
    folder.mkdir(parents=True)
    for number in range(count):
        source = found[number % len(found)]
        place = folder / f"{number:04d}{source.suffix.lower()}"
        try:
            place.symlink_to(source.resolve())
        except OSError:
            shutil.copyfile(source, place)
    return folder
