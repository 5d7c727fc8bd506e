"""Verifying shards: every byte against the index, and every photograph decoded.

Each tar is read once, from its first byte to its last, by one thread; the photographs in it are
checked on the others. What is wrong is named sample by sample, and the rest is looked at all the
same. Of foreign shards, whose index has no checksums, what can be compared is compared.
"""

import hashlib
import io
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import torch
from tqdm import tqdm

from .ahead import MemoryBudget, map_ahead
from .codecs import decode_photo
from .index import UNKNOWN_CRC32, ShardIndex
from .memory import available_bytes
from .ranges import RangeReader, is_remote, local_path
from .tar_file import BLOCK, Member, dali_index, idx_name, split_name
from .workers import num_cores

READ_BYTES = 8 << 20
JSON_LIMIT = 1 << 20
"""Bytes of the largest json beside a photograph that is looked into."""

_WITHOUT_CONTENT = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)  # fmt: skip
_NAMES_THE_NEXT = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that is not as the index says."""

    shard: str
    """Path or URL."""
    key: str | None
    """Of the photograph; None if it is the shard."""
    reason: str

    def __str__(self) -> str:
        what = "" if self.key is None else f"photograph {self.key!r} of "
        return f"{what}{self.shard}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What has been looked at, and what was wrong."""

    photos: int
    """Photographs that were looked for."""
    bytes: int
    """Bytes of shards that were read."""
    seconds: float
    faults: tuple[Fault, ...]


