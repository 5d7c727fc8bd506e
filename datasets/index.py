"""The index of a set of shards: where every photograph lies, so that any one is a ranged read.

`index.json` lies beside the tars. It holds the shards (name, split, bytes, sha256) and, column by
column, the samples (key, shard, extension, offset, size, crc32, height, width). Shards stay plain
WebDataset tars; whoever ignores the index loses nothing but speed.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
from jaxtyping import Int, UInt8

from .codecs import decode_photo

INDEX_NAME = "index.json"
INDEX_VERSION = 1

_NUMBERS = ("shard", "offset", "size", "crc32", "height", "width")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar file."""

    name: str
    split: str
    bytes: int
    sha256: str


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
    """Folder or URL that holds the shards."""
    shards: tuple[Shard, ...]
    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    shard: Int[np.ndarray, " N"]
    offset: Int[np.ndarray, " N"]
    """First byte of the photograph in its shard."""
    size: Int[np.ndarray, " N"]
    """Bytes of the encoded photograph."""
    crc32: Int[np.ndarray, " N"]
    """Checksum of these bytes: the decoders see little of what can go wrong on the way."""
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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the samples are; the same photographs in the same order, the same.

        That of a split does not change when another split joins it in the folder.
        """
        digest = hashlib.sha256()
        used, place = np.unique(self.shard, return_inverse=True)
        for shard in (self.shards[i] for i in used):
            digest.update(f"{shard.name} {shard.split} {shard.bytes} {shard.sha256}\n".encode())
        for column in (self.keys, self.extensions):
            digest.update("\n".join(column).encode())
        for column in (place, *(getattr(self, name) for name in _NUMBERS[1:])):
            digest.update(column.astype("<i8").tobytes())
        return digest.hexdigest()

    def select(self, samples: Int[np.ndarray, " M"]) -> "ShardIndex":
        """Return an index of the given samples, in the given order; all shards stay listed."""
        return ShardIndex(
            root=self.root,
            shards=self.shards,
            keys=tuple(self.keys[i] for i in samples),
            extensions=tuple(self.extensions[i] for i in samples),
            **{name: getattr(self, name)[samples] for name in _NUMBERS},
        )

    def of_split(self, split: str) -> "ShardIndex":
        """Return the index of one split.

        Raises:
            ValueError: If there is no such split; the message lists those there are.
        """
        if split not in self.splits:
            raise ValueError(
                f"no split {split!r} in {self.root}; there are: {', '.join(self.splits) or 'none'}"
            )
        wanted = np.array([shard.split == split for shard in self.shards])
        return self.select(np.flatnonzero(wanted[self.shard]))

    def read(self, sample: int) -> UInt8[np.ndarray, "H W 3"]:
        """Read and decode one photograph.

        Raises:
            ValueError: If the shard is shorter than the index says, or the photograph is damaged
                or of another size; the message names shard and key.
            OSError: If the shard cannot be read; this message names both too.
        """
        shard = self.shards[self.shard[sample]]
        place = f"photograph {self.keys[sample]!r} of {self.root}/{shard.name}"
        offset, size = int(self.offset[sample]), int(self.size[sample])
        files, path = fsspec.core.url_to_fs(f"{self.root}/{shard.name}")
        try:
            data = files.cat_file(path, start=offset, end=offset + size)
        except OSError as error:
            raise OSError(f"{place}: cannot be read: {error}") from error
        if len(data) != size:
            raise ValueError(
                f"{place}: {len(data)} of {size} bytes are there; the shard is cut short, copy it "
                "again"
            )
        if zlib.crc32(data) != self.crc32[sample]:
            raise ValueError(
                f"{place}: is damaged, its checksum is not that of the index; copy the shard again"
            )
        try:
            photo = decode_photo(data, self.extensions[sample])
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        expected = (int(self.height[sample]), int(self.width[sample]))
        if photo.shape[:2] != expected:
            raise ValueError(f"{place}: is {photo.shape[:2]}, the index says {expected} (H, W)")
        return photo

    @classmethod
    def from_samples(
        cls, root: str, shards: Sequence[Shard], samples: Sequence[Sample]
    ) -> "ShardIndex":
        """Make an index row by row."""
        columns = list(zip(*samples, strict=True)) or [()] * len(Sample._fields)
        named = dict(zip(Sample._fields, columns, strict=True))
        return cls(
            root=root,
            shards=tuple(shards),
            keys=named["key"],
            extensions=named["extension"],
            **{name: np.asarray(named[name], dtype=np.int64) for name in _NUMBERS},
        )

    def samples(self) -> list[Sample]:
        """Return the rows."""
        numbers = zip(*(getattr(self, name).tolist() for name in _NUMBERS), strict=True)
        return [
            Sample(key, extension, *row)
            for key, extension, row in zip(self.keys, self.extensions, numbers, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of index.json."""
        columns: dict[str, Any] = {"key": list(self.keys), "extension": list(self.extensions)}
        columns |= {name: getattr(self, name).tolist() for name in _NUMBERS}
        return {
            "version": INDEX_VERSION,
            "fingerprint": self.fingerprint,
            "shards": [
                {"name": s.name, "split": s.split, "bytes": s.bytes, "sha256": s.sha256}
                for s in self.shards
            ],
            "samples": columns,
        }

    @classmethod
    def from_dict(cls, root: str, content: dict[str, Any]) -> "ShardIndex":
        """Make an index from the content of index.json.

        Raises:
            ValueError: If it is of another version or something is missing in it.
        """
        if not isinstance(content, dict):
            raise ValueError(f"{root}/{INDEX_NAME} is not an index of shards; use another folder")
        if content.get("version") != INDEX_VERSION:
            raise ValueError(
                f"{root}/{INDEX_NAME} has version {content.get('version')!r}, this agedphoto "
                f"reads {INDEX_VERSION}; write the shards again"
            )
        try:
            columns = content["samples"]
            index = cls(
                root=root,
                shards=tuple(Shard(**shard) for shard in content["shards"]),
                keys=tuple(columns["key"]),
                extensions=tuple(columns["extension"]),
                **{name: np.asarray(columns[name], dtype=np.int64) for name in _NUMBERS},
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
                f"{root}/{INDEX_NAME} is not an index of shards ({type(error).__name__}: {error}); "
                "write the shards again"
            ) from error
        if not agreed:
            raise ValueError(
                f"{root}/{INDEX_NAME} does not agree with its own fingerprint; it was edited or "
                "cut short, write the shards again"
            )
        return index


def open_index(source: str | Path) -> ShardIndex:
    """Open the index of a folder of shards, local or any URL that fsspec knows.

    Raises:
        ValueError: If there is no index, or it cannot be understood.
    """
    # As posix: fsspec takes slashes on Windows too.
    named = source.as_posix() if isinstance(source, Path) else source
    root = named.rstrip("/").removesuffix(f"/{INDEX_NAME}")
    try:
        with fsspec.open(f"{root}/{INDEX_NAME}", "rb") as file:
            content = json.load(file)  # type: ignore[arg-type]
    except ImportError as error:
        # fsspec says which package reads this kind of URL.
        raise ValueError(f"cannot open {root}: {error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"no {INDEX_NAME} in {root}; make the shards with: agedphoto shard PHOTOS {root}"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{root}/{INDEX_NAME} is not JSON ({error}); write the shards again"
        ) from error
    return ShardIndex.from_dict(root, content)
