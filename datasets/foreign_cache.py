"""Indexes of tars that are not ours, kept for the next time.

A file beside the tars where they are local and their folder can be written, else one for each
folder in the user's cache. Its first line says which tars it knows and what they looked like, the
second is an index as in index.json. Whatever is wrong with it, the tars are read again.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

import orjson

from .files import write_bytes
from .index import ShardIndex
from .remote import FileFacts
from .urls import is_remote, local_path, plain_url

CACHE_NAME = ".agedphoto-index.jsonl"

_Known = dict[str, tuple[FileFacts, ShardIndex]]


class ForeignCache:
    """Indexes of single tars, by the folder that they lie in; may be used by threads."""

    def __init__(self, cache_dir: Path | None) -> None:
        """Open it; `cache_dir` takes the place of all others."""
        self._cache_dir = cache_dir
        self._folders: dict[str, _Known] = {}
        self._lock = Lock()

    def get(self, url: str, facts: FileFacts) -> ShardIndex | None:
        """Return the index of a tar if it still looks the same; its shard is named by `url`."""
        folder, name = _split(url)
        with self._lock:
            if folder not in self._folders:
                self._folders[folder] = self._load(folder)
            then, index = self._folders[folder].get(name, (None, None))
        if index is None or then != facts:
            return None
        return replace(index, shards=(replace(index.shards[0], name=url),))

    def put(self, found: Mapping[str, tuple[FileFacts, ShardIndex]]) -> None:
        """Keep what is new; where nothing can be written, nothing is kept."""
        changed: set[str] = set()
        for url, (facts, index) in found.items():
            folder, name = _split(url)
            known = self._folders.setdefault(folder, {})
            before, same = known.get(name, (None, None))
            shard = replace(index.shards[0], name=name)
            if before != facts or same is None or same.shards != (shard,):
                known[name] = (facts, replace(index, shards=(shard,)))
                changed.add(folder)
        for folder in changed:
            # Tars that are gone need not be remembered.
            known = {
                name: entry
                for name, entry in self._folders[folder].items()
                if is_remote(folder) or Path(local_path(folder), name).exists()
            }
            content = _to_lines(known)
            for path in self._places(folder):
                with suppress(OSError):
                    write_bytes(path, content)
                    break

    def _load(self, folder: str) -> _Known:
        for path in self._places(folder):
            with suppress(OSError, ValueError, KeyError, TypeError):
                return _from_lines(path.read_bytes())
        return {}

    def _places(self, folder: str) -> list[Path]:
        """Say where an index can lie, the best place first."""
        own = hashlib.sha256(
            (folder if is_remote(folder) else str(Path(local_path(folder)).resolve())).encode()
        ).hexdigest()
        if self._cache_dir is not None:
            return [Path(self._cache_dir) / f"{own}.jsonl"]
        beside = [] if is_remote(folder) else [Path(local_path(folder)) / CACHE_NAME]
        return [*beside, *(path / "indexes" / f"{own}.jsonl" for path in _user_caches())]


def _split(url: str) -> tuple[str, str]:
    folder, _, name = plain_url(url).rpartition("/")
    if is_remote(url):
        # What tells files apart can be in the query, but a secret may be there too.
        query = url.partition("?")[2]
        return folder, name + (f"?{hashlib.sha256(query.encode()).hexdigest()}" if query else "")
    path = Path(local_path(url))
    return str(path.parent), path.name


def _user_caches() -> list[Path]:
    if set_by_user := os.environ.get("XDG_CACHE_HOME"):
        return [Path(set_by_user) / "agedphoto"]
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return [Path(local) / "agedphoto" / "cache"]
    try:
        home = Path.home()
    except RuntimeError:
        # An account without a home.
        return []
    below = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return [home / below / "agedphoto"]


def _to_lines(known: _Known) -> bytes:
    facts = {name: [facts.size, facts.stamp] for name, (facts, _) in known.items()}
    index = ShardIndex.from_parts("", [index for _, index in known.values()])
    return orjson.dumps({"tars": facts}, option=orjson.OPT_APPEND_NEWLINE) + index.to_json()


def _from_lines(content: bytes) -> _Known:
    first, _, second = content.partition(b"\n")
    facts = {name: FileFacts(*row) for name, row in orjson.loads(first)["tars"].items()}
    parts = ShardIndex.from_json("", second).by_shard()
    return {part.shards[0].name: (facts[part.shards[0].name], part) for part in parts}