def verify_shards(
    index: ShardIndex,
    *,
    reader: RangeReader | None = None,
    num_threads: int | None = None,
    on_fault: Callable[[Fault], None] = lambda _: None,
    progress: bool = False,
) -> Verification:
    """Compare every byte of the shards with their index, and decode every photograph.

    Args:
        index: Of the shards.
        reader: Reads what is not local.
        num_threads: Decoders at work; None is one a core.
        on_fault: Called with each fault as it is found.
        progress: Show a progress bar.
    """
    begun = time.perf_counter()
    num_threads = num_threads or num_cores()
    reader = reader or RangeReader()
    memory = available_bytes(torch.device("cpu"))
    decoding, waiting = MemoryBudget(memory // 8), MemoryBudget(memory // 8)
    faults: list[Fault] = []
    num_bytes = 0

    def check(item: "_Item") -> "_Item":
        try:
            item.check(decoding)
        finally:
            waiting.give_back(item.taken)
        return item

    with (
        tqdm(desc="verify", total=len(index), unit="photo", disable=not progress) as bar,
        ThreadPoolExecutor(num_threads, "verify") as threads,
        closing(
            map_ahead(threads, check, _items(index, reader, waiting), ahead=4 * num_threads)
        ) as done,
    ):
        for item in done:
            for fault in item.faults:
                faults.append(fault)
                bar.clear()
                on_fault(fault)
            num_bytes += item.bytes
            bar.update(item.photos)
            rate = num_bytes / max(time.perf_counter() - begun, 1e-9)
            bar.set_postfix_str(f"{rate / 1e6:.1f} MB/s", refresh=False)
    return Verification(
        photos=len(index),
        bytes=num_bytes,
        seconds=time.perf_counter() - begun,
        faults=tuple(faults),
    )


@dataclass(kw_only=True, slots=True)
class _Item:
    """What a thread checks: a photograph and its json, or nothing but faults found on the way."""

    faults: list[Fault] = field(default_factory=list)
    bytes: int = 0
    photos: int = 0
    taken: int = 0
    photo: "_Photo | None" = None

    def check(self, decoding: MemoryBudget) -> None:
        if self.photo is not None:
            self.faults += self.photo.check(decoding)
            self.photo = None


@dataclass(kw_only=True, slots=True)
class _Photo:
    shard: str
    key: str
    extension: str
    crc32: int
    height: int
    width: int
    data: bytes
    json: bytes | None = None

    def check(self, decoding: MemoryBudget) -> Iterator[Fault]:
        if self.crc32 not in (UNKNOWN_CRC32, zlib.crc32(self.data)):
            yield self._fault("its checksum is not that of the index")
        try:
            with decoding.hold(3 * self.height * self.width):
                height, width, _ = decode_photo(self.data, self.extension).shape
        except ValueError as error:
            yield self._fault(f"cannot be decoded: {error}")
        else:
            if (height, width) != (self.height, self.width):
                yield self._fault(
                    f"is {width} x {height} px, the index says {self.width} x {self.height}"
                )
        if self.json is not None:
            yield from self._check_json(self.json)

    def _check_json(self, text: bytes) -> Iterator[Fault]:
        try:
            facts = orjson.loads(text)
        except orjson.JSONDecodeError:
            yield self._fault("its json cannot be read")
            return
        # Somebody else's json may be of anything.
        if not (isinstance(facts, dict) and isinstance(facts.get("sha256"), str)):
            return
        if facts["sha256"] != hashlib.sha256(self.data).hexdigest():
            yield self._fault("its json has another sha256")
        for name, value in (("height", self.height), ("width", self.width)):
            if facts.get(name, value) != value:
                yield self._fault(f"its json has the {name} {facts[name]!r}, the index has {value}")

    def _fault(self, reason: str) -> Fault:
        return Fault(shard=self.shard, key=self.key, reason=reason)


def _items(index: ShardIndex, reader: RangeReader, waiting: MemoryBudget) -> Iterator[_Item]:
    by_shard = np.argsort(index.shard, kind="stable")
    bounds = np.searchsorted(index.shard[by_shard], np.arange(len(index.shards) + 1))
    for shard in range(len(index.shards)):
        samples = by_shard[bounds[shard] : bounds[shard + 1]]
        samples = samples[np.argsort(index.offset[samples], kind="stable")]
        yield from _Walk(index, shard, samples.tolist(), reader).items(waiting)


class _Walk:
    """One pass through one tar, from the first byte to the last."""

    def __init__(
        self, index: ShardIndex, shard: int, samples: list[int], reader: RangeReader
    ) -> None:
        self._index, self._samples, self._reader = index, samples, reader
        self._shard = index.shards[shard]
        self._url = index.url(shard)
        self._members: list[Member] = []
        self._faults: list[Fault] = []
        self._is_right = True
        self._long_name: str | None = None

    def items(self, waiting: MemoryBudget) -> Iterator[_Item]:
        seen = 0
        try:
            with _open_stream(self._url, self._shard.bytes, self._reader) as stream:
                for photo in self._photos(stream):
                    taken = waiting.take(len(photo.data)) if photo else 0
                    seen += photo is not None
                    yield _Item(
                        faults=self._take_faults(),
                        bytes=stream.take_bytes(),
                        photos=1 if photo else 0,
                        taken=taken,
                        photo=photo,
                    )
                stream.skip_to_end()
                self._check_whole(stream)
                num_bytes = stream.take_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._fail(f"cannot be read: {reason}")
            num_bytes = 0
        self._check_idx()
        lost = self._samples[seen:]
        yield _Item(faults=self._take_faults(), bytes=num_bytes, photos=len(lost))

    def _photos(self, stream: "_Stream") -> "Iterator[_Photo | None]":
        """Yield the photographs of the index with their json, naming all that is amiss between."""
        index, expected = self._index, {}
        for sample in self._samples:
            key, extension = str(index.keys[sample]), index.extensions[index.extension[sample]]
            expected[int(index.offset[sample])] = sample, key, extension
        photo: _Photo | None = None
        loose: dict[str, bytes] = {}
        for number, sample in enumerate(self._samples):
            offset, size = int(index.offset[sample]), int(index.size[sample])
            _, key, extension = expected[offset]
            header = self._walk_to(stream, offset, photo, loose, key)
            if photo is not None:
                yield photo
                photo = None
            data = stream.read(size)
            if len(data) < size:
                for lost in self._samples[number:]:
                    self._fail("is not there: the shard is cut short", str(index.keys[lost]))
                yield None
                return
            if header is not None:
                there = split_name(header.name)
                if there[0] != key or there[1].lower().rpartition(".")[2] != extension:
                    self._fail(f"the tar has {header.name!r} in its place", key)
                elif header.size != size:
                    self._fail(f"has {header.size} bytes in the tar, the index says {size}", key)
                self._members.append(Member(header.name, offset, size))
            stream.skip(-size % BLOCK)
            photo = _Photo(
                shard=self._url,
                key=key,
                extension=extension,
                crc32=int(index.crc32[sample]),
                height=int(index.height[sample]),
                width=int(index.width[sample]),
                data=data,
                json=loose.pop(key, None),
            )
            loose.clear()
        self._walk_to(stream, None, photo, loose, None)
        if photo is not None:
            yield photo

    def _walk_to(
        self,
        stream: "_Stream",
        end: int | None,
        last: _Photo | None,
        loose: dict[str, bytes],
        next_key: str | None,
    ) -> tarfile.TarInfo | None:
        """Go through the members up to the content at `end`, and return the header before it."""
        while end is None or stream.place < end:
            place = stream.place
            block = stream.read(BLOCK)
            if end is None and (not block or not any(block)):
                if len(block) < BLOCK:
                    self._fail("ends without the end mark of a tar")
                return None
            try:
                header = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
                if end is not None and stream.place + _stored_bytes(header) > end != stream.place:
                    raise tarfile.HeaderError("it reaches into the next photograph")
            except tarfile.HeaderError as error:
                what = "the header of this photograph" if next_key else "a header"
                self._fail(
                    f"{what} or one before it, at byte {place}, is damaged: {error}", next_key
                )
                if end is not None:
                    stream.skip(end - stream.place)
                return None
            if self._long_name is not None and header.type not in _NAMES_THE_NEXT:
                header.name, self._long_name = self._long_name, None
            if stream.place == end:
                return header
            self._take_member(stream, header, last, loose)
        if end is not None and stream.place > end:
            raise ValueError(f"photographs overlap in the index at byte {end}; index it anew")
        return None

    def _take_member(
        self,
        stream: "_Stream",
        header: tarfile.TarInfo,
        last: _Photo | None,
        loose: dict[str, bytes],
    ) -> None:
        key, extension = split_name(header.name)
        size = _stored_bytes(header)
        if header.isreg():
            self._members.append(Member(header.name, stream.place, header.size))
        if header.type in _NAMES_THE_NEXT and size <= JSON_LIMIT:
            self._long_name = _name_of_next(header.type, stream.read(size)) or self._long_name
        elif header.isreg() and extension == "json" and size <= JSON_LIMIT:
            text = stream.read(size)
            if last is not None and last.key == key:
                last.json = text
            else:
                # It may stand before its photograph.
                loose[key] = text
        else:
            if (
                header.isreg()
                and extension in self._index.extensions
                and (last is None or last.key != key)
            ):
                self._fail(f"the tar has {header.name!r}, which is not in the index")
            stream.skip(size)
        stream.skip(-size % BLOCK)

    def _check_whole(self, stream: "_Stream") -> None:
        if stream.place != self._shard.bytes:
            self._fail(f"has {stream.place:,} bytes, the index says {self._shard.bytes:,}")
        if self._shard.sha256 and stream.sha256 != self._shard.sha256:
            self._fail("its sha256 is not that of the index")

    def _check_idx(self) -> None:
        """Compare the .idx beside a local tar, if there is one."""
        # Where the tar itself is wrong, nothing is learnt from what lies beside it.
        if is_remote(self._url) or not self._is_right:
            return
        path = Path(idx_name(local_path(self._url)))
        if path.exists() and path.read_bytes() != dali_index(self._members):
            self._fail(f"{path.name} beside it does not agree with it; delete it")

    def _fail(self, reason: str, key: str | None = None) -> None:
        self._is_right = False
        self._faults.append(Fault(shard=self._url, key=key, reason=reason))

    def _take_faults(self) -> list[Fault]:
        taken, self._faults = self._faults, []
        return taken


def _stored_bytes(header: tarfile.TarInfo) -> int:
    """Bytes of content behind a header; links and folders have none, whatever they claim."""
    return 0 if header.type in _WITHOUT_CONTENT else header.size


def _name_of_next(kind: bytes, content: bytes) -> str | None:
    """Return the name that a header of an extension gives to the member behind it, if it does."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode(errors="surrogateescape")
    # Records of pax: "<bytes of the record> path=<name>\n".
    place = 0
    while (space := content.find(b" ", place)) > 0 and content[place:space].isdigit():
        end = place + int(content[place:space])
        name, _, value = content[space + 1 : end].partition(b"=")
        if name == b"path":
            return value.rstrip(b"\n").decode(errors="surrogateescape")
        place = max(end, space + 1)
    return None


class _Stream:
    """A file read once, forward, with the checksum of all of it."""

    def __init__(self, file: Any) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._untold = self.place = 0

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int) -> bytes:
        """Return the next bytes; fewer only at the end of the file."""
        data = self._file.read(size)
        self._digest.update(data)
        self.place += len(data)
        self._untold += len(data)
        return data

    def skip(self, size: int) -> None:
        """Read over bytes, without keeping them."""
        while size > 0 and (data := self.read(min(size, READ_BYTES))):
            size -= len(data)

    def skip_to_end(self) -> None:
        while self.read(READ_BYTES):
            pass

    def take_bytes(self) -> int:
        """Return how many bytes were read since the last time."""
        taken, self._untold = self._untold, 0
        return taken


class _RemoteFile(io.RawIOBase):
    """A file behind a URL, in ranges; never from a cache, for it is the source that is verified."""

    def __init__(self, url: str, reader: RangeReader) -> None:
        self._url, self._reader = url, reader
        self._size, self._place = reader.size(url), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._size - self._place)
        if size <= 0:
            return 0
        buffer[:size] = self._reader.read(self._url, self._place, size, fresh=True)
        self._place += size
        return size


def _open_stream(url: str, size: int, reader: RangeReader) -> _Stream:
    file: IO[bytes] | io.BufferedReader
    if is_remote(url):
        file = io.BufferedReader(_RemoteFile(url, reader), READ_BYTES)
    else:
        file = Path(local_path(url)).open("rb", buffering=1 << 20)  # noqa: SIM115
    return _Stream(file)
