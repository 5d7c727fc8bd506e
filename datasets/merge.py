"""Bringing splits into the index of a folder, where other splits stay as they are."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from .files import write_bytes
from .index import INDEX_NAME, ShardIndex
from .locks import locking

REJECTED_NAME = "rejected.jsonl"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until nobody else changes the index of a folder, and keep others from it."""
    with locking(folder / f".{INDEX_NAME}.lock", wait_s=600):
        # Of a run that was killed here.
        for name in (INDEX_NAME, REJECTED_NAME):
            sweep(folder.glob(f".{name}.*.part"))
        yield


def read_index(folder: Path) -> ShardIndex | None:
    """Return the index of a folder; None if it has none.

    Raises:
        ValueError: If there is one that cannot be understood.
    """
    path = folder / INDEX_NAME
    return ShardIndex.from_json(str(folder), path.read_bytes()) if path.exists() else None


def add_splits(
    folder: Path, new: ShardIndex, rejected: Iterable[tuple[str, str, str]]
) -> ShardIndex:
    """Put the splits of an index into that of a folder, in the place of those of the same names.

    Args:
        folder: Where the shards lie; it must be `locked`.
        new: Index of the splits.
        rejected: (split, source, reason) of what could not be read for these splits.

    Returns:
        The index of the folder, as it is now in the file.
    """
    whole = merge_splits(read_index(folder), new)
    _write_rejected(folder / REJECTED_NAME, new.splits, rejected)
    # Last: what it lists is all there.
    write_bytes(folder / INDEX_NAME, whole.to_json())
    return whole


def merge_splits(before: ShardIndex | None, new: ShardIndex) -> ShardIndex:
    """Return an index of both; a split that both have is taken from `new`, in its old place."""
    if before is None:
        return new
    splits = [split for split in new.splits if split not in before.splits]
    return ShardIndex.from_parts(
        before.root,
        [
            _without_idle_shards((new if split in new.splits else before).of_split(split))
            for split in (*before.splits, *splits)
        ],
    )


def sweep(paths: Iterable[Path]) -> None:
    """Delete temporary files of runs that were killed."""
    for path in list(paths):
        path.unlink(missing_ok=True)


def rejected_lines(rejected: Iterable[tuple[str, str, str]]) -> bytes:
    """Return (split, source, reason) of each as lines of JSON."""
    # A name that is no valid text on this system comes as lone surrogates: JSON can escape them.
    return b"".join(
        json.dumps({"split": split, "source": source, "reason": reason}).encode() + b"\n"
        for split, source, reason in rejected
    )


def read_rejected(path: Path) -> list[tuple[str, str, str]]:
    """Return (split, source, reason) of each line; nothing if there is no such file.

    Raises:
        ValueError: If it is not such a list.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    try:
        rows = [json.loads(line) for line in lines]
        return [(row["split"], row["source"], row["reason"]) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no list of rejected photographs; move it away") from error


def _write_rejected(
    path: Path, splits: Sequence[str], rejected: Iterable[tuple[str, str, str]]
) -> None:
    others = [row for row in read_rejected(path) if row[0] not in splits]
    if rows := [*others, *rejected]:
        write_bytes(path, rejected_lines(rows))
    else:
        path.unlink(missing_ok=True)


def _without_idle_shards(index: ShardIndex) -> ShardIndex:
    used, place = np.unique(index.shard, return_inverse=True)
    codes, code = np.unique(index.extension, return_inverse=True)
    # Extensions in the order of their first sample, as where an index is made row by row.
    _, first = np.unique(index.extension, return_index=True)
    order = np.argsort(first)
    return replace(
        index,
        shards=tuple(index.shards[number] for number in used),
        shard=place,
        extensions=tuple(index.extensions[number] for number in codes[order]),
        extension=np.argsort(order)[code],
    )
