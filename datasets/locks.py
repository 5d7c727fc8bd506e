"""Locks between processes, held by the operating system: who dies, however, lets go."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_POLL_S = 0.1


@contextmanager
def locking(
    path: Path, *, wait_s: float, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock that the file `path` stands for while the block runs.

    The file is made if needed and taken away afterwards. It says nothing by being there.

    Args:
        path: The file; in a folder that exists.
        wait_s: Seconds to wait for another process, or thread, that holds it.
        on_wait: Called once if there is somebody to wait for.

    Raises:
        TimeoutError: If it is still held after `wait_s`.
        OSError: If the file system knows no locks.
    """
    end = time.monotonic() + wait_s
    has_waited = False
    while (file := _try_lock(path)) is None:
        if time.monotonic() >= end:
            raise TimeoutError(
                f"another process holds {path} and did not let go of it within {wait_s:.0f} s"
            )
        if not has_waited:
            has_waited = True
            on_wait()
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        # Windows takes no open file away; there it stays.
        with suppress(OSError):
            path.unlink()
        file.close()


def _try_lock(path: Path) -> BinaryIO | None:
    file = path.open("ab")
    try:
        # Who held it before may have taken the file away since it was opened.
        if _lock(file) and path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except FileNotFoundError:
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            # Some cluster file systems are mounted without.
            error.filename = str(file.name)
            raise
        return True
