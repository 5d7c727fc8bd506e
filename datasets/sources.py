"""What users name as shards: folders, tars, braces, lists, on disk or anywhere else.

    data/set                                a folder with our index.json, or with tars of anybody
    https://host/set                        the same by URL; on http with an index only
    s3://bucket/set/train-{000..012}.tar    tars named outright; ranges and {a,b} as in a shell
    data/*.tar                              local patterns
    a.tar::b.tar                            one behind the other, as in WebDataset
    ["a.tar", "data/set"]                   a list of any of these

Tars that are listed in an index.json beside them are read by it, others are looked through once.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from glob import has_magic
from itertools import islice
from pathlib import Path, PurePath
from typing import TypeAlias

import braceexpand

from .foreign import index_tars
from .index import INDEX_NAME, ShardIndex
from .ranges import RangeReader
from .urls import is_remote, join_url, local_path, plain_url

Source: TypeAlias = str | Path | Sequence[str | Path]

MOST_NAMES = 1_000_000
"""Braces that stand for more are a mistake."""

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_index(
    source: Source, *, split: str | None = None, reader: RangeReader | None = None
) -> ShardIndex:
    """Open the index of shards, see the module for how they are named.

    Args:
        source: Shards.
        split: Take only this split of folders; tars that are named outright are taken whatever
            their split. None takes everything.
        reader: Reads what is not local.

    Raises:
        ValueError: If there are no shards, one is missing or named twice, the index cannot be
            understood, or a folder has no such split.
        OSError: If something that is there cannot be read.
    """
    if reader is None:
        with closing(RangeReader()) as own:
            return open_index(source, split=split, reader=own)
    places = _expand(source)
    if len(places) == 1 and not _is_tar(places[0]):
        return _open_folder(places[0], split, reader)
    tars = [place for place in places if _is_tar(place)]
    _refuse_twice(places)
    known = _open_beside(tars, reader)
    foreign = [tar for tar in tars if tar not in known]
    if foreign:
        looked_through = index_tars(foreign, root="", reader=reader).by_shard()
        known |= dict(zip(foreign, looked_through, strict=True))
    parts = [
        known[place] if place in known else _open_folder(place, split, reader) for place in places
    ]
    every = [part.url(i) for part in parts for i in range(len(part.shards))]
    _refuse_twice(every)
    return ShardIndex.from_parts(_common_root(every), parts)


def named_outright(source: Source) -> bool:
    """Whether it names nothing but tars, so that no split has to be chosen."""
    return all(_is_tar(place) for place in _expand(source))


def _expand(source: Source) -> list[str]:
    """Return folders and tars, one by one.

    Raises:
        ValueError: If there are none, or it cannot be understood.
    """
    several = not isinstance(source, str | Path)
    named = list(source) if several else [source]
    places = [place for item in named for place in _expand_item(item)]
    if not places:
        raise ValueError(f"no shards are named by {source!r}; name a folder or tars")
    return places


def _expand_item(item: str | Path) -> Iterator[str]:
    # As posix: URLs and fsspec take slashes on Windows too.
    name = item.as_posix() if isinstance(item, Path) else item
    if os.name == "nt" and not is_remote(name):
        name = name.replace("\\", "/")
    if not name:
        raise ValueError("shards are named by an empty text; name a folder or tars")
    if name.startswith("pipe:"):
        raise ValueError(
            f"{name!r} is a pipe, which cannot be read from its middle; name the URL itself"
        )
    # What is there by this very name is meant, whatever signs are in it.
    if not is_remote(name) and Path(local_path(name)).exists():
        yield _tidy(name)
        return
    if "::" in name:
        for part in name.split("::"):
            yield from _expand_item(part)
        return
    # It makes the whole list of a range, before anybody can count.
    spans = re.findall(r"\{(-?\d+)\.\.(-?\d+)", name)
    if any(abs(int(last) - int(first)) >= MOST_NAMES for first, last in spans):
        raise ValueError(f"{plain_url(name)!r} stands for more than {MOST_NAMES:,} shards")
    try:
        names = list(islice(braceexpand.braceexpand(name, escape=False), MOST_NAMES + 1))
    except ValueError as error:
        raise ValueError(f"braces do not match in {plain_url(name)!r}; close them") from error
    if len(names) > MOST_NAMES:
        raise ValueError(f"{plain_url(name)!r} stands for more than {MOST_NAMES:,} shards")
    for expanded in names:
        if not is_remote(expanded) and has_magic(expanded) and not Path(expanded).exists():
            pattern = PurePath(local_path(expanded))
            inside = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
            found = sorted(path.as_posix() for path in inside)
            if not found:
                raise ValueError(f"nothing matches {expanded!r}; correct the pattern")
            yield from map(_tidy, found)
        elif is_remote(expanded) and "*" in plain_url(expanded):
            raise ValueError(
                f"{plain_url(expanded)!r}: patterns are for local files; use braces, as in "
                "train-{000000..000012}.tar, or name the folder"
            )
        else:
            yield _tidy(expanded)


def _tidy(place: str) -> str:
    """Strip trailing slashes, and index.json, which stands for its folder."""
    folder, mark, query = place.partition("?") if is_remote(place) else (place, "", "")
    folder = folder.removesuffix(f"/{INDEX_NAME}")
    if folder == INDEX_NAME:
        folder = "."
    return (folder.rstrip("/") or "/") + mark + query


def _is_tar(place: str) -> bool:
    if not is_remote(place) and Path(local_path(place)).is_dir():
        return False
    return plain_url(place).endswith(_TARS) or place.endswith(_TARS)


def _open_folder(root: str, split: str | None, reader: RangeReader) -> ShardIndex:
    place = join_url(root, INDEX_NAME)
    try:
        index = ShardIndex.from_json(root, reader.read_all(place))
    except (FileNotFoundError, NotADirectoryError) as error:
        shown = plain_url(root)
        nothing = (
            f"no {INDEX_NAME} in {shown}; make the shards with: agedphoto shard PHOTOS {shown}"
        )
        if root.startswith(("http://", "https://")):
            raise ValueError(
                f"no {INDEX_NAME} in {shown}, and a web server has no folders to look through; "
                "name the tars, as in train-{000000..000012}.tar, or put an index beside them "
                "with: agedphoto index"
            ) from error
        try:
            names = reader.names(root)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        _refuse_unfinished(shown, names)
        tars = [name for name in names if name.endswith(_TARS) and not name.startswith(".")]
        if not tars:
            raise ValueError(nothing) from error
        index = index_tars([join_url(root, name) for name in tars], root=root, reader=reader)
    return index if split is None else index.of_split(split)


def _refuse_unfinished(folder: str, names: Sequence[str]) -> None:
    """Raise ValueError if what lies there is a part of a set of ours, not somebody's whole one."""
    for name in names:
        if name.startswith(".") and name.endswith(".journal"):
            raise ValueError(
                f"the shards in {folder} are not finished ({name}); run the same agedphoto shard "
                "again, it goes on where it ended"
            )
        if name.endswith(f".{INDEX_NAME}"):
            raise ValueError(
                f"the parts in {folder} are not joined yet ({name}); join them with: agedphoto "
                f"index {folder}"
            )


