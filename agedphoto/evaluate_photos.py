"""Which photographs are measured on, and what each is called.

A photograph has the name it has in shards, so that the same ones age alike and give the same rows
wherever they lie.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from agedphoto.datasets import PhotoInput, ShardIndex, find_inputs, open_index, read_photo
from agedphoto.datasets.index import INDEX_NAME
from agedphoto.datasets.photos import name_keys

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A photograph to measure on."""

    name: str
    """Letters, digits, - and _; different from those of all others."""
    read: Callable[[], UInt8[np.ndarray, "H W 3"]]
    """Returns it as upright sRGB; raises ValueError or OSError, with its place, if it cannot."""


def find_subjects(sources: Sequence[str], *, split: str = "valid") -> list[Subject]:
    """Find photographs: files, folders and zips of them, or shards; each once.

    Args:
        sources: What was named.
        split: Which split of folders of shards.

    Raises:
        ValueError: If something is not there, holds no photographs, or has no such split.
        OSError: If shards cannot be read.
    """
    found: list[tuple[str, Callable[[], UInt8[np.ndarray, "H W 3"]]]] = []
    seen: set[Path] = set()
    for source in sources:
        if _is_shards(source):
            index = open_index(source, split=split)
            found += [(key, partial(index.read, i)) for i, key in enumerate(_keys(index))]
            continue
        for item in find_inputs(Path(source)):
            # Of a zip the members have no place of their own on disk, but a path all the same.
            place = item.place.resolve()
            if place not in seen:
                seen.add(place)
                found.append((item.name, partial(_read, item)))
    if not found:
        raise ValueError(f"no photographs in {', '.join(sources)}, split {split!r}")
    names = name_keys(name for name, _ in found)
    return [Subject(name=name, read=read) for name, (_, read) in zip(names, found, strict=True)]


def _is_shards(source: str) -> bool:
    return (
        "://" in source
        or source.endswith((*_TARS, INDEX_NAME))
        or (Path(source) / INDEX_NAME).is_file()
    )


def _keys(index: ShardIndex) -> list[str]:
    return [str(key) for key in index.keys]


def _read(item: PhotoInput) -> UInt8[np.ndarray, "H W 3"]:
    try:
        return read_photo(item.read())
    except ValueError as error:
        reason = str(error).removeprefix("photograph: ")
        raise ValueError(f"{item.place}: {reason}") from error
