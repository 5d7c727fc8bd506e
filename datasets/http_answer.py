"""One answer of a web server, whose patience is bounded by ours.

No timeout of a socket bounds a request: looking up a name has none, and a server that sends a byte
now and then never meets it. So the bytes are received on a thread of their own and come through a
queue, and who waits there says how long.
"""

import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import Empty, Queue
from typing import NoReturn

import requests

_CHUNK_BYTES = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that may be another one soon."""
_REMEDIES = {
    401: "it wants a login",
    403: "it does not let everybody have the file",
    404: "there is no such file; check the address",
    410: "the file is gone; look for its new address",
}


class DownloadError(OSError):
    """A file could not be fetched; the message says why, what is left and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """Which content a server answers with."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None
    """Bytes of the whole file."""

    @property
    def validator(self) -> str | None:
        """What If-Range takes: not a weak ETag, which two versions may share."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def may_be(self, other: "Version") -> bool:
        """Whether nothing tells them apart; an answer need not repeat everything."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return all(ours == theirs or ours is None or theirs is None for ours, theirs in pairs)


class Setback(Exception):  # noqa: N818 (it is not an error yet)
    """Something that another attempt may mend."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Answer:
    """What a server answers to GET: status and headers at once, then the bytes by iteration."""

    def __init__(
        self, url: str, headers: Mapping[str, str], *, timeout_s: float, end: float
    ) -> None:
        self._url, self._timeout_s, self._end = url, timeout_s, end
        self._items: Queue = Queue(maxsize=4)
        self._is_left = threading.Event()
        # No compression: it has no ranges, and a length of its own.
        headers = {"Accept-Encoding": "identity", **headers}
        threading.Thread(
            target=self._receive, args=(headers,), name="download", daemon=True
        ).start()
        try:
            self.status, self._headers = self._next()
        except BaseException:
            self._leave()
            raise

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._next():
            yield chunk

    def version(self) -> Version:
        """Which content this is, or is part of."""
        length = self._headers.get("Content-Length", "") if self.status == 200 else ""
        span = re.fullmatch(r"bytes .*/(\d+)", self._headers.get("Content-Range", ""))
        total = span[1] if span else length
        return Version(
            url=self._url,
            etag=self._headers.get("ETag"),
            last_modified=self._headers.get("Last-Modified"),
            total=int(total) if total.isdecimal() else None,
        )

    def first_byte(self) -> int | None:
        """Place in the file of the first byte of a partial answer."""
        span = re.match(r"bytes (\d+)-", self._headers.get("Content-Range", ""))
        return int(span[1]) if span else None

    def refuse(self) -> NoReturn:
        """Raise what an answer without the file calls for.

        Raises:
            Setback: If another attempt may fare better.
            DownloadError: If not.
        """
        if self.status in _PASSING:
            wait_s = _parse_retry_after(self._headers.get("Retry-After", ""))
            wish = f" and asks to wait {wait_s:.0f} s" if wait_s else ""
            raise Setback(f"the server answered {self.status}{wish}", wait_s=wait_s)
        remedy = _REMEDIES.get(self.status, "open the address in a browser to see what it says")
        raise DownloadError(f"{self._url}: the server answered {self.status}: {remedy}")

    def _next(self):
        wait_s = min(self._timeout_s, self._end - time.monotonic())
        if wait_s <= 0:
            raise Setback("the time was up")
        try:
            item = self._items.get(timeout=wait_s)
        except Empty:
            raise Setback(f"nothing came for {wait_s:.3g} s") from None
        if isinstance(item, Exception):
            self._fail(item)
        return item

    def _fail(self, error: Exception) -> NoReturn:
        cause: BaseException = error
        # The innermost says it without the addresses of objects.
        while cause.__context__:
            cause = cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"{self._url}: the certificate of the server cannot be trusted: {cause}; "
                "check the clock and the certificates of this machine"
            ) from error
        if isinstance(error, ValueError | requests.TooManyRedirects):
            raise DownloadError(f"{self._url}: {error}") from error
        raise Setback(str(cause) or type(cause).__name__) from error

    def _leave(self) -> None:
        self._is_left.set()
        # Make room, in case the thread waits for it.
        while not self._items.empty():
            self._items.get_nowait()

    def _receive(self, headers: Mapping[str, str]) -> None:
        try:
            with requests.get(
                self._url, headers=headers, stream=True, timeout=self._timeout_s
            ) as response:
                self._items.put((response.status_code, response.headers))
                # read1 gives what is there; all other ways wait until the whole chunk is.
                while chunk := response.raw.read1(_CHUNK_BYTES):
                    if self._is_left.is_set():
                        return
                    self._items.put(chunk)
            self._items.put(b"")
        except Exception as error:
            self._items.put(error)


def _parse_retry_after(value: str) -> float:
    """Return the seconds of a Retry-After header, which may be a date; 0 if it says nothing."""
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
