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
        if row.table in _SAME and row.name not in FLOORS:
            alike = tuple(row.by.get(key) for key in _SAME[row.table])
            groups.setdefault((row.table, *alike), []).append(row)
    found = []
    for rows in groups.values():
        ours = [row for row in rows if row.name.startswith("agedphoto")]
        if ours:
            best = max(ours, key=lambda row: row.median)
            found += [(best, row) for row in rows if not row.name.startswith("agedphoto")]
    return found


def _beats(faster: Row, slower: Row) -> str:
    apart = "" if faster.lower > slower.upper else " (quartiles overlap)"
    if faster.table == "waiting":
        return (
            f"keeps {faster.median:.1f} % of training's speed{apart}, "
            f"against {slower.median:.1f} % with"
        )
    return f"is {faster.median / max(slower.median, 1e-12):.1f} times as fast{apart} as"
