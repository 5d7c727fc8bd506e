"""`agedphoto index`: one index for a folder, out of its parts and the foreign tars in it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from .index import INDEX_NAME, ShardIndex
from .merge import add_splits, locked, merge_splits, read_index, read_rejected
from .parts import Part, find_parts, is_part_shard
from .ranges import RangeReader

MAX_NAMED = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """What has become of a folder."""

    index: ShardIndex
    joined: tuple[str, ...]
    """Splits that were put together of parts."""
    foreign: tuple[str, ...]
    """Names of tars that no run of ours has made, and that were read for their index."""
    rejected: tuple[tuple[str, str, str], ...]
    """(split, source, reason) of the photographs that the parts could not read."""


def index_folder(folder: Path, *, progress: bool = False) -> Joined:
    """Write the index.json of a folder: parts are joined, tars from elsewhere are read.

    Splits that the index has already stay. Doing it again changes nothing.

    Raises:
        ValueError: If there are no shards, a run in the folder has not come to its end, a part is
            missing, parts do not belong together, a shard is not as its part has left it, or an
            index.json is none of ours.
        OSError: If something cannot be read or written.
    """
    if not folder.is_dir():
        raise ValueError(f"no such folder: {folder}")
    for part in find_parts(folder, ".journal"):
        raise ValueError(
            f"{part} in {folder} is not finished; run the same agedphoto shard again first"
        )
    with locked(folder):
        before = _read_known(folder)
        parts = _join_parts(folder)
        rejected = [row for _, rows in parts for row in rows]
        joined = [index for index, _ in parts]
        listed = {
            shard.name
            for index in (*joined, *([before] if before else []))
            for shard in index.shards
        }
        splits = tuple(split for index in joined for split in index.splits)
        strangers = [
            path
            for path in sorted(folder.glob("*.tar"))
            if path.name not in listed
            and not path.name.startswith(".")
            and not any(is_part_shard(path.name, split) for split in splits)
        ]
        if strangers:
            from .foreign import index_tars

            reader = RangeReader()
            try:
                found = index_tars(
                    [str(path) for path in strangers],
                    root=str(folder),
                    reader=reader,
                    whole=True,
                    progress=progress,
                )
            finally:
                reader.close()
            for split in found.splits:
                old = before is not None and split in before.splits
                if old or split in splits:
                    raise ValueError(
                        f"{strangers[0]} is in no index, and {folder} has a split {split!r} "
                        "already; move the tar away or rename it"
                    )
            joined.append(found)
        if not joined:
            if before is None:
                raise ValueError(
                    f"no shards in {folder}; make them with: agedphoto shard PHOTOS {folder}"
                )
            return Joined(index=before, joined=(), foreign=(), rejected=())
        new = joined[0]
        for index in joined[1:]:
            new = merge_splits(new, index)
        _drop_unknown(folder, before)
        return Joined(
            index=add_splits(folder, new, rejected),
            joined=splits,
            foreign=tuple(path.name for path in strangers),
            rejected=tuple(rejected),
        )


def _read_known(folder: Path) -> ShardIndex | None:
    """Return the index that is there; None if there is none, or a damaged one of ours."""
    path = folder / INDEX_NAME
    try:
        return read_index(folder)
    except ValueError as error:
        # What begins like ours and is cut short, edited or of another version is made anew.
        if path.read_bytes()[:64].replace(b" ", b"").startswith(b'{"version":'):
            return None
        raise ValueError(
            f"{path} is not an index of shards and will not be overwritten; move it away"
        ) from error


def _drop_unknown(folder: Path, before: ShardIndex | None) -> None:
    if before is None:
        (folder / INDEX_NAME).unlink(missing_ok=True)


def _join_parts(folder: Path) -> list[tuple[ShardIndex, list[tuple[str, str, str]]]]:
    """Return index and rejected photographs of each split that lies there in parts."""
    found = find_parts(folder, ".index.json")
    splits: dict[str, dict[Part, Path]] = {}
    for part, path in found.items():
        splits.setdefault(part.split, {})[part] = path
    return [_join_split(folder, split, parts) for split, parts in splits.items()]


def _join_split(
    folder: Path, split: str, parts: dict[Part, Path]
) -> tuple[ShardIndex, list[tuple[str, str, str]]]:
    counts = sorted({part.count for part in parts})
    if len(counts) > 1:
        raise ValueError(
            f"split {split!r} in {folder} lies there in {' and in '.join(map(str, counts))} parts; "
            "delete those of one kind"
        )
    wanted = [Part(split=split, number=i + 1, count=counts[0]) for i in range(counts[0])]
    if missing := [part.number for part in wanted if part not in parts]:
        numbers = ", ".join(map(str, missing[:MAX_NAMED])) + (
            f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        )
        raise ValueError(
            f"of the {counts[0]} parts of split {split!r} in {folder} these are missing: "
            f"{numbers}; make them with: agedphoto shard --part I/{counts[0]}"
        )
    plans: dict[str, Part] = {}
    indexes: list[ShardIndex] = []
    rejected: list[tuple[str, str, str]] = []
    for part in wanted:
        data = parts[part].read_bytes()
        index = ShardIndex.from_json(str(folder), data, name=part.index_name)
        plan = orjson.loads(data).get("plan")
        plans.setdefault(json.dumps(plan, sort_keys=True), part)
        _check_shards(folder, index)
        indexes.append(index)
        rejected += read_rejected(folder / part.rejected_name)
    if len(plans) > 1:
        one, other = list(plans.values())[:2]
        raise ValueError(
            f"{one} and {other} in {folder} were made of different photographs or with different "
            f"options; make all parts of the same"
        )
    whole = ShardIndex.from_parts(str(folder), indexes)
    if not len(whole):
        raise ValueError(
            f"no photograph of split {split!r} could be read; see "
            f"{folder / wanted[0].rejected_name}"
        )
    if len(np.unique(whole.keys)) != len(whole):
        raise ValueError(f"parts of split {split!r} in {folder} share keys; make them anew")
    return whole, rejected


def _check_shards(folder: Path, index: ShardIndex) -> None:
    for shard in index.shards:
        path = folder / shard.name
        there = path.stat().st_size if path.exists() else None
        if there != shard.bytes:
            state = "is missing" if there is None else f"has {there} bytes instead of {shard.bytes}"
            raise ValueError(f"{path} {state}; make its part again or copy it again")
