"""The manifest of a batch: JSONL, one line for each photograph, written as it is done.

Several ranks write a part each, `NAME.rank-1-of-8`; in the end these are joined in the order of the
photographs. Lines of earlier runs stay, also those of parts that a broken-off run has left.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..datasets.files import replacing

_BEGINNING = b'{"source": "'
"""Of every line."""


class Manifest:
    """Appends lines to a file, each whole or not at all."""

    def __init__(self, path: Path) -> None:
        """Open a manifest, or begin one.

        Raises:
            ValueError: If the file is something else; it is left alone.
            OSError: If it cannot be written.
        """
        check_manifest(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        # The last run may have been killed within a line.
        self._file.truncate(_whole_bytes(path))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            OSError: If that fails, as on a full disk; nothing of the line stays.
        """
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        size = self._file.seek(0, 2)
        try:
            # One call: what others read or append meanwhile has whole lines.
            if self._file.write(line) != len(line):
                raise OSError(28, "No space left on device", self._file.name)
        except OSError:
            self._file.truncate(size)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def check_manifest(path: Path) -> None:
    """Raise ValueError if a file is there that is no manifest."""
    if path.is_dir():
        raise ValueError(f"cannot write the manifest {path}: it is a folder; name a file")
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.read(len(_BEGINNING))
    # Also the beginning of a line within which a run was killed.
    if not _BEGINNING.startswith(first):
        raise ValueError(f"{path} is there, and is no manifest of agedphoto; name another file")


def part_path(path: Path, rank: int, world_size: int) -> Path:
    """Return where a rank writes; alone, the manifest itself."""
    return path if world_size == 1 else path.with_name(f"{path.name}.rank-{rank}-of-{world_size}")


def join_parts(path: Path, sources: Sequence[Path]) -> None:
    """Append all parts to the manifest, in the order of the photographs, and take them away.

    Raises:
        OSError: If writing fails; all is left as it was.
    """
    parts = sorted(path.parent.glob(f"{_escape(path.name)}.rank-*-of-*"))
    place = {str(source): number for number, source in enumerate(sources)}
    # Only where the lines are: those of a million photographs take half a gigabyte.
    lines: list[tuple[int, int, int, int]] = []
    files = [part.open("rb") for part in parts]
    try:
        for number, file in enumerate(files):
            start = 0
            for line in file:
                if line.endswith(b"\n"):
                    source = json.loads(line).get("source", "")
                    lines.append((place.get(source, -1), number, start, len(line)))
                start += len(line)
        with replacing(path) as joined:
            if path.exists():
                joined.write(path.read_bytes()[: _whole_bytes(path)])
            for _, number, start, size in sorted(lines):
                files[number].seek(start)
                joined.write(files[number].read(size))
    finally:
        for file in files:
            file.close()
    for part in parts:
        part.unlink()


def _whole_bytes(path: Path) -> int:
    """Return where the last whole line ends."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
    return 0


def _escape(name: str) -> str:
    """Let a name in a pattern mean itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
