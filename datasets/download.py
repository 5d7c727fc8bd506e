"""Downloads of large files over HTTP that survive bad networks.

What has arrived lies in `<name>.part` and stays there after a failure, on purpose: the next
attempt, be it tomorrow's, goes on where this one ended. `<name>.part.json` holds what tells this
version of the file from another; a server that names none is asked for everything again.

A finished file has its SHA-256 beside it in `<name>.sha256`, as `sha256sum` writes it. The first
download records it, unless it is there already, and every later run compares.
"""

import errno
import hashlib
import json
import math
import os
import random
import re
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from .files import write_bytes, write_json
from .http_answer import Answer, DownloadError, Setback, Version
from .locks import locking

_CHUNK_BYTES = 1 << 20
_LONGEST_BACKOFF_S = 60.0


def download(
    url: str,
    path: Path,
    *,
    deadline_s: float,
    timeout_s: float = 30.0,
    retries: int = 8,
    backoff_s: float = 1.0,
    progress: bool = False,
) -> Path:
    """Fetch a file, go on with an earlier attempt, or check the file that is there.

    A file that is there is compared with its recorded SHA-256 and nothing is asked of the server.
    Of several processes with the same `path` one fetches; the others wait and check.

    Args:
        url: http or https.
        path: The file; it appears when it is whole.
        deadline_s: Seconds for everything that waits for others: above 0.
        timeout_s: Seconds without a byte after which a connection is given up; above 0.
        retries: Failures in a row to bear, in which no byte more than ever before arrives.
        backoff_s: Wait after the first of them; it doubles with each, up to a minute.
        progress: Show a bar on stderr.

    Returns:
        `path`.

    Raises:
        DownloadError: If the file cannot be fetched.
        ValueError: If the file, or what was fetched, is not what its record says.
        OSError: If it cannot be written; a disk without space is found out before.
    """
    _check_arguments(url, path, deadline_s, timeout_s, retries, backoff_s)
    end = time.monotonic() + deadline_s
    path.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
        lock = locking(
            _beside(path, ".lock"),
            wait_s=deadline_s,
            on_wait=lambda: bar.set_postfix_str("another process is downloading it"),
        )
        with lock:
            if path.exists():
                _check(path, path, bar)
            else:
                part = _beside(path, ".part")
                transfer = _Transfer(url, part, end, deadline_s, timeout_s, bar)
                transfer.run(retries=retries, backoff_s=backoff_s)
                _check(part, path, bar)
                part.replace(path)
                _beside(path, ".part.json").unlink(missing_ok=True)
    return path


def read_sha256(path: Path) -> str | None:
    """Return the recorded SHA-256 of a file in hexadecimal digits; None if there is no record.

    Raises:
        ValueError: If the record cannot be understood.
    """
    record = _beside(path, ".sha256")
    if not record.exists():
        return None
    found = re.match(rb"\\?([0-9a-fA-F]{64})\s", record.read_bytes())
    if not found:
        raise ValueError(f"{record} holds no SHA-256; delete it, and it is made anew")
    return found[1].decode().lower()


def _check_arguments(
    url: str, path: Path, deadline_s: float, timeout_s: float, retries: int, backoff_s: float
) -> None:
    if not re.match(r"https?://[^/]", url):
        raise ValueError(f"url must begin with http:// or https:// and a host, got {url!r}")
    if not deadline_s > 0:
        raise ValueError(f"deadline_s must be above 0, got {deadline_s}")
    if not 0 < timeout_s < math.inf:
        raise ValueError(f"timeout_s must be finite and above 0, got {timeout_s}")
    if retries < 0 or not backoff_s >= 0:
        raise ValueError(
            f"retries and backoff_s must not be negative, got {retries} and {backoff_s}"
        )
    if path.is_dir():
        raise ValueError(f"path must be a file, got the folder {path}; add a name to it")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _check(file: Path, path: Path, bar: tqdm) -> None:
    """Compare `file`, that is or shall be `path`, with the record of `path`, or make the record."""
    recorded, digest = read_sha256(path), hashlib.sha256()
    bar.reset(total=file.stat().st_size)
    bar.set_postfix_str("checking")
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
            bar.update(len(chunk))
    bar.set_postfix_str("")
    sha256, record = digest.hexdigest(), _beside(path, ".sha256")
    if recorded is None:
        write_bytes(record, f"{sha256}  {path.name}\n".encode())
    elif recorded != sha256 and file == path:
        raise ValueError(
            f"{path} is not the file of the SHA-256 in {record.name}: it was changed or damaged "
            "since; delete it to download it again"
        )
    elif recorded != sha256:
        raise ValueError(
            f"what was downloaded for {path} is not the file of the SHA-256 in {record.name}; "
            f"delete {file} to download it again, or {record} if the file is now a new one"
        )


