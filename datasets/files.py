"""Files that are whole or not there: written under a temporary name, flushed, then renamed."""

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write; it appears as `path` when the block ends well, else leaves no trace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile: it makes private files, and a finished one is to be as readable as the
    # user's others.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            # A failed write does not know what it was writing.
            error.filename = str(path)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file at once or not at all."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, at once or not at all; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def check_writable(folder: Path) -> None:
    """Make the folder if needed, and raise ValueError if nothing can be written into it."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write into {folder}: it is a file; choose a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write into {folder}: {error.strerror or error}") from error
