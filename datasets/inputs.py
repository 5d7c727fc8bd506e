"""What goes into shards: photographs as files of a folder, or as members of a zip.

A photograph here is a name, from which its key is made, and a way to read its bytes. Nothing is
unpacked to disk. Whatever was named and cannot be read stays in the list and raises when it is
read, so that it is reported and never silently passed over.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from .photos import PHOTO_SUFFIXES

FILE_LIMIT = 4_000_000_000
"""Bytes of the largest file that is read: it has to fit into memory, and 8 GB into a tar."""


class PhotoInput(Protocol):
    """A photograph that is to be put into a shard."""

    @property
    def name(self) -> str:
        """Its path with slashes, relative to what was named."""
        ...

    @property
    def place(self) -> Path:
        """Where it is, for messages."""
        ...

    def stamp(self) -> str:
        """What changes when its content does, found without reading it."""
        ...

    def read(self) -> bytes:
        """Return its bytes; raises ValueError or OSError with the reason if it cannot."""
        ...


@dataclass(frozen=True, slots=True)
class FileInput:
    """A file."""

    place: Path
    name: str

    def stamp(self) -> str:
        """See `PhotoInput.stamp`."""
        try:
            status = self.place.stat()
        except OSError as error:
            return error.strerror or type(error).__name__
        return f"{status.st_size} {status.st_mtime_ns}"

    def read(self) -> bytes:
        """See `PhotoInput.read`."""
        with self.place.open("rb") as file:
            _check_bytes(os.fstat(file.fileno()).st_size)
            return file.read()


@dataclass(frozen=True, slots=True)
class ZipInput:
    """A member of a zip; several may be read at a time."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo
    name: str

    @property
    def place(self) -> Path:
        """See `PhotoInput.place`."""
        return Path(self.archive.filename or "zip") / self.member.filename

    def stamp(self) -> str:
        """See `PhotoInput.stamp`."""
        return f"{self.member.file_size} {self.member.CRC:08x}"

    def read(self) -> bytes:
        """See `PhotoInput.read`; the zip's own checksum is compared."""
        if self.member.flag_bits & 1:
            raise ValueError("is encrypted; unpack the zip with its password first")
        _check_bytes(self.member.file_size)
        try:
            return self.archive.read(self.member)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"is damaged in the zip: {error}") from error
        except (NotImplementedError, RuntimeError) as error:
            raise ValueError(f"is packed in a way that is not read here: {error}") from error


@dataclass(frozen=True, slots=True)
class UnreadableFolder:
    """A folder that cannot be listed; it stands in the place of the photographs in it."""

    place: Path
    name: str
    reason: str

    def stamp(self) -> str:
        """See `PhotoInput.stamp`."""
        return self.reason

    def read(self) -> bytes:
        """Raise ValueError."""
        raise ValueError(f"is a folder that cannot be listed: {self.reason}")


def find_inputs(source: Path) -> list[PhotoInput]:
    """List the photographs of a folder and all below it, of a zip, or the one photograph named.

    In order of their names. Hidden files and folders are passed over. Folders behind symbolic links
    are searched, each once.

    Raises:
        ValueError: If the source does not exist, is called zip and is none, or holds no photograph.
    """
    if source.is_dir():
        found = list(_walk(source))
    elif source.suffix.lower() == ".zip":
        found = _list_zip(source)
    elif source.exists():
        return [FileInput(source, source.name)]
    else:
        raise ValueError(f"no such file or folder: {source}")
    if not found:
        suffixes = " ".join(sorted(PHOTO_SUFFIXES))
        raise ValueError(f"no photographs in {source}; looked for {suffixes}")
    return sorted(found, key=lambda item: item.name.split("/"))


def as_inputs(photos: Sequence[Path] | Sequence[PhotoInput], root: Path | None) -> list[PhotoInput]:
    """Make inputs of paths, named relative to `root`; inputs stay as they are."""
    return [
        FileInput(
            photo,
            photo.relative_to(root).as_posix()
            if root and photo.is_relative_to(root)
            else photo.name,
        )
        if isinstance(photo, Path)
        else photo
        for photo in photos
    ]


def _walk(root: Path) -> Iterator[PhotoInput]:
    def name(path: str | Path) -> str:
        return Path(path).relative_to(root).as_posix()

    failed: list[OSError] = []
    seen = {os.path.realpath(root)}
    # Links are followed, so that a set put together of links is whole; `seen` ends their circles.
    for folder, below, files in os.walk(root, followlinks=True, onerror=failed.append):
        below[:] = [
            each
            for each in sorted(below)
            if not each.startswith(".")
            and (real := os.path.realpath(os.path.join(folder, each))) not in seen  # noqa: PTH118
            and not seen.add(real)
        ]
        for file in files:
            path = Path(folder, file)
            if _is_photo_name(file) and path.is_file():
                yield FileInput(path, name(path))
    for error in failed:
        if Path(error.filename).samefile(root):
            raise ValueError(f"{root} cannot be listed: {error.strerror}") from error
        reason = error.strerror or type(error).__name__
        yield UnreadableFolder(Path(error.filename), name(error.filename), reason)


def _list_zip(source: Path) -> list[PhotoInput]:
    try:
        # Stays open as long as an input of it is in use.
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source} is not a whole zip: {error}; fetch it again") from error
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and _is_photo_path(PurePosixPath(member.filename))
    ]
    folders = {PurePosixPath(member.filename).parent for member in members}
    # One folder that holds all says nothing about a photograph.
    above = folders.pop() if len(folders) == 1 else None
    return [
        ZipInput(
            archive,
            member,
            PurePosixPath(member.filename).name if above is not None else member.filename,
        )
        for member in members
    ]


def _is_photo_path(path: PurePosixPath) -> bool:
    # macOS packs its own notes about every file into __MACOSX.
    return not any(part.startswith((".", "__MACOSX")) for part in path.parts) and _is_photo_name(
        path.name
    )


def _is_photo_name(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES


def _check_bytes(size: int) -> None:
    if size > FILE_LIMIT:
        raise ValueError(f"{size:,} bytes are more than the limit of {FILE_LIMIT:,}")
