"""The journal of a run: what is finished, so that the same run begun again goes on from there.

A hidden file beside the shards, one line of JSON for the plan and one for each finished shard. A
line counts when it is whole: the last one may have been torn when the run was killed. Lines are
added at the end, not the file written anew, so that ten thousand shards cost ten thousand lines.
A run of several splits has one journal: that it is deleted is the one moment at which it is done.
While the run lives it holds locks beside it, so that no other run writes the same splits.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .index import Sample, Shard
from .locks import locking


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A shard that lies whole under its final name."""

    shard: Shard
    samples: list[Sample]
    """Their `shard` is the number of this one among those of its split."""
    rejected: list[tuple[int, str]]
    """Numbers of the photographs left out since the shard before, and why."""
    next_photo: int
    """Number of the photograph of the split to go on with."""


class Journal:
    """An open journal; see `open_journal`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.is_done = False
        """Whether everything is finished, so that the file goes when it is closed."""
        self.finished: list[Finished] = []
        lines = _whole_lines(file)
        self.plan: dict[str, Any] | None = lines[0][0] if lines else None
        self._end = lines[0][1] if lines else 0
        for content, end in lines[1:]:
            self.finished.append(_from_json(content))
            self._end = end
        self._ends = [end for _, end in lines]

    def begin(self, plan: dict[str, Any]) -> None:
        """Write the plan of a new run."""
        self.plan, self._end, self._ends = plan, 0, []
        self._append(plan)

    def of_split(self, split: str) -> list[Finished]:
        """Return what is finished of one split."""
        return [finished for finished in self.finished if finished.shard.split == split]

    def append(self, finished: Finished) -> None:
        """Note that a shard is finished; on disk when this returns."""
        self._append(_to_json(finished))
        self.finished.append(finished)

    def keep_first(self, count: int) -> None:
        """Forget all but the first `count` finished shards."""
        del self.finished[count:], self._ends[count + 1 :]
        self._end = self._ends[-1]

    def _append(self, content: Any) -> None:
        # From the end of the last whole line: what is behind it was torn.
        self._file.seek(self._end)
        self._file.truncate()
        line = memoryview(json.dumps(content, separators=(",", ":")).encode() + b"\n")
        while line:
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())
        self._end = self._file.tell()
        self._ends.append(self._end)


@contextmanager
def open_journal(path: Path, locks: Sequence[Path]) -> Iterator[Journal]:
    """Open the journal, made if needed, and hold locks meanwhile.

    It is deleted in the end if everything is done, and if there is nothing to go on from.

    Raises:
        ValueError: If another run holds one of the locks.
    """
    with ExitStack() as held:
        for lock in locks:
            try:
                held.enter_context(locking(lock, wait_s=0))
            except TimeoutError as error:
                raise ValueError(
                    f"another run is writing these shards at this moment, it holds {lock}; wait "
                    "for its end, or choose another folder or split"
                ) from error
        # Without a buffer: what could not be written is not tried again as the file is closed.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        is_needed = True
        try:
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                journal = Journal(file)
                try:
                    yield journal
                finally:
                    is_needed = bool(journal.finished) and not journal.is_done
        finally:
            if not is_needed:
                path.unlink(missing_ok=True)


def _whole_lines(file: IO[bytes]) -> list[tuple[Any, int]]:
    """Return the content of each whole line, and where it ends."""
    lines: list[tuple[Any, int]] = []
    end = 0
    file.seek(0)
    for line in file.read().splitlines(keepends=True):
        end += len(line)
        if not line.endswith(b"\n"):
            break
        try:
            lines.append((json.loads(line), end))
        except ValueError:
            break
    return lines


def _to_json(finished: Finished) -> dict[str, Any]:
    shard = finished.shard
    return {
        "shard": [shard.name, shard.split, shard.bytes, shard.sha256],
        "samples": finished.samples,
        "rejected": finished.rejected,
        "next_photo": finished.next_photo,
    }


def _from_json(content: dict[str, Any]) -> Finished:
    name, split, size, sha256 = content["shard"]
    return Finished(
        shard=Shard(name=name, split=split, bytes=size, sha256=sha256),
        samples=[Sample(*row) for row in content["samples"]],
        rejected=[(number, reason) for number, reason in content["rejected"]],
        next_photo=content["next_photo"],
    )
