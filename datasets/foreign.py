"""Tars that are not ours: an index of the pictures in WebDataset shards from anybody.

Only the tar headers and the first bytes of each picture are read, the rest is stepped over. Names
are read as WebDataset does: the key ends at the first dot, neighbours of one key are one sample.
Of each sample the first picture counts; one of a plain extension (`jpg`) goes before one of several
parts (`seg.png`). Sizes are those of the upright picture. A PNG whose EXIF data stands behind its
pixels would have to be read whole for that: if that EXIF turns it, reading it says so.
"""

import io
import re
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import ExifTags, Image
from tqdm import tqdm

from .codecs import EXTENSIONS
from .foreign_cache import ForeignCache
from .index import UNKNOWN_CRC32, Sample, Shard, ShardIndex
from .photos import _UNREADABLE, open_photo
from .ranges import RangeReader
from .remote import FileFacts
from .uncommon import Uncommon
from .urls import is_remote, plain_url
from .window import Part, Window, cut_short

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
_TURNED = (5, 6, 7, 8)
_HEAD_BYTES = 4096
_RECORD_BYTES = 10240
_REMOTE_THREADS = 32


def index_tars(
    urls: Sequence[str],
    *,
    root: str,
    reader: RangeReader,
    cache_dir: Path | None = None,
    whole: bool = False,
    progress: bool = False,
    num_threads: int | None = None,
) -> ShardIndex:
    """Index tars that have no index of ours, or take what was found out the last time.

    What is found is kept beside the tars, or in the user's cache folder if they are not local or
    their folder is read-only; it is used again while size and stamp of a tar stay the same.

    Args:
        urls: Paths or URLs of the tars.
        root: Folder or URL that the names in the index are relative to, see `ShardIndex`.
        reader: Reads what is not local.
        cache_dir: Keep it in this folder instead.
        whole: Read every byte, for the checksums of photographs and shards.
        progress: Show a progress bar.
        num_threads: Tars that are read at once; None is one for local tars, whose reading waits
            for the interpreter more than for the disk, and 32 for others.

    Warns:
        UserWarning: If there are samples without a picture, pictures that cannot be read, or
            samples with several pictures and no telling which is meant.

    Raises:
        ValueError: If a tar is missing, cut short, compressed, sparse or no tar, names a file of a
            sample twice, or no tar holds a picture; names the tar.
        OSError: If a tar cannot be read; names it.
    """
    remote = any(is_remote(url) for url in urls)
    num_threads = num_threads or (_REMOTE_THREADS if remote else 1)

    cache = ForeignCache(cache_dir)

    def scan(url: str) -> tuple[FileFacts, ShardIndex, list[str]]:
        facts = _facts(reader, url)
        known = cache.get(url, facts)
        if known is not None and (not whole or known.shards[0].sha256):
            return facts, known, []
        return facts, *_scan(url, facts.size, reader, whole)

    threads = ThreadPoolExecutor(min(num_threads, max(1, len(urls))), "index")
    try:
        found = list(
            tqdm(threads.map(scan, urls), "index", len(urls), unit="tar", disable=not progress)
        )
    finally:
        threads.shutdown(cancel_futures=True)
    for notes in (notes for _, _, notes in found if notes):
        warnings.warn("; ".join(notes), stacklevel=2)
    cache.put({url: (facts, part) for url, (facts, part, _) in zip(urls, found, strict=True)})
    index = ShardIndex.from_parts(root, [part for _, part, _ in found])
    if not len(index):
        raise ValueError(
            f"no pictures in {plain_url(urls[0])}"
            f"{f' and {len(urls) - 1} more' if len(urls) > 1 else ''}; looked for "
            f"{' '.join(sorted(EXTENSIONS))}"
        )
    return index


def name_split(url: str) -> str:
    """Name the split of a tar: its file name up to its trailing number, `train-000000.tar`: train.

    A name that is nothing but a number is called `train`.
    """
    stem = PurePosixPath(plain_url(url).replace("\\", "/")).name.removesuffix(".tar")
    return re.sub(r"[-_. ]*\d+$", "", stem) or "train"


def _facts(reader: RangeReader, url: str) -> FileFacts:
    try:
        return reader.facts(url)
    except FileNotFoundError as error:
        raise ValueError(f"no such shard: {plain_url(url)}; correct its name") from error


def _scan(url: str, size: int, reader: RangeReader, whole: bool) -> tuple[ShardIndex, list[str]]:
    """Index one tar; return also what there is to say about it."""
    notes: list[str] = []
    with closing(Window(url, size, reader, hashing=whole)) as window:
        rows = list(_rows(window, plain_url(url), size, whole, notes))
        sha256 = window.sha256() if whole else ""
    shard = Shard(name=url, split=name_split(url), bytes=size, sha256=sha256)
    return ShardIndex.from_samples("", [shard], rows), notes