def _open_beside(tars: Sequence[str], reader: RangeReader) -> dict[str, ShardIndex]:
    """Look for our index beside each tar; return the part of it for each tar that is in it.

    Raises:
        ValueError: If a local tar is in its index, but not there.
    """
    found: dict[str, ShardIndex] = {}
    folders: dict[str, list[str]] = {}
    for tar in tars:
        folders.setdefault(_folder(tar), []).append(tar)
    for folder, inside in folders.items():
        try:
            content = reader.read_all(join_url(folder, INDEX_NAME))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            # Where nothing is, a store that must not be listed says so too.
            if not is_remote(folder):
                raise
            continue
        index = ShardIndex.from_json(folder, content)
        beside = {part.url(0): part for part in index.by_shard()}
        for tar in inside:
            if tar not in beside:
                continue
            if not is_remote(tar) and not Path(local_path(tar)).exists():
                raise ValueError(f"no such shard: {tar}; correct its name")
            found[tar] = beside[tar]
    return found


def _refuse_twice(places: Sequence[str]) -> None:
    seen: set[str] = set()
    for place in places:
        name = place if is_remote(place) else str(Path(local_path(place)).resolve())
        if name in seen:
            raise ValueError(f"{plain_url(place)} is named twice; name every shard once")
        seen.add(name)


def _folder(tar: str) -> str:
    """Return the folder of a tar; a signature of the URL may hold there too."""
    path, mark, query = tar.partition("?") if is_remote(tar) else (tar, "", "")
    return path.rpartition("/")[0] + mark + query


def _common_root(urls: Sequence[str]) -> str:
    """Return the deepest folder that all shards lie below: their names then hold wherever it is."""
    folders = [
        _folder(url).partition("?") if is_remote(url) else (_folder(url), "", "") for url in urls
    ]
    shared = folders[0][0].split("/")
    for folder, _, query in folders:
        if query != folders[0][2]:
            return ""
        parts = folder.split("/")
        same = (i for i, (a, b) in enumerate(zip(shared, parts, strict=False)) if a != b)
        shared = shared[: next(same, min(len(shared), len(parts)))]
    # Of a URL, scheme and host are the least.
    if is_remote(urls[0]) and len(shared) < 3:
        return ""
    return "/".join(shared) + "".join(folders[0][1:])
