"""Two records side by side: the second over the first, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

from .record import BUSY_LOAD, Record, Row
from .table import number


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What came of it."""

    ratios: dict[tuple[str, ...], float]
    """How much better the second is, by benchmark, table and title; above 1 is better."""
    warnings: list[str]
    lines: list[str]
    """To be shown."""


def compare(first: Sequence[Record], second: Sequence[Record]) -> Comparison:
    """Match rows by what they are of, and give the ratio of medians.

    Raises:
        ValueError: If no row is in both.
    """
    warnings, lines = [], []
    ratios: dict[tuple[str, ...], float] = {}
    ours, theirs = _by_what(first), _by_what(second)
    for what in ours.keys() & theirs.keys():
        warnings += _differences(ours[what], theirs[what])
    for what, record in ours.items():
        if what not in theirs:
            warnings.append(f"{what} is in the first only")
            continue
        others = {row.place: row for row in theirs[what].rows}
        matched: list[tuple[Row, Row]] = []
        for row in record.rows:
            other = others.pop(row.place, None)
            if other is None or other.unit != row.unit:
                warnings.append(f"{what}: {row.table}: {row.title} is in the first only")
            else:
                matched.append((row, other))
        warnings += [
            f"{what}: {row.table}: {row.title} is in the second only" for row in others.values()
        ]
        for row, other in matched:
            better = _ratio(row, other)
            ratios[what, row.table, row.title] = better
            lines.append(
                f"{what}: {row.table}: {row.title}: {number(row.median)} -> "
                f"{number(other.median)} {row.unit}, {_said(better, row, other)}"
            )
    warnings += [f"{what} is in the second only" for what in theirs if what not in ours]
    if not ratios:
        raise ValueError("nothing is in both files; compare two of the same benchmark")
    return Comparison(ratios=ratios, warnings=warnings, lines=lines)


def _by_what(records: Sequence[Record]) -> dict[str, Record]:
    return {record.what: record for record in records}


def _differences(first: Record, second: Record) -> list[str]:
    """Name what makes the figures hard to compare."""
    pairs = {
        "hardware": (first.hardware["name"], second.hardware["name"]),
        "cores": (first.hardware["cores"], second.hardware["cores"]),
        "device": (first.device, second.device),
        "threads": (first.threads, second.threads),
        "quick": (first.quick, second.quick),
        "torch": (first.versions.get("torch"), second.versions.get("torch")),
        **{
            key: (first.settings.get(key), second.settings.get(key))
            for key in first.settings.keys() & second.settings.keys()
        },
    }
    found = [
        f"{first.what}: {name} differs: {one} and {other}"
        for name, (one, other) in pairs.items()
        if one != other and None not in (one, other)
    ]
    busy = [one for one in (first, second) if (one.busy_share or 0) > BUSY_LOAD]
    return found + [f"{one.what}: the machine was busy on {one.date}" for one in busy]


def _ratio(first: Row, second: Row) -> float:
    ratio = second.median / first.median if first.median else float("inf")
    return ratio if first.higher_is_better else 1 / ratio if ratio else float("inf")


def _said(better: float, first: Row, second: Row) -> str:
    apart = first.upper < second.lower or second.upper < first.lower
    if not apart:
        return f"{better:.2f}x, quartiles overlap"
    return f"{better:.2f}x as good" if better >= 1 else f"{better:.2f}x, worse"
