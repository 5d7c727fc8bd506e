"""Writing shards: photographs into WebDataset tars with an index beside them.

Nothing under its final name is ever incomplete: a shard is written under a temporary name and
renamed, `index.json` comes last, and a run that fails takes its shards away again.
The same photographs in the same order give the same bytes.
"""

import hashlib
import json
import os
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm
from webdataset.writer import TarWriter

from .codecs import CODECS, Format, check_format, encode_photo
from .files import check_writable, replacing, write_bytes
from .index import INDEX_NAME, Sample, Shard, ShardIndex
from .photos import PIXEL_LIMIT, name_photos, read_photo
from .sources import open_index

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardingResult:
    """What became of the photographs."""

    index: ShardIndex
    """Of everything in the folder, other splits included."""
    written: int
    """Photographs in the new shards."""
    rejected: tuple[tuple[Path, str], ...]
    """Photographs that could not be read, and why."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    key: str
    data: bytes
    height: int
    width: int
    source: str


def write_shards(
    photos: Sequence[Path],
    out: Path,
    *,
    split: str = "train",
    root: Path | None = None,
    format: Format = "htj2k",
    quality: int = 95,
    shard_bytes: int = 256_000_000,
    pixel_limit: int = PIXEL_LIMIT,
    num_threads: int | None = None,
    progress: bool = False,
) -> ShardingResult:
    """Write photographs into `out` as one split.

    Args:
        photos: Files to read, see `find_photos`.
        out: Folder; made if needed. Splits already in it stay.
        split: Its name, of lower-case letters, digits and `_`.
        root: Folder that keys and source names are relative to; None takes file names.
        format: How photographs are stored; all but `jpeg` are lossless.
        quality: 1 to 100, for `jpeg`.
        shard_bytes: A shard that has reached this size is closed; at least 1.
        pixel_limit: Larger photographs are rejected.
        num_threads: Encoders at work; None is one a core.
        progress: Show a progress bar.

    Raises:
        ValueError: If an argument is out of range, the split or tars of its name are there
            already, no photograph can be read, or `out` cannot be written. Then nothing is left
            behind.
        OSError: If writing fails half-way, as on a full disk. Nothing is left behind either.
    """
    codec = CODECS[check_format(format)]
    _check_arguments(photos, split, quality, shard_bytes)
    is_new = not out.exists()
    check_writable(out)
    before = open_index(out) if (out / INDEX_NAME).exists() else None
    if before and split in before.splits:
        raise ValueError(f"{out} already holds the split {split!r}; choose another folder or split")
    if strangers := sorted(out.glob(f"{split}-*.tar")):
        raise ValueError(
            f"{strangers[0]} is there already and in no index; delete it or choose another folder "
            "or split"
        )

    def encode(item: tuple[Path, str]) -> _Encoded | tuple[Path, str]:
        path, key = item
        try:
            photo = read_photo(path, pixel_limit=pixel_limit)
        except ValueError as error:
            return path, str(error)
        try:
            data = encode_photo(photo, format, quality=quality)
        except ValueError as error:
            return path, f"{path}: {error}"
        source = path.relative_to(root) if root and path.is_relative_to(root) else Path(path.name)
        return _Encoded(key, data, photo.shape[0], photo.shape[1], source.as_posix())

    rejected: list[tuple[Path, str]] = []
    named = list(zip(photos, name_photos(photos, root), strict=True))
    shards = list(before.shards) if before else []
    samples = before.samples() if before else []
    num_before = len(samples)
    written: list[Path] = []
    num_threads = num_threads or os.cpu_count() or 1
    try:
        with ThreadPoolExecutor(num_threads, "encode") as threads:
            outcomes = map_ahead(threads, encode, named, ahead=2 * num_threads)
            bar = tqdm(outcomes, "shard", len(named), unit="photo", disable=not progress)
            good = _sift(bar, rejected)
            for number, group in enumerate(_cut(good, shard_bytes)):
                path = out / f"{split}-{number:06d}.tar"
                written.append(path)
                shard, rows = _write_shard(path, split, len(shards), group, codec.extension)
                shards.append(shard)
                samples.extend(rows)
        if len(samples) == num_before:
            raise ValueError(
                f"none of {len(named)} photographs could be read; the first: {rejected[0][1]}"
            )
        index = ShardIndex.from_samples(str(out), shards, samples)
        write_bytes(out / INDEX_NAME, index.to_json())
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                out.rmdir()
        raise
    return ShardingResult(index=index, written=len(samples) - num_before, rejected=tuple(rejected))


def map_ahead(
    threads: ThreadPoolExecutor, function: Callable[[A], B], items: Iterable[A], *, ahead: int
) -> Iterator[B]:
    """Map in order on threads, with at most `ahead` results waiting, so memory stays bounded."""
    waiting = deque()
    try:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _sift(
    outcomes: Iterable[_Encoded | tuple[Path, str]], rejected: list[tuple[Path, str]]
) -> Iterator[_Encoded]:
    for outcome in outcomes:
        if isinstance(outcome, _Encoded):
            yield outcome
        else:
            rejected.append(outcome)


def _cut(samples: Iterable[_Encoded], shard_bytes: int) -> Iterator[list[_Encoded]]:
    """Group samples into shards of about `shard_bytes`, each at least one sample."""
    group: list[_Encoded] = []
    total = 0
    for sample in samples:
        group.append(sample)
        total += len(sample.data)
        if total >= shard_bytes:
            yield group
            group, total = [], 0
    if group:
        yield group


def _write_shard(
    path: Path, split: str, number: int, photos: list[_Encoded], extension: str
) -> tuple[Shard, list[Sample]]:
    """Write one tar, the `number`-th of the index; return it and its samples."""
    with replacing(path) as file:
        # Fixed times and owners: the same photographs give the same bytes.
        with TarWriter(
            file,  # type: ignore[arg-type]
            mtime=0,
            user="",
            group="",
            mode=0o644,
            encoder=False,
        ) as tar:
            for photo in photos:
                tar.write({"__key__": photo.key, extension: photo.data, "json": _facts(photo)})
        file.flush()
        with tarfile.open(file.name) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
        with Path(file.name).open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
            size = written.tell()
    samples = [
        Sample(
            key=photo.key,
            extension=extension,
            shard=number,
            offset=places[f"{photo.key}.{extension}"][0],
            size=places[f"{photo.key}.{extension}"][1],
            crc32=zlib.crc32(photo.data),
            height=photo.height,
            width=photo.width,
        )
        for photo in photos
    ]
    return Shard(name=path.name, split=split, bytes=size, sha256=sha256), samples


def _facts(photo: _Encoded) -> bytes:
    facts = {
        "width": photo.width,
        "height": photo.height,
        "source": photo.source,
        "sha256": hashlib.sha256(photo.data).hexdigest(),
    }
    return json.dumps(facts, sort_keys=True).encode()


def _check_arguments(photos: Sequence[Path], split: str, quality: int, shard_bytes: int) -> None:
    if not photos:
        raise ValueError("photos is empty: there is nothing to write")
    if not re.fullmatch("[a-z0-9_]+", split):
        raise ValueError(f"split must be lower-case letters, digits and _, got {split!r}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