class _Transfer:
    """The bytes of one file on their way into `part`."""

    def __init__(
        self, url: str, part: Path, end: float, deadline_s: float, timeout_s: float, bar: tqdm
    ) -> None:
        self._url, self._part, self._facts = url, part, part.with_name(f"{part.name}.json")
        self._end, self._deadline_s, self._timeout_s, self._bar = end, deadline_s, timeout_s, bar
        self._known = self._load()

    def run(self, *, retries: int, backoff_s: float) -> None:
        """Return when all bytes are there."""
        failures, best = 0, self._have() if self._known else 0
        while True:
            try:
                if not self._is_whole():
                    self._fetch()
                return self._confirm()
            except Setback as setback:
                reason, wait_s = str(setback), setback.wait_s
            failures = 0 if self._have() > best else failures + 1
            best = max(best, self._have())
            if failures > retries:
                raise DownloadError(
                    f"{self._url}: gave up after {failures} failures in a row, the last: {reason}"
                    f"{self._left()}"
                )
            backoff = min(_LONGEST_BACKOFF_S, backoff_s * 2 ** max(0, failures - 1))
            # Not all at the same moment: many machines may have met the same outage.
            wait_s = max(wait_s, backoff * random.SystemRandom().uniform(0.5, 1.0))
            if time.monotonic() + wait_s >= self._end:
                raise DownloadError(
                    f"{self._url}: not done within deadline_s = {self._deadline_s:g}: {reason}"
                    f"{self._left()}"
                )
            self._bar.set_postfix_str(f"in {wait_s:.0f} s again: {reason}")
            time.sleep(wait_s)
            self._bar.set_postfix_str("")

    def _fetch(self) -> None:
        """Ask for the bytes that are missing and append them."""
        have = self._have()
        known = self._known if have and self._known and self._known.validator else None
        asked = {"Range": f"bytes={have}-", "If-Range": known.validator or ""} if known else {}
        with Answer(self._url, asked, timeout_s=self._timeout_s, end=self._end) as answer:
            version = answer.version()
            if answer.status == 200:
                self._begin(version)
                have = 0
            elif known and answer.status == 206:
                if answer.first_byte() != have or not version.may_be(known):
                    self._discard("the file on the server is another one now")
            elif known and answer.status == 416:
                # Not at the end, by what the server said before, and yet beyond it.
                if known.total is not None or version.total not in (None, have):
                    self._discard("the file on the server is another one now")
                return
            else:
                answer.refuse()
            assert self._known
            total = self._known.total
            self._check_space((total or have) - have)
            self._show(have, total)
            self._append(answer)
        if total is not None and self._have() != total:
            if self._have() > total:
                self._discard(f"the server sent more than the {total} bytes that it announced")
            raise Setback(f"{self._have()} of {total} bytes came, then the answer ended")

    def _append(self, answer: Answer) -> None:
        try:
            with self._part.open("ab") as file:
                try:
                    for chunk in answer:
                        file.write(chunk)
                        # Whoever kills this process loses nothing that had come.
                        file.flush()
                        self._bar.update(len(chunk))
                finally:
                    os.fsync(file.fileno())
        except OSError as error:
            if error.errno and not error.filename:
                # A failed write does not know what it was writing.
                error.filename = str(self._part)
            raise

    def _confirm(self) -> None:
        """Ask for the byte after the last one: who announced too few bytes gives himself away.

        Whatever goes wrong on the way says nothing: all that was announced is there.
        """
        have = self._have()
        if not have:
            return
        try:
            with Answer(
                self._url, {"Range": f"bytes={have}-"}, timeout_s=self._timeout_s, end=self._end
            ) as answer:
                status, version = answer.status, answer.version()
        except (Setback, DownloadError):
            return
        assert self._known
        is_same = replace(version, total=None).may_be(self._known)
        if is_same and status in (200, 206) and version.total not in (None, have):
            self._discard(f"the server announced {have} bytes, and then {version.total}")

    def _is_whole(self) -> bool:
        return self._known is not None and self._have() == self._known.total

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _load(self) -> Version | None:
        """What is known of the part; None if it cannot be relied on."""
        try:
            known = Version(**json.loads(self._facts.read_bytes()))
            fits = known.total is None or self._have() <= known.total
        except (OSError, ValueError, TypeError):
            return None
        return known if known.url == self._url and fits else None

    def _begin(self, version: Version) -> None:
        # In this order: after a crash between the two, an empty part is nobody's.
        self._part.write_bytes(b"")
        write_json(self._facts, asdict(version))
        self._known = version

    def _discard(self, reason: str) -> None:
        self._part.write_bytes(b"")
        self._known = None
        raise Setback(reason)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{_format(needed)} are needed and {_format(free)} free",
                str(self._part.parent),
            )

    def _show(self, have: int, total: int | None) -> None:
        self._bar.total = total
        if not self._bar.n:
            # What an earlier run fetched must not count as speed.
            self._bar.initial = have
        self._bar.n = have
        self._bar.refresh()

    def _left(self) -> str:
        have = self._have()
        if not have or not self._known:
            return "; run again later"
        if not self._known.validator:
            return "; this server cannot go on with a file: the next run starts from its beginning"
        total = f" of {_format(self._known.total)}" if self._known.total else ""
        return f"; {_format(have)}{total} are kept in {self._part}, run again to go on"


def _format(num_bytes: int) -> str:
    return tqdm.format_sizeof(num_bytes, "B")
