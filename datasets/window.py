"""A tar that is read forward and in part: local by seeking, others by ranged reads.

What is read at a time grows while one piece follows the other, so that many small members cost few
requests, and falls back when something large is stepped over.
"""

import hashlib
import io
from functools import partial
from pathlib import Path
from typing import Any

from .ranges import RangeReader
from .urls import is_remote, local_path, plain_url

# A server answers no sooner for less: a first read takes what comes in about that time.
_LOCAL_READ, _REMOTE_READ, _LARGEST_READ = 8192, 32_768, 4_194_304


class Window:
    """A tar that is read forward, in pieces that grow while one follows the other."""

    def __init__(self, url: str, size: int, reader: RangeReader, *, hashing: bool) -> None:
        self._name, self._size = plain_url(url), size
        self._file = None if is_remote(url) else Path(local_path(url)).open("rb", 0)  # noqa: SIM115
        self._fetch = self._fetch_local if self._file else partial(reader.fetch, url)
        self._smallest = self._piece = _LOCAL_READ if self._file else _REMOTE_READ
        self._data, self._start, self._place = b"", 0, 0
        self._digest = hashlib.sha256() if hashing else None

    def at(self, offset: int, count: int) -> bytes:
        """Return the bytes there; fewer only at the end of the file."""
        count = max(0, min(count, self._size - offset))
        if offset < self._start or offset + count > self._start + len(self._data):
            self._load(offset, count)
        place = offset - self._start
        assert place >= 0, "while hashing, a window only goes forward"
        return self._data[place : place + count]

    def sha256(self) -> str:
        """Read the rest, and return the checksum of the whole file."""
        assert self._digest is not None
        self.at(self._size, 0)
        return self._digest.hexdigest()

    def seek(self, offset: int) -> int:
        """Go to a place, as `tarfile` asks of files."""
        self._place = offset
        return offset

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def read(self, count: int) -> bytes:
        """Return the bytes from the place on, and go behind them."""
        data = self.at(self._place, count)
        self._place += len(data)
        return data

    def close(self) -> None:
        """Close the file, if it is local."""
        if self._file:
            self._file.close()

    def _load(self, offset: int, count: int) -> None:
        end = self._start + len(self._data)
        if self._digest is not None:
            # Without a gap, for the checksum of all.
            while end < offset + count:
                piece = self._fetch(end, min(_LARGEST_READ, self._size - end))
                self._digest.update(piece)
                kept = self._data[max(0, offset - self._start) :]
                self._start = end - len(kept)
                self._data = kept + piece
                end += len(piece)
            return
        # In step: the last piece was used up to its end, so all that follows is wanted.
        in_step = self._start <= offset <= end + self._smallest
        self._piece = min(2 * self._piece, _LARGEST_READ) if in_step else self._smallest
        kept = self._data[offset - self._start :] if self._start <= offset < end else b""
        begin = offset + len(kept)
        more = min(max(count - len(kept), self._piece), self._size - begin)
        self._data, self._start = kept + self._fetch(begin, more), offset

    def _fetch_local(self, offset: int, count: int) -> bytes:
        assert self._file is not None
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) < count:
            raise cut_short(self._name, offset + len(data))
        return data


class Part(io.RawIOBase):
    """One member of a tar, as a file."""

    def __init__(self, window: Window, offset: int, size: int) -> None:
        self._window, self._offset, self._size, self._place = window, offset, size, 0

    def readable(self) -> bool:
        """See `io.IOBase`, like the following."""
        return True

    def seekable(self) -> bool:
        """Whether `seek` works."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place of the member."""
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the member goes."""
        count = max(0, min(len(buffer), self._size - self._place))
        buffer[:count] = self._window.at(self._offset + self._place, count)
        self._place += count
        return count


def cut_short(name: str, size: int) -> ValueError:
    """Return the error of a tar that ends at byte `size`, too early."""
    return ValueError(
        f"{name} is cut short: it ends at byte {size}, without its end; copy it again"
    )
