"""The index of a set of shards: where every photograph lies, so that any one is a ranged read.

`index.json` lies beside the tars. It holds the shards (name, split, bytes, sha256) and, column by
column, the samples (key, extension, shard, offset, size, crc32, height, width). Shards stay plain
WebDataset tars; whoever ignores the index loses nothing but speed.

In memory every column is one array, also the keys: an index of a million photographs takes about
100 MB, opens in under a second, and forked workers share it.
"""

import hashlib
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import orjson
from jaxtyping import Int, UInt8

from .codecs import decode_photo
from .ranges import RangeReader
from .urls import is_remote, join_url, plain_url, relative_url

INDEX_NAME = "index.json"
INDEX_VERSION = 2
UNKNOWN_CRC32 = -1
"""In the column crc32: nobody has read all bytes of this photograph yet."""

_NUMBERS = ("shard", "offset", "size", "crc32", "height", "width")
_STRINGS = np.dtypes.StringDType()


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar file."""

    name: str
    """Relative to the root of the index, or absolute: a path or URL of its own."""
    split: str
    bytes: int
    sha256: str
    """Of the whole file; empty if nobody has read all of it yet."""


class Sample(NamedTuple):
    """One row of the index."""

    key: str
    extension: str
    shard: int
    offset: int
    size: int
    crc32: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """The samples of one or all splits; columns are arrays of one entry for each photograph."""

    root: str
    """Folder or URL that holds the shards; empty if they name their own places."""
    shards: tuple[Shard, ...]
    extensions: tuple[str, ...]
    """The different ones, that `extension` counts."""
    keys: np.ndarray
    """N strings, of numpy's variable-width kind."""
    extension: Int[np.ndarray, " N"]
    """Which of `extensions` each photograph has."""
    shard: Int[np.ndarray, " N"]
    offset: Int[np.ndarray, " N"]
    """First byte of the photograph in its shard."""
    size: Int[np.ndarray, " N"]
    """Bytes of the encoded photograph."""
    crc32: Int[np.ndarray, " N"]
    """Checksum of these bytes: the decoders see little of what can go wrong on the way. -1 where
    it is not known."""
    height: Int[np.ndarray, " N"]
    width: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order of the shards."""
        return tuple(dict.fromkeys(shard.split for shard in self.shards))

    @property
    def decoded_bytes(self) -> Int[np.ndarray, " N"]:
        """Bytes of each photograph as uint8 (H, W, 3)."""
        return 3 * self.height.astype(np.int64) * self.width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the samples are; the same photographs in the same order, the same.

        That of a split does not change when another split joins it in the folder.
        """
        digest = hashlib.sha256()
        used, place = np.unique(self.shard, return_inverse=True)
        for shard in (self.shards[i] for i in used):
            name = plain_url(shard.name)
            digest.update(f"{name} {shard.split} {shard.bytes} {shard.sha256}\n".encode())
        kinds, kind = np.unique(self.extension, return_inverse=True)
        digest.update("\n".join([self.extensions[i] for i in kinds]).encode())
        digest.update("\n".join(self.keys.tolist()).encode())
        for column in (kind, place, *(getattr(self, name) for name in _NUMBERS[1:])):
            digest.update(column.astype("<i8").tobytes())
        return digest.hexdigest()

    def select(self, samples: Int[np.ndarray, " M"]) -> "ShardIndex":
        """Return an index of the given samples, in the given order; all shards stay listed."""
        return ShardIndex(
            root=self.root,
            shards=self.shards,
            extensions=self.extensions,
            keys=self.keys[samples],
            extension=self.extension[samples],
            **{name: getattr(self, name)[samples] for name in _NUMBERS},
        )

    def of_split(self, split: str) -> "ShardIndex":
        """Return the index of one split.

        Raises:
            ValueError: If there is no such split; the message lists those there are.
        """
        if split not in self.splits:
            raise ValueError(
                f"no split {split!r} in {self.root or 'these shards'}; there are: "
                f"{', '.join(self.splits) or 'none'}"
            )
        wanted = np.array([shard.split == split for shard in self.shards])
        return self.select(np.flatnonzero(wanted[self.shard]))

    def by_shard(self) -> "list[ShardIndex]":
        """Return one index for each shard, which lists this shard only."""
        order = np.argsort(self.shard, kind="stable")
        ends = np.searchsorted(self.shard[order], np.arange(len(self.shards) + 1))
        return [
            replace(
                self.select(order[ends[i] : ends[i + 1]]),
                shards=(shard,),
                shard=np.zeros(ends[i + 1] - ends[i], dtype=np.int64),
            )
            for i, shard in enumerate(self.shards)
        ]

    def url(self, shard: int) -> str:
        """Return the path or URL of a shard."""
        return join_url(self.root, self.shards[shard].name)

    def place(self, sample: int) -> str:
        """Say which photograph of which shard it is, as messages do."""
        shard = plain_url(self.url(int(self.shard[sample])))
        return f"photograph {str(self.keys[sample])!r} of {shard}"

    def read_bytes(self, sample: int, reader: RangeReader | None = None) -> bytes:
        """Read one photograph as it is stored, and check it.

        Raises:
            ValueError: If the shard is shorter than the index says, or the bytes are not those that
                the index has the checksum of; the message names shard and key.
            OSError: If the shard cannot be read; this message names both too.
        """
        reader = reader or RangeReader()
        shard = int(self.shard[sample])
        url, offset, size = self.url(shard), int(self.offset[sample]), int(self.size[sample])
        tag = self.shards[shard].sha256
        try:
            data = reader.read(url, offset, size, tag=tag)
            if not self._agrees(sample, data) and is_remote(url):
                # On the way or in the cache: there may be a good copy where it came from.
                data = reader.read(url, offset, size, tag=tag, fresh=True)
        except ValueError as error:
            raise ValueError(f"{self.place(sample)}: {error}") from error
        except OSError as error:
            raise OSError(f"{self.place(sample)}: cannot be read: {error}") from error
        if not self._agrees(sample, data):
            raise ValueError(
                f"{self.place(sample)}: is damaged, its checksum is not that of the index; copy "
                "the shard again"
            )
        return data

    def read(self, sample: int, reader: RangeReader | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Read and decode one photograph.

        Raises:
            ValueError: As `read_bytes`, or if the photograph cannot be decoded or is of another
                size than the index says.
            OSError: As `read_bytes`.
        """
        data = self.read_bytes(sample, reader)
        try:
            photo = decode_photo(data, self.extensions[self.extension[sample]])
        except ValueError as error:
            raise ValueError(f"{self.place(sample)}: {error}") from error
        self.check_size(sample, photo.shape[0], photo.shape[1])
        return photo

    def check_size(self, sample: int, height: int, width: int) -> None:
        """Raise ValueError if a decoded photograph is not of the size that was announced."""
        expected = (int(self.height[sample]), int(self.width[sample]))
        if (height, width) != expected:
            raise ValueError(
                f"{self.place(sample)}: is {(height, width)}, the index says {expected} (H, W)"
            )

    def _agrees(self, sample: int, data: bytes) -> bool:
        return self.crc32[sample] in (UNKNOWN_CRC32, zlib.crc32(data))

    @classmethod
    def from_samples(
        cls, root: str, shards: Sequence[Shard], samples: Sequence[Sample]
    ) -> "ShardIndex":
        """Make an index row by row."""
        columns = list(zip(*samples, strict=True)) or [()] * len(Sample._fields)
        named = dict(zip(Sample._fields, columns, strict=True))
        extensions = tuple(dict.fromkeys(named["extension"]))
        codes = {extension: code for code, extension in enumerate(extensions)}
        return cls(
            root=root,
            shards=tuple(shards),
            extensions=extensions,
            keys=np.array(named["key"], dtype=_STRINGS),
            extension=np.array([codes[name] for name in named["extension"]], dtype=np.int64),
            **{name: np.asarray(named[name], dtype=np.int64) for name in _NUMBERS},
        )

    @classmethod
    def from_parts(cls, root: str, parts: "Sequence[ShardIndex]") -> "ShardIndex":
        """Put indexes one behind the other; shards below `root` are named relative to it."""
        extensions = tuple(dict.fromkeys(name for part in parts for name in part.extensions))
        shards: list[Shard] = []
        columns: dict[str, list[np.ndarray]] = {name: [] for name in ("extension", *_NUMBERS)}
        for part in parts:
            recode = np.array([extensions.index(name) for name in part.extensions], dtype=np.int64)
            columns["extension"].append(recode[part.extension])
            columns["shard"].append(part.shard + len(shards))
            for name in _NUMBERS[1:]:
                columns[name].append(getattr(part, name))
            shards += [
                replace(shard, name=relative_url(root, part.url(i)))
                for i, shard in enumerate(part.shards)
            ]
        return cls(
            root=root,
            shards=tuple(shards),
            extensions=extensions,
            keys=np.concatenate([np.empty(0, _STRINGS), *(part.keys for part in parts)]),
            **{
                name: np.concatenate([np.empty(0, np.int64), *column])
                for name, column in columns.items()
            },
        )

    def samples(self) -> list[Sample]:
        """Return the rows."""
        columns = zip(*(getattr(self, name).tolist() for name in _NUMBERS), strict=True)
        extensions = [self.extensions[code] for code in self.extension.tolist()]
        return [
            Sample(key, extension, *row)
            for key, extension, row in zip(self.keys.tolist(), extensions, columns, strict=True)
        ]

    def to_json(self) -> bytes:
        """Return the content of index.json."""
        columns: dict[str, Any] = {"key": self.keys.tolist(), "extension": self.extension}
        columns |= {name: getattr(self, name) for name in _NUMBERS}
        content = {
            "version": INDEX_VERSION,
            "fingerprint": self.fingerprint,
            "shards": [
                {"name": s.name, "split": s.split, "bytes": s.bytes, "sha256": s.sha256}
                for s in self.shards
            ],
            "extensions": list(self.extensions),
            "samples": columns,
        }
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, root: str, data: bytes, *, name: str = INDEX_NAME) -> "ShardIndex":
        """Make an index from the content of index.json.

        Raises:
            ValueError: If it is not JSON, of another version, or something is missing in it.
        """
        root_name = plain_url(root)
        place = join_url(root_name, name)
        again = f"write the shards again, or index them with: agedphoto index {root_name}"
        rest, numbers = _take_numbers(data)
        try:
            content = orjson.loads(rest)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{place} is not JSON ({error}); {again}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{place} is not an index of shards; use another folder")
        if content.get("version") != INDEX_VERSION:
            raise ValueError(
                f"{place} has version {content.get('version')!r}, this agedphoto reads "
                f"{INDEX_VERSION}; {again}"
            )
        try:
            columns = content["samples"] | numbers
            index = cls(
                root=root,
                shards=tuple(Shard(**shard) for shard in content["shards"]),
                extensions=tuple(content["extensions"]),
                keys=np.array(columns["key"], dtype=_STRINGS),
                **{
                    name: np.array(columns[name], dtype=np.int64)
                    for name in ("extension", *_NUMBERS)
                },
            )
            agreed = index.fingerprint == content["fingerprint"]
        except (
            AttributeError,
            IndexError,
            KeyError,
            OverflowError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(
                f"{place} is not an index of shards ({type(error).__name__}: {error}); {again}"
            ) from error
        if not agreed:
            raise ValueError(
                f"{place} does not agree with its own fingerprint; it was edited or cut short: "
                f"{again}"
            )
        return index


def _take_numbers(data: bytes) -> tuple[bytes, dict[str, np.ndarray]]:
    """Cut the columns of numbers out of the JSON text and read them as arrays.

    Twenty times faster than making a million Python integers first. Columns that are not found, or
    are not plain numbers, are left for the JSON parser.
    """
    taken: dict[str, np.ndarray] = {}
    cuts: list[tuple[int, int]] = []
    for name in ("extension", *_NUMBERS):
        # A quote inside a string is escaped, so this is never a part of one.
        header = data.find(f'"{name}":['.encode())
        begin = header + len(name) + 4
        end = data.find(b"]", begin)
        if header < 0 or end <= begin:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                taken[name] = np.fromstring(data[begin:end], dtype=np.int64, sep=",")
            except (DeprecationWarning, ValueError):
                continue
        cuts.append((begin, end))
    pieces: list[bytes] = []
    place = 0
    for begin, end in sorted(cuts):
        pieces.append(data[place:begin])
        place = end
    return b"".join([*pieces, data[place:]]), taken
