"""Who is faster, in words: the best of ours against each of the others at the same work."""

from .record import Record, Row

_SAME = {
    "same work": (),
    "crops on one core": ("K",),
    "ladder": ("K",),
    "waiting": ("K",),
    "restoring": ("megapixels",),
}
"""Tables in which ours stand beside others, and what must be alike for that."""

FLOORS = ("copy floor", "read only", "whole")
"""Not contenders: a picture in one piece is what tiles are compared with."""

RESIDENT = ("agedphoto, all in the pool", "agedphoto, pool on the host")
"""Not contenders either: they decode nothing any more, and the others decode all the time."""

LOSSY = ("jpeg",)
"""Formats that lossless ones are not compared with; those that have less to do, with all."""


def losses(record: Record) -> list[str]:
    """Name every case in which another is faster than the best of ours."""
    return [
        f"{theirs.title} {_beats(theirs, ours)} {ours.title}"
        for ours, theirs in _pairs(record)
        if theirs.median > ours.median
    ]


def wins(record: Record) -> list[str]:
    """Name every case in which the best of ours is at least as fast."""
    return [
        f"{ours.title} {_beats(ours, theirs)} {theirs.title}"
        for ours, theirs in _pairs(record)
        if theirs.median <= ours.median
    ]


def _pairs(record: Record) -> list[tuple[Row, Row]]:
    """Return the best of ours with each of the others, table by table."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in record.rows:
        if row.table in _SAME and row.name not in FLOORS + RESIDENT:
            alike = tuple(row.by.get(key) for key in _SAME[row.table])
            groups.setdefault((row.table, *alike), []).append(row)
    found = []
    for rows in groups.values():
        ours = [row for row in rows if row.name.startswith("agedphoto")]
        for theirs in rows:
            like = [row for row in ours if _is_lossy(theirs) or not _is_lossy(row)]
            if like and theirs not in ours:
                found.append((max(like, key=lambda row: row.median), theirs))
    return found


def _is_lossy(row: Row) -> bool:
    return row.by.get("format") in LOSSY


def _beats(faster: Row, slower: Row) -> str:
    apart = "" if faster.lower > slower.upper else " (quartiles overlap)"
    if faster.table == "waiting":
        return (
            f"keeps {faster.median:.1f} % of training's speed{apart}, "
            f"against {slower.median:.1f} % with"
        )
    return f"is {faster.median / max(slower.median, 1e-12):.1f} times as fast{apart} as"
