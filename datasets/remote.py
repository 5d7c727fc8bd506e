"""Files that fsspec reaches, one attempt at a time: no retry here, but a time limit on everything.

HTTP goes through fsspec's session, but its answers are read here, as they arrive: what came before
a connection broke is kept, and a server that ignores ranges is noticed before it has sent a shard.
"""

import asyncio
import inspect
import re
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.http import HTTPFileSystem

from .urls import plain_url

T = TypeVar("T")

_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "last_modified", "mtime")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# By name: their packages are optional, and none of them is an OSError.
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "DefaultCredentialsError",
)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file before it is read."""

    size: int
    """Bytes."""
    stamp: str
    """Changes when the content does: an ETag or the time of the last change; empty if unknown."""


class RefusedError(OSError):
    """The same request would be refused again."""


class ShortFileError(ValueError):
    """The file ends before the range does."""


class RemoteFiles:
    """The files of one protocol; may be used by threads, not after a fork."""

    def __init__(self, url: str) -> None:
        """Open the file system that a URL belongs to.

        Raises:
            ValueError: If the protocol is unknown, its package is missing, or its settings are bad.
        """
        protocol = url.partition("://")[0]
        try:
            # Not fsspec's shared instances: their listings and their loop outlive us, and a fork.
            self._files, _ = fsspec.url_to_fs(url, skip_instance_cache=True)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            remedy = f"pip install {package}" if package else str(error)
            raise ValueError(f"cannot open {plain_url(url)}: {remedy}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot open {plain_url(url)}: {error}") from error
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()

    def fetch(self, url: str, begin: int, end: int, into: bytearray, *, seconds: float) -> None:
        """Append the bytes from `begin` to `end`, or those of them that arrive, to `into`.

        Raises:
            ShortFileError: If the file ends before `end`.
            RefusedError: If the server does not answer with this range.
            FileNotFoundError: If there is no such file.
            PermissionError: If it may not be read.
            TimeoutError: If it takes longer than `seconds`.
            Exception: Whatever else the file system raises.
        """
        files = self._files
        if isinstance(files, HTTPFileSystem):
            self._wait(lambda: self._stream(files, url, begin, end, into), seconds)
            return
        path = files._strip_protocol(url)
        try:
            if isinstance(files, AsyncFileSystem):
                data = self._wait(lambda: files._cat_file(path, start=begin, end=end), seconds)
            else:
                data = self._wait(lambda: files.cat_file(path, start=begin, end=end), seconds)
        except Exception as error:
            if not re.search("range|416|EINVAL", f"{error!r}", re.IGNORECASE):
                raise
            data = b""
        if len(data) > end - begin:
            raise RefusedError(f"answered a range of {end - begin} bytes with {len(data)}")
        into += data
        # Whether the file ends here or the connection did, only its size can tell.
        if len(data) < end - begin and (size := self.facts(url, seconds=seconds).size) < end:
            raise ShortFileError(size)

    def fetch_all(self, url: str, *, seconds: float) -> bytes:
        """Return the whole file; raises as `fetch`."""
        files = self._files
        if isinstance(files, HTTPFileSystem):
            data = bytearray()
            self._wait(lambda: self._stream(files, url, 0, None, data), seconds)
            return bytes(data)
        path = files._strip_protocol(url)
        if isinstance(files, AsyncFileSystem):
            return self._wait(lambda: files._cat_file(path), seconds)
        return self._wait(lambda: files.cat_file(path), seconds)

    def facts(self, url: str, *, seconds: float) -> FileFacts:
        """Ask for size and stamp of a file; raises as `fetch`."""
        files = self._files
        if isinstance(files, HTTPFileSystem):
            return self._wait(lambda: self._ask(files, url), seconds)
        path = files._strip_protocol(url)
        if isinstance(files, AsyncFileSystem):
            info = self._wait(lambda: files._info(path), seconds)
        else:
            info = self._wait(lambda: files.info(path), seconds)
        if info.get("type") == "directory" or info.get("size") is None:
            raise FileNotFoundError(f"{plain_url(url)} is not a file")
        stamp = next((str(info[name]) for name in _STAMPS if info.get(name)), "")
        return FileFacts(int(info["size"]), stamp)

    def names(self, folder: str, *, seconds: float) -> list[str]:
        """List the names in a folder, sorted; raises as `fetch`.

        Raises:
            RefusedError: On HTTP, which knows no folders.
        """
        files = self._files
        if isinstance(files, HTTPFileSystem):
            raise RefusedError("a web server has no folders that could be listed")
        path = files._strip_protocol(folder)
        files.invalidate_cache()
        if isinstance(files, AsyncFileSystem):
            found = self._wait(lambda: files._ls(path, detail=False), seconds)
        else:
            found = self._wait(lambda: files.ls(path, detail=False), seconds)
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def cancel(self) -> None:
        """End whatever is under way; those who wait for it get `CancelledError`."""
        with self._lock:
            pending = list(self._pending)
        for future in pending:
            future.cancel()

    def _wait(self, begin: Callable[[], Any], seconds: float) -> Any:
        """Run a function, or the coroutine that it makes, elsewhere; wait no longer than told."""
        if isinstance(self._files, AsyncFileSystem):
            work = asyncio.wait_for(begin(), seconds)
            loop = self._files.loop
            assert loop is not None
            future = asyncio.run_coroutine_threadsafe(work, loop)
            # asyncio's own limit comes first: it closes the connection properly.
            seconds += 1
        else:
            future = _in_daemon(begin)
        with self._lock:
            self._pending.add(future)
        try:
            return future.result(seconds)
        except (TimeoutError, CancelledError):
            future.cancel()
            raise
        finally:
            with self._lock:
                self._pending.discard(future)

    async def _stream(
        self,
        files: HTTPFileSystem,
        url: str,
        begin: int,
        end: int | None,
        into: bytearray,
    ) -> None:
        wanted = None if end is None else f"bytes={begin}-{end - 1}"
        async with await _get(files, url, wanted) as answer:
            _check_status(answer.status, wanted)
            total = None
            if end is not None:
                total = _check_range(answer, begin, end)
            left = None if end is None else end - begin
            async for chunk in answer.content.iter_any():
                into += chunk if left is None else chunk[:left]
                if left is not None:
                    left -= len(chunk)
                    if left <= 0:
                        return
            if total is not None and end is not None and total < end:
                raise ShortFileError(total)

    async def _ask(self, files: HTTPFileSystem, url: str) -> FileFacts:
        # One byte, not HEAD: signed URLs and some servers allow GET only.
        async with await _get(files, url, "bytes=0-0") as answer:
            size = _total(answer)
            if answer.status != 416:
                _check_status(answer.status, None)
            if answer.status == 200:
                size = answer.content_length
            if size is None:
                raise RefusedError("the server does not say how large the file is")
            stamp = next((answer.headers[name] for name in _STAMPS if name in answer.headers), "")
            return FileFacts(size, stamp)


def is_final(error: BaseException) -> bool:
    """Whether another attempt would fail the same way."""
    return (
        isinstance(
            error,
            FileNotFoundError
            | PermissionError
            | IsADirectoryError
            | NotADirectoryError
            | NotImplementedError
            | ImportError
            | ValueError
            | RefusedError,
        )
        or type(error).__name__ in _NO_CREDENTIALS
    )


def reason(error: BaseException) -> str:
    """Say what went wrong in one line, without queries of URLs."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\")]*", r"\1", text)
    if type(error).__name__ in _NO_CREDENTIALS:
        return f"{text}; set the cloud's usual variables, or FSSPEC_S3_ANON=true for public data"
    return text


