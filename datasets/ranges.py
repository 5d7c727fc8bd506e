"""Ranged reads: some bytes of a file, wherever it lies.

Local files are opened and read. Everything else goes through fsspec and may fail for a while: it
is tried again, from where it broke off, under one deadline, and kept in a cache if there is one.
"""

import os
import random
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeVar

from .range_cache import RangeCache
from .remote import (
    FileFacts,
    RefusedError,
    RemoteFiles,
    ShortFileError,
    is_final,
    reason,
)
from .urls import is_remote, local_path, plain_url

T = TypeVar("T")

FIRST_WAIT_S = 0.2
"""Before the second attempt; each further wait is twice as long, all of them up to half off."""
MAX_WAIT_S = 10.0

# One connection pool is enough for all hosts and buckets of these.
_ANY_HOST = ("http", "https", "s3", "s3a", "gs", "gcs", "memory")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadCounts:
    """What a reader has done so far, in this process."""

    reads: int = 0
    """Ranges and files that were answered."""
    bytes_read: int = 0
    """Bytes that came from files and servers, also those of attempts that failed."""
    retries: int = 0
    """Attempts beyond the first."""
    cache_hits: int = 0
    """Ranges answered from the cache."""
    cache_failures: int = 0
    """Ranges that the cache's disk refused to take; after the first, none is tried again."""


