"""Records as tables: on the screen, and in Markdown."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .record import Missing, Record, Row
from .verdict import losses, wins


def number(value: float) -> str:
    """Write a figure with two or three digits that count."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def percent(value: float) -> str:
    """Write a share."""
    return f"{100 * value:.1f}%" if abs(value) >= 0.001 else f"{100 * value:.2g}%"


def _with(unit: str) -> Callable[[float], str]:
    return lambda value: f"{number(value)} {unit}"


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "median_ms": ("a batch", _with("ms")),
    "gb_per_s": ("GB/s", number),
    "bytes_a_pixel": ("bytes/px", "{:.0f}".format),
    "share_of_floor": ("of the copy floor", percent),
    "backend": ("by", str),
    "photos_per_s": ("photos/s", number),
    "crops_per_s": ("crops/s", number),
    "mb_in_per_s": ("MB/s read", number),
    "mb_out_per_s": ("MB/s of pixels", number),
    "cpu_s_per_1000": ("CPU s a thousand", number),
    "first_batch_s": ("first batch", _with("s")),
    "cpu_cores": ("cores used", "{:.1f}".format),
    "rss_mib": ("memory", _with("MiB")),
    "gpu_gib": ("GPU memory", _with("GiB")),
    "crops_per_decode": ("crops a decode", "{:.1f}".format),
    "efficiency": ("efficiency", percent),
    "steps_per_s": ("steps/s", number),
    "mfu": ("of the matrix rate", percent),
    "utilisation": ("utilisation", percent),
    "utilisation_cold": ("cold", percent),
    "wait_share": ("waiting", percent),
    "wait_p50_ms": ("wait p50", _with("ms")),
    "wait_p99_ms": ("wait p99", _with("ms")),
    "resident_per_s": ("resident batch", number),
    "loader_per_s": ("with the loader", number),
    "loader_alone_per_s": ("loader alone", number),
    "memory_gib": ("memory", _with("GiB")),
    "rss_growth_gib": ("memory", _with("GiB")),
    "seam_mean": ("mean", _with("of 255")),
    "seen_pairs": ("pairs seen", "{:,.0f}".format),
    "seconds": ("seconds", number),
    "to_noisy_db": ("above the noisy photo", "{:+.2f} dB".format),
}
"""Heading and format of what stands in `more`; what is not here is not shown."""


def screen(record: Record) -> str:
    """Return a record as plain text, what was not measured included."""
    lines = [f"== {record.what} on {place(record)}"]
    for title, header, cells in _tables(record):
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        left = len(next(iter(_grouped(record.rows)[title])).by) + 1
        lines += ["", title]
        for row in (header, *cells):
            padded = [
                cell.ljust(width) if number < left else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(padded).rstrip())
    lines += ["", *(f"faster than ours: {said}" for said in losses(record))]
    lines += [f"ours is faster: {said}" for said in wins(record)]
    if record.not_measured:
        lines.append("")
    lines += [f"not measured: {one.table}: {one.name}: {_why(one)}" for one in record.not_measured]
    return "\n".join(lines)


def markdown(record: Record) -> str:
    """Return a record as Markdown tables, what was not measured beneath."""
    parts: list[str] = []
    for title, header, cells in _tables(record):
        lines = [f"**{title}**", "", _line(header), _line("---" for _ in header)]
        parts.append("\n".join([*lines, *map(_line, cells)]))
    said = [f"- Slower than others: {one}." for one in losses(record)]
    said += [f"- Faster than others: {one}." for one in wins(record)]
    if said:
        parts.append("\n".join(said))
    if record.not_measured:
        parts.append(
            "\n".join(
                f"- Not measured: {one.table}: {one.name}: {_why(one, tick='`')}"
                for one in record.not_measured
            )
        )
    return "\n\n".join(parts)


def pivot(record: Record, table: str, column: str, head: str) -> str:
    """Return the figures of one table as Markdown: a line for each thing, a column for each value.

    Args:
        record: With rows of that table.
        table: Its name.
        column: What tells the columns from each other, of the rows' `by`.
        head: Heading of a column, with its value in braces.
    """
    rows = [row for row in record.rows if row.table == table]
    values = sorted({row.by[column] for row in rows if column in row.by})
    lines: dict[str, dict[Any, str]] = {}
    for row in rows:
        others = [str(value) for key, value in row.by.items() if key != column]
        line = lines.setdefault(", ".join([row.name, *others]), {})
        line[row.by.get(column)] = number(row.median)
    heads = [head.format(value) for value in values] or [rows[0].unit if rows else ""]
    parts = [_line(["", *heads]), _line("---" for _ in range(1 + len(heads)))]
    parts += [
        _line([name, *(cells.get(value, "") for value in values or [None])])
        for name, cells in lines.items()
    ]
    return "\n".join(parts)


def place(record: Record) -> str:
    """Say where and with what a record was made."""
    machine = record.hardware
    cores = (
        f"{machine['cores']} cores" if record.device == "cpu" else f"{machine['cores']} CPU cores"
    )
    said = f"{machine['name']}, {cores}, torch {record.versions.get('torch', '?')}, {record.date}"
    if record.commit:
        said += f", commit {record.commit}"
    return said + (", quick: not for figures" if record.quick else "")


def _tables(record: Record) -> Iterable[tuple[str, list[str], list[list[str]]]]:
    for title, rows in _grouped(record.rows).items():
        by = list(dict.fromkeys(key for row in rows for key in row.by))
        more = [key for key in COLUMNS if any(key in row.more for row in rows)]
        units = list(dict.fromkeys(row.unit for row in rows))
        unit = units[0] if len(units) == 1 else "median"
        header = ["", *by, unit, "quartiles", *(COLUMNS[key][0] for key in more)]
        cells = [
            [
                row.name,
                *(str(row.by.get(key, "")) for key in by),
                number(row.median) + ("" if len(units) == 1 else f" {row.unit}"),
                f"{number(row.lower)} to {number(row.upper)}" if row.lower < row.upper else "",
                *(_cell(row.more, key) for key in more),
            ]
            for row in rows
        ]
        yield title, header, cells


def _grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return tables


def _cell(more: dict[str, Any], key: str) -> str:
    return COLUMNS[key][1](more[key]) if key in more else ""


def _why(missing: Missing, tick: str = "") -> str:
    return missing.why + (f": {tick}{missing.command}{tick}" if missing.command else "")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
