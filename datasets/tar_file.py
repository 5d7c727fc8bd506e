"""A tar as WebDataset has them, written member by member, and the `.idx` that DALI reads beside it.

POSIX ustar with fixed times, owners and modes, so that the same members give the same bytes.
"""

import hashlib
import tarfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import PurePosixPath
from typing import IO, NamedTuple

BLOCK = tarfile.BLOCKSIZE


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    """First byte of its content."""
    size: int


class TarFileWriter:
    """Writes members one after another, and takes the checksum of it all on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self.bytes = 0
        self.members: list[Member] = []
        self._file, self._digest = file, hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._digest.hexdigest()

    def add(self, name: str, data: bytes) -> Member:
        """Write one member.

        Raises:
            ValueError: If the name or the data are longer than ustar can say.
        """
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        member = Member(name, self.bytes, len(data))
        self._write(data)
        self._write(bytes(-len(data) % BLOCK))
        self.members.append(member)
        return member

    def finish(self) -> None:
        """Write the end of the archive, filled up to a whole record as `tar` does."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self.bytes % tarfile.RECORDSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)


def split_name(name: str) -> tuple[str, str]:
    """Split the name of a member into key and extension, at the first dot as WebDataset does."""
    folder, slash, file = name.rpartition("/")
    key, _, extension = file.partition(".")
    return f"{folder}{slash}{key}", extension


def idx_name(tar_name: str) -> str:
    """Return the name of the `.idx` that belongs to a tar."""
    return PurePosixPath(tar_name).with_suffix(".idx").as_posix()


def dali_index(members: Iterable[Member]) -> bytes:
    """Return the `.idx` of a tar: DALI's index of version 1.2, as its wds2idx writes it."""
    lines = [
        " ".join(f"{split_name(m.name)[1]} {m.offset} {m.size} {m.name}" for m in sample)
        for _, sample in groupby(members, key=lambda member: split_name(member.name)[0])
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode()
