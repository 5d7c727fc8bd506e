"""A cache of ranges on the local disk: one file for each, the longest unused deleted first.

Several processes may share the folder: files appear whole, are deleted by anyone, and carry a
checksum. What the disk refuses to take is not cached, and counted.
"""

import hashlib
import os
import re
import secrets
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path
from threading import Lock

from .files import check_writable

_SUFFIX = ".range"
_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(_SUFFIX)}")
_PART = re.compile(rf"\.[0-9a-f]{{64}}{re.escape(_SUFFIX)}\.[0-9a-f]{{8}}\.part")
_CHECKSUM_BYTES = 4
_ABANDONED_S = 3600.0
# The folder is looked through again after this share of its limit was written: others write too.
_SCAN_SHARE = 1 / 64


class RangeCache:
    """Ranges of files, by what they are; may be used by threads."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Make or open a cache; other files in the folder are left alone.

        Raises:
            ValueError: If `max_bytes` is below 1, or the folder cannot be written or is full.
        """
        if max_bytes < 1:
            raise ValueError(f"cache_bytes must be at least 1, got {max_bytes}")
        check_writable(folder)
        try:
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(4096))
        except OSError as error:
            raise ValueError(
                f"cannot write into {folder}: {error.strerror or error}; choose another cache_dir"
            ) from error
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = Lock()
        self._failures = 0
        self._bytes = self._coming = self._written = 0
        self._shrink()

    @property
    def failures(self) -> int:
        """Ranges that could not be written; after the first, none is tried again."""
        return self._failures

    def get(self, url: str, tag: str, offset: int, size: int) -> bytes | None:
        """Return a range if it is there and undamaged."""
        path = self._path(url, tag, offset, size)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        data, checksum = stored[:size], stored[size:]
        if len(data) != size or checksum != _checksum(data):
            return None
        # Deleted by another process, or not ours: it was read all the same.
        with suppress(OSError):
            os.utime(path)
        return data

    def put(self, url: str, tag: str, offset: int, data: bytes) -> None:
        """Store a range; a copy that is there already is replaced."""
        size = len(data) + _CHECKSUM_BYTES
        if self._failures or size > self._max_bytes:
            return
        path = self._path(url, tag, offset, len(data))
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        with self._lock:
            # What other threads are writing is not to be seen in the folder yet.
            self._coming += size
            self._written += size
        try:
            with self._lock:
                full = self._bytes + self._coming > self._max_bytes
                if full or self._written > self._max_bytes * _SCAN_SHARE:
                    self._shrink()
            with temporary.open("xb") as file:
                file.write(data)
                file.write(_checksum(data))
            temporary.replace(path)
        except OSError:
            self._failures += 1
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        finally:
            with self._lock:
                self._coming -= size
                self._bytes += size

    def renew(self) -> None:
        """Forget locks that another thread held while this process was forked."""
        self._lock, self._coming = Lock(), 0

    def _path(self, url: str, tag: str, offset: int, size: int) -> Path:
        what = "\n".join([url, tag, str(offset), str(size)])
        return self._folder / (hashlib.sha256(what.encode()).hexdigest() + _SUFFIX)

    def _shrink(self) -> None:
        """Count what is there; if it and what is coming are too much, delete the longest unused."""
        found: list[tuple[float, int, str]] = []
        total = self._coming
        with os.scandir(self._folder) as listing:
            entries = list(listing)
        for entry in entries:
            if not (_NAME.fullmatch(entry.name) or _PART.fullmatch(entry.name)):
                continue
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if _NAME.fullmatch(entry.name):
                found.append((facts.st_mtime, facts.st_size, entry.path))
            elif time.time() - facts.st_mtime > _ABANDONED_S:
                Path(entry.path).unlink(missing_ok=True)
            else:
                # Being written, here or in another process.
                total += facts.st_size
        total += sum(size for _, size, _ in found)
        if total > self._max_bytes:
            # A tenth more than needed, or every further range would look through the folder.
            for _, size, path in sorted(found):
                if total <= max(self._max_bytes * 0.9, self._coming):
                    break
                Path(path).unlink(missing_ok=True)
                total -= size
        self._bytes, self._written = total - self._coming, 0


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little")