def _rows(window: Window, name: str, size: int, whole: bool, notes: list[str]) -> Iterator[Sample]:
    no_picture: list[str] = []
    unreadable: list[str] = []
    ambiguous: list[str] = []
    for key, members in groupby(_members(window, name, size), lambda named: named[0]):
        # Pictures are looked at one member at a time: the window only goes forward.
        pictures: list[tuple[bool, Sample]] = []
        names: set[str] = set()
        num_pictures = [0, 0]
        for _, extension, member in members:
            if extension in names:
                raise ValueError(f"{name} holds {member.name!r} twice in one sample; write it anew")
            names.add(extension)
            kind = extension.rpartition(".")[2]
            if kind not in EXTENSIONS:
                continue
            plain = kind == extension
            num_pictures[plain] += 1
            if pictures and (pictures[-1][0] or not plain):
                continue
            crc32 = UNKNOWN_CRC32
            if whole:
                # At once: while hashing, the window does not go back.
                crc32 = zlib.crc32(window.at(member.offset_data, member.size))
            try:
                height, width = _upright_size(window, member.offset_data, member.size)
            except _UNREADABLE as error:
                unreadable.append(f"{member.name!r} ({error or type(error).__name__})")
                continue
            row = Sample(key, kind, 0, member.offset_data, member.size, crc32, height, width)
            pictures.append((plain, row))
        if pictures:
            yield pictures[-1][1]
        elif not sum(num_pictures):
            no_picture.append(repr(key))
        if num_pictures[True] > 1 or (not num_pictures[True] and num_pictures[False] > 1):
            ambiguous.append(repr(key))
    for found, what in (
        (no_picture, "samples without a picture, passed over"),
        (unreadable, "pictures that cannot be read, passed over"),
        (ambiguous, "samples with several pictures, of which the first is taken"),
    ):
        if found:
            first = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            notes.append(f"{name}: {len(found)} {what}: {first}")


def _members(window: Window, name: str, size: int) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield key, extension and header of all files that WebDataset would take into samples."""
    start = window.at(0, 512)
    for magic, remedy in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(f"{name} is compressed and cannot be read in part; {remedy} it first")
    if not start:
        raise ValueError(f"{name} is empty; copy it again")
    try:
        tar = tarfile.TarFile(fileobj=window, errors="replace")  # type: ignore[arg-type]
    except tarfile.ReadError as error:
        if size < 512:
            raise cut_short(name, size) from error
        raise ValueError(f"{name} is not a tar file; name tars, or a folder of them") from error
    with tar:
        while True:
            try:
                member = tar.next()
            except tarfile.ReadError as error:
                if "end of data" in str(error):
                    raise cut_short(name, size) from error
                raise ValueError(f"{name} is damaged: {error}; copy it again") from error
            if member is None:
                break
            # Else seen only by the header behind it, which the last one does not have.
            if member.isreg() and member.offset_data + member.size > size:
                raise cut_short(name, size)
            if member.issparse():
                raise ValueError(f"{name} holds the sparse file {member.name!r}; write it anew")
            parts = _NAME.fullmatch(member.name)
            if member.isreg() and parts:
                yield parts[1], parts[2].lower(), member
            tar.members.clear()  # type: ignore[attr-defined]
        _check_end(window, name, tar.offset, size)


def _check_end(window: Window, name: str, offset: int, size: int) -> None:
    """See that a tar ends with its end mark: tarfile takes any end for one."""
    mark = window.at(offset, 512)
    if len(mark) < 512:
        raise cut_short(name, size)
    if any(mark):
        raise ValueError(f"{name} is damaged: no header at byte {offset}; copy it again")
    behind = window.at(offset, min(2 * _RECORD_BYTES, size - offset))
    if any(behind):
        place = offset + len(behind) - len(behind.lstrip(b"\0"))
        raise ValueError(
            f"{name} goes on behind its end, at byte {place}, where no reader of tars looks; join "
            "tars with tar --concatenate, or name them one by one"
        )


def _upright_size(window: Window, offset: int, size: int) -> tuple[int, int]:
    """Find height and width of a picture as `read_photo` shows it."""
    head = window.at(offset, min(size, _HEAD_BYTES))
    if known := _webp_size(head):
        return known
    # Directories of TIFF lie anywhere, and Pillow warns where one is cut off.
    if not head.startswith((b"II", b"MM")):
        try:
            return _header_size(io.BytesIO(head))
        except _UNREADABLE:
            if size <= len(head):
                raise
    return _header_size(Part(window, offset, size))


def _header_size(file: Any) -> tuple[int, int]:
    opened = open_photo(file)
    height, width = opened.height, opened.width
    if isinstance(opened, Uncommon):
        orientation = opened.orientation
    elif opened.format == "TIFF":
        # Pillow opens it upright.
        orientation = 1
    else:
        try:
            # Not PNG's own method, which decodes the picture to look behind it.
            orientation = Image.Image.getexif(opened).get(ExifTags.Base.Orientation, 1)
        except _UNREADABLE:
            # EXIF that cannot be read turns nothing, see `read_photo`.
            orientation = 1
    return (width, height) if orientation in _TURNED else (height, width)


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Read the size of a WebP file without EXIF data; Pillow would read the whole of it.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind, body = head[12:16], head[20:30]
    little = int.from_bytes
    if kind == b"VP8X":
        has_exif_or_xmp = body[0] & 0b1100
        if has_exif_or_xmp:
            return None
        return little(body[7:10], "little") + 1, little(body[4:7], "little") + 1
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = little(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return little(body[8:10], "little") & 0x3FFF, little(body[6:8], "little") & 0x3FFF
    return None