async def _get(files: HTTPFileSystem, url: str, wanted: str | None) -> aiohttp.ClientResponse:
    session = await files.set_session()
    options = dict(files.kwargs)
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    if wanted:
        headers["Range"] = wanted
    # The caller's time limit holds, not aiohttp's own of five minutes.
    options.setdefault("timeout", aiohttp.ClientTimeout(total=None))
    return await session.get(files.encode_url(url), headers=headers, **options)


def _check_status(status: int, wanted: str | None) -> None:
    if status in (404, 410):
        raise FileNotFoundError(f"there is no such file (status {status})")
    if status in (401, 403):
        raise PermissionError(f"the server refuses to give it (status {status})")
    # 408, 425 and 429 ask for another attempt, as all from 500 on do.
    if 400 <= status < 500 and status not in (408, 416, 425, 429):
        raise RefusedError(f"the server answers with status {status}")
    if status >= 400 and not (status == 416 and wanted):
        raise OSError(f"the server answers with status {status}")


def _check_range(answer: aiohttp.ClientResponse, begin: int, end: int) -> int | None:
    """Check that the answer is the range that was asked for; return the size of the file."""
    total = _total(answer)
    if answer.status == 416:
        raise (
            ShortFileError(total)
            if total is not None
            else RefusedError("the server says that the file ends before this range")
        )
    if answer.status == 200 and begin == 0 and answer.content_length == end:
        return end
    if answer.status != 206:
        raise RefusedError(
            "the server ignores ranges and would send the whole file; copy the shards to this "
            "machine, or put them on a server that knows ranges"
        )
    first = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if not first or int(first[1]) != begin:
        raise RefusedError(
            f"the server answers with another range: {answer.headers.get('Content-Range')}"
        )
    return total


def _total(answer: aiohttp.ClientResponse) -> int | None:
    total = re.search(r"/(\d+)\s*$", answer.headers.get("Content-Range", ""))
    return int(total[1]) if total else None


def _in_daemon(function: Callable[[], T]) -> "Future[T]":
    """Run a function on a thread that nobody has to wait for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function()
            assert not inspect.isawaitable(result)
        except BaseException as error:
            _settle(future, error=error)
        else:
            _settle(future, result=result)

    threading.Thread(target=run, daemon=True).start()
    return future


def _settle(future: "Future[T]", **outcome: Any) -> None:
    # It may have been cancelled meanwhile.
    if future.set_running_or_notify_cancel():
        if "error" in outcome:
            future.set_exception(outcome["error"])
        else:
            future.set_result(outcome["result"])