class RangeReader:
    """Reads ranges of local files and of anything that fsspec reaches; may be used by threads.

    Pickled or forked it goes on with the same settings and connections of its own.
    """

    def __init__(
        self,
        *,
        retries: int = 5,
        deadline_s: float = 60.0,
        cache_dir: Path | None = None,
        cache_bytes: int = 50_000_000_000,
    ) -> None:
        """Set up; nothing is opened yet.

        Args:
            retries: Attempts after the first, for what is not a local file.
            deadline_s: A read ends after this time, waits and all attempts included.
            cache_dir: Folder for ranges of files that are not local; made if needed.
            cache_bytes: The cache is kept below this size.

        Raises:
            ValueError: If a number is out of range or the folder cannot be written.
        """
        if retries < 0:
            raise ValueError(f"retries must be at least 0, got {retries}")
        if not deadline_s > 0:
            raise ValueError(f"deadline_s must be above 0, got {deadline_s}")
        self._settings: dict[str, Any] = {
            "retries": retries,
            "deadline_s": deadline_s,
            "cache_dir": cache_dir,
            "cache_bytes": cache_bytes,
        }
        self._retries, self._deadline_s = retries, deadline_s
        self._cache = None if cache_dir is None else RangeCache(Path(cache_dir), cache_bytes)
        self._renew()
        _READERS.add(self)

    def read(
        self, url: str, offset: int, size: int, *, tag: str = "", fresh: bool = False
    ) -> bytes:
        """Return exactly `size` bytes from `offset` on.

        Args:
            url: Path or URL.
            offset: First byte.
            size: Number of bytes.
            tag: What tells this content of the URL from an earlier one, such as a checksum.
            fresh: Do not take it from a cache.

        Raises:
            ValueError: If the file is shorter, or nothing here can read such a URL.
            OSError: If it cannot be read; names URL, range, attempts and the last reason.
        """
        if not is_remote(url):
            data = _read_local(local_path(url), offset, size)
            self._count(reads=int(len(data) == size), bytes_read=len(data))
            if len(data) != size:
                raise _cut_short(len(data), size)
            return data
        if size == 0:
            return b""
        # A signature changes with every day, the content that has this checksum does not.
        name = plain_url(url) if tag else url
        if self._cache and not fresh:
            cached = self._cache.get(name, tag, offset, size)
            if cached is not None:
                self._count(reads=1, cache_hits=1)
                return cached
        data = self.fetch(url, offset, size)
        if self._cache:
            self._cache.put(name, tag, offset, data)
        self._count(reads=1)
        return data

    def fetch(self, url: str, offset: int, size: int) -> bytes:
        """Read a range of a file that is not local past the cache; raises as `read`."""
        data = bytearray()

        def attempt(files: RemoteFiles, seconds: float) -> None:
            before = len(data)
            try:
                files.fetch(url, offset + before, offset + size, data, seconds=seconds)
            finally:
                self._count(bytes_read=len(data) - before)
            if len(data) < size:
                raise OSError(f"{len(data)} of {size} bytes arrived")

        try:
            self._persist(url, f"bytes {offset} to {offset + size - 1}", attempt)
        except ShortFileError as error:
            there = min(max(error.args[0] - offset, 0), size)
            raise _cut_short(there, size) from error
        return bytes(data)

    def read_all(self, url: str) -> bytes:
        """Return a whole, small file, such as an index; never from the cache.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If nothing here can read such a URL.
            OSError: If it cannot be read.
        """
        if not is_remote(url):
            data = Path(local_path(url)).read_bytes()
        else:
            data = self._persist(
                url,
                "the whole file",
                lambda files, seconds: files.fetch_all(url, seconds=seconds),
            )
        self._count(reads=1, bytes_read=len(data))
        return data

    def facts(self, url: str) -> FileFacts:
        """Return size and stamp of a file; raises as `read_all`."""
        if not is_remote(url):
            facts = Path(local_path(url)).stat()
            return FileFacts(facts.st_size, str(facts.st_mtime_ns))
        return self._persist(
            url, "its size", lambda files, seconds: files.facts(url, seconds=seconds)
        )

    def size(self, url: str) -> int:
        """Return the number of bytes of a file; raises as `read_all`."""
        return self.facts(url).size

    def names(self, folder: str) -> list[str]:
        """List the names in a folder, sorted; raises as `read_all`, always on HTTP."""
        if not is_remote(folder):
            return sorted(path.name for path in Path(local_path(folder)).iterdir())
        return self._persist(
            folder,
            "its list of files",
            lambda files, seconds: files.names(folder, seconds=seconds),
        )

    @property
    def counts(self) -> ReadCounts:
        """What has been done so far, in this process."""
        failures = self._cache.failures if self._cache else 0
        with self._lock:
            return replace(self._counts, cache_failures=failures)

    def close(self) -> None:
        """Let go of all connections; reads under way end at once, later ones too, as OSError."""
        self._closed.set()
        with self._lock:
            remotes, self._remotes = list(self._remotes.values()), {}
        for remote in remotes:
            remote.cancel()

    def _persist(self, url: str, what: str, attempt: Callable[[RemoteFiles, float], T]) -> T:
        """Attempt it until it is done, refused for good, or the deadline is over."""
        end = time.monotonic() + self._deadline_s
        remote = self._remote(url)
        last: BaseException = TimeoutError("there was no time")
        number = 0
        while not self._closed.is_set() and (left := end - time.monotonic()) > 0:
            self._count(retries=int(number > 0))
            number += 1
            is_last = number > self._retries
            try:
                # A connection that stands still is given up while there is time for another.
                return attempt(remote, left if is_last else left / 2)
            except ShortFileError:
                raise
            except (Exception, CancelledError) as error:
                # Time limits have no message.
                last = error if str(error) else TimeoutError("the server did not go on answering")
                if is_last or is_final(error):
                    break
            wait = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** (number - 1)) * self._random.uniform(0.5, 1)
            self._closed.wait(min(wait, max(0.0, end - time.monotonic())))
        if self._closed.is_set():
            raise OSError(f"{plain_url(url)}: {what} not read, the reader is closed")
        kinds = (FileNotFoundError, PermissionError, RefusedError)
        kind = next((kind for kind in kinds if isinstance(last, kind)), OSError)
        tried = "1 attempt" if number == 1 else f"{number} attempts"
        late = f" within {self._deadline_s:g} s" if time.monotonic() >= end else ""
        raise kind(f"{plain_url(url)}: {what} not read{late} in {tried}: {reason(last)}") from last

    def _remote(self, url: str) -> RemoteFiles:
        # Settings, such as the user and host of sftp, can be part of the URL.
        scheme, _, rest = url.partition("://")
        name = scheme if scheme in _ANY_HOST else f"{scheme}://{rest.partition('/')[0]}"
        with self._lock:
            if name not in self._remotes:
                self._remotes[name] = RemoteFiles(url)
            return self._remotes[name]

    def _count(self, **more: int) -> None:
        with self._lock:
            now = {name: getattr(self._counts, name) + count for name, count in more.items()}
            self._counts = replace(self._counts, **now)

    def _renew(self) -> None:
        """Begin anew, as after a fork: locks may be held and loops stand still for ever."""
        self._lock, self._closed = Lock(), Event()
        if self._cache:
            self._cache.renew()
        self._remotes: dict[str, RemoteFiles] = {}
        self._counts = ReadCounts()
        self._random = random.Random()

    def __getstate__(self) -> dict[str, Any]:
        return self._settings

    def __setstate__(self, settings: dict[str, Any]) -> None:
        RangeReader.__init__(self, **settings)


def _read_local(path: str, offset: int, size: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _cut_short(there: int, size: int) -> ValueError:
    return ValueError(f"{there} of {size} bytes are there; the shard is cut short, copy it again")


_READERS: "weakref.WeakSet[RangeReader]" = weakref.WeakSet()
# Connections of the parent: closing them here would end them there.
_PARENTS: list[dict[str, RemoteFiles]] = []


def _renew_readers() -> None:
    for reader in list(_READERS):
        _PARENTS.append(reader._remotes)
        reader._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_readers)
