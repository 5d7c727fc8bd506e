"""Parts of a split: what each of N independent runs takes, and what its files are called.

A part is a contiguous run of the list that all parts share, so parts end to end are the whole, and
no run has to know of another. A split in one part has plain names.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MAX_PARTS = 99_999
_SHARD_NAME = r"{}\d{{6,}}\.tar"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The `number`-th of `count` parts of a split."""

    split: str
    number: int = 1
    """1 to count."""
    count: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9_]+", self.split):
            raise ValueError(f"split must be lower-case letters, digits and _, got {self.split!r}")
        if not 1 <= self.number <= self.count <= MAX_PARTS:
            raise ValueError(
                f"part must be I/N with 1 <= I <= N <= {MAX_PARTS}, got {self.number}/{self.count}"
            )

    def __str__(self) -> str:
        if self.count == 1:
            return f"split {self.split!r}"
        return f"part {self.number}/{self.count} of split {self.split!r}"

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the split."""
        return self.count == 1

    @property
    def prefix(self) -> str:
        """What the names of its shards begin with."""
        return f"{self.split}-" if self.is_whole else f"{self.split}-{self.number:05d}-"

    @property
    def journal_name(self) -> str:
        """Name of the hidden file that its run leaves while it is not finished."""
        return f".{self._stem}.journal"

    @property
    def lock_name(self) -> str:
        """Name of the hidden file that its run holds locked."""
        return f".{self._stem}.lock"

    @property
    def index_name(self) -> str:
        """Name of the index that it leaves for the join."""
        return f"{self._stem}.index.json"

    @property
    def rejected_name(self) -> str:
        """Name of the list of what could not be read that it leaves for the join."""
        return f"{self._stem}.rejected.jsonl"

    def shard_name(self, number: int) -> str:
        """Return the name of its shard of that number."""
        return f"{self.prefix}{number:06d}.tar"

    def owns(self, tar_name: str) -> bool:
        """Whether a tar is called as a shard of this part."""
        return bool(re.fullmatch(_SHARD_NAME.format(self.prefix), tar_name))

    def of(self, num_photos: int) -> range:
        """Return the numbers of the photographs that it takes, out of so many."""
        first, end = (i * num_photos // self.count for i in (self.number - 1, self.number))
        return range(first, end)

    @property
    def _stem(self) -> str:
        return (
            self.split if self.is_whole else f"{self.split}-{self.number:05d}-of-{self.count:05d}"
        )


def find_parts(folder: Path, suffix: str) -> dict[Part, Path]:
    """Find what parts have left in a folder: their indexes, say, or with the first dot journals."""
    hidden = re.escape("." if suffix == ".journal" else "")
    pattern = hidden + r"([a-z0-9_]+)(?:-(\d{5})-of-(\d{5}))?" + re.escape(suffix)
    found: dict[Part, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := re.fullmatch(pattern, path.name):
            split, number, count = match.groups()
            part = Part(split=split, number=int(number or 1), count=int(count or 1))
            found[part] = path
    return found


def is_part_shard(tar_name: str, split: str) -> bool:
    """Whether a tar is called as a shard of one of several parts of a split."""
    return bool(re.fullmatch(_SHARD_NAME.format(rf"{re.escape(split)}-\d{{5}}-"), tar_name))
