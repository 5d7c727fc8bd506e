"""Records as pictures: SVG and PNG that can be understood without the text around them.

Ours are blue, others gray. A dot is a median, a line through it the quartiles; figures stand beside
the dots. Where figures are hundreds of times apart the axis is logarithmic and says so.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from agedphoto.datasets.files import replacing

from .peers import load
from .record import Record, Row
from .table import number, place

OURS, OTHERS, LIMIT, INK = "#1a5fb4", "#8a8f98", "#c64600", "#2e3436"
LINES = ("#1a5fb4", "#26a269", "#e66100", "#813d9c")
LOG_FROM = 20
"""Figures that are so many times apart are shown on a logarithmic axis."""
AIM = 98
"""Percent."""
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "agedphoto", "font.size": 9.5,
    "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#c0c4ca", "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "figure.facecolor": "white",
}  # fmt: skip


def draw(record: Record, folder: Path) -> list[Path]:
    """Write the plots of a record, if there is something to show; return the files."""
    make = _PLOTS.get(record.what)
    if make is None or not record.rows:
        return []
    load("matplotlib").use("Agg")
    from matplotlib import pyplot, rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        # A font may lack a sign of somebody's hardware.
        warnings.simplefilter("ignore")
        figure = make(record)
        if figure is None:
            return []
        figure.supxlabel(
            f"{place(record)}. {_KEY.get(record.what, '')}",
            fontsize=8, x=0.01, ha="left", color=OTHERS,
        )  # fmt: skip
        paths = []
        for format, metadata in (("svg", {"Date": None}), ("png", {})):
            path = folder / f"{record.stem}.{format}"
            with replacing(path) as file:
                figure.savefig(file, format=format, dpi=144, metadata=metadata)
            paths.append(path)
        pyplot.close(figure)
    return paths


def _synth(record: Record) -> Any:
    same = [row for row in record.rows if row.table == "same work" and row.name != "copy floor"]
    floor = next(
        (r for r in record.rows if r.name == "copy floor" and r.table == "same work"), None
    )
    recipes = [row for row in record.rows if row.table == "recipes"]
    defects = sorted(
        (row for row in record.rows if row.table == "defects"), key=lambda row: -row.median
    )
    size = _size_of(record)
    panels = [(same, f"Ageing photos{size}: the same work, pairs a second")]
    if recipes:
        panels.append((recipes, f"Every recipe{size}, pairs a second"))
    if defects:
        panels.append((defects, f"Every defect{size}, pairs a second"))
    figure, axes = _column([len(rows) for rows, _ in panels])
    for axis, (rows, title) in zip(axes, panels, strict=True):
        _dots(axis, rows, title, name=lambda row: row.name.removesuffix(", eager"))
    if floor and same:
        scale = axes[0].get_xlabel()
        axes[0].set_xlabel(
            f"Copying the bytes that this work must read and write: {number(floor.median)} a second"
            + (f"; {scale}" if scale else ""),
            loc="right",
            fontsize=8.5,
        )
        axes[0].set_yticklabels([row.name for row in same])
    return figure


def _decode(record: Record) -> Any:
    rows = [row for row in record.rows if row.by.get("K") == 1]
    formats = list(dict.fromkeys(str(row.by["format"]) for row in rows))
    groups = [[row for row in rows if row.by["format"] == format] for format in formats]
    figure, axes = _column([len(group) for group in groups], columns=2)
    for (left, right), format, group in zip(axes, formats, groups, strict=True):
        _dots(left, group, f"{format.upper()}: photos decoded a second", from_zero=True)
        _dots(
            right, group, "CPU seconds a thousand photos", from_zero=True, names=False,
            value=lambda row: row.more["cpu_s_per_1000"],
        )  # fmt: skip
    return figure


def _loader(record: Record) -> Any:
    panels: list[tuple[list[Row], str]] = []
    for table, title in (
        ("ladder", "From shards to aged pairs, pairs a second"),
        ("scaling", "More processes, the same cores for each: pairs a second"),
        ("crops on one core", "From shards to crops, one core: crops a second"),
    ):
        rows = [row for row in record.rows if row.table == table]
        if rows:
            panels.append((rows, title))
    figure, axes = _column([len(rows) for rows, _ in panels])
    for axis, (rows, title) in zip(axes, panels, strict=True):
        _dots(axis, rows, title, name=_loader_name)
    return figure


def _train(record: Record) -> Any:
    curve = [row for row in record.rows if row.table == "utilisation over K"]
    waiting = [row for row in record.rows if row.table == "waiting"]
    if not curve and not waiting:
        rows = [row for row in record.rows if row.table == "presets"]
        figure, axes = _column([len(rows)])
        _dots(axes[0], rows, "Training on a resident batch, pairs a second", name=_preset_name)
        return figure
    figure, axes = _column([12, len(waiting)] if waiting else [12])
    axis = axes[0]
    ends = []
    for number_, name in enumerate(dict.fromkeys(row.name for row in curve)):
        rows = sorted((row for row in curve if row.name == name), key=lambda row: row.by["K"])
        x, y = [float(row.by["K"]) for row in rows], [row.median for row in rows]
        color = LINES[number_ % len(LINES)]
        axis.plot(x, y, "o-", color=color, markersize=4)
        axis.fill_between(
            x, [row.lower for row in rows], [row.upper for row in rows], color=color, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
        ends.append((x[-1], y[-1], name, color))
    _end_labels(axis, ends)
    _over_counts(axis, sorted({int(row.by["K"]) for row in curve}))
    axis.set_xlabel("K: crops that are taken of a photo for each time that it is decoded")
    axis.set_ylim(0, max([105.0, *(1.05 * row.upper for row in curve)]))
    axis.axhline(AIM, color=LIMIT, linewidth=0.8, linestyle="--")
    axis.set_title(f"Speed kept while photos are decoded, % (dashed: {AIM})")
    if waiting:
        _dots(
            axes[1], waiting, "The same with each loader, %", name=_loader_name, from_zero=True,
            limit=AIM,
        )  # fmt: skip
    return figure


def _restore(record: Record) -> Any:
    rows = [row for row in record.rows if row.table == "restoring"]
    seams = [row for row in record.rows if row.table == "seams"]
    figure, axes = _column([len(rows), len(seams)] if seams else [len(rows)])

    def name(row: Row) -> str:
        way = {"whole": "in one piece"}.get(row.name, row.name)
        return f"{way}, {row.by['megapixels']:g} megapixels"

    _dots(axes[0], rows, "Restoring, megapixels a second", name=name, from_zero=True)
    if seams:
        _dots(axes[1], seams, "Largest seam between tiles, levels of 255", name=name)
    return figure


def _clock(record: Record) -> Any:
    rows = [row for row in record.rows if row.table == "clock"]
    if not rows:
        return None
    figure, axes = _column([14])
    axis, ends = axes[0], []
    for number_, name in enumerate(dict.fromkeys(row.name for row in rows)):
        of_it = sorted((r for r in rows if r.name == name), key=lambda row: row.more["seconds"])
        x, y = [row.more["seconds"] for row in of_it], [row.median for row in of_it]
        axis.plot(x, y, "o-", color=LINES[number_ % len(LINES)], markersize=4)
        ends.append((x[-1], y[-1], f"noise of {name}", LINES[number_ % len(LINES)]))
    _end_labels(axis, ends)
    _over_counts(axis, sorted({round(row.more["seconds"]) for row in rows}))
    axis.set_xlabel("seconds of training, logarithmic")
    axis.set_title("Quality for time: mean PSNR of photos that were not trained on, dB")
    return figure


_PLOTS: dict[str, Callable[[Record], Any]] = {
    "synth": _synth,
    "decode": _decode,
    "loader": _loader,
    "train": _train,
    "restore": _restore,
    "clock": _clock,
}


_KEY = {
    **dict.fromkeys(("synth", "loader", "train", "restore"), "Blue: agedphoto. Lines: quartiles."),
    "decode": "Lines: quartiles.",
}


def _column(lengths: Sequence[int], columns: int = 1) -> tuple[Any, Any]:
    """Make panels one under the other, each as high as its rows need."""
    from matplotlib import pyplot

    heights = [0.24 * length + 0.9 for length in lengths]
    figure, axes = pyplot.subplots(
        len(lengths), columns, figsize=(9.0, sum(heights) + 0.4), squeeze=False,
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    return figure, axes if columns > 1 else axes[:, 0]


def _dots(
    axis: Any,
    rows: Sequence[Row],
    title: str,
    *,
    name: Callable[[Row], str] = lambda row: row.name,
    value: Callable[[Row], float] | None = None,
    from_zero: bool = False,
    names: bool = True,
    limit: float | None = None,
) -> None:
    """One row a figure: name, dot with quartiles, figure."""
    values = [value(row) if value else row.median for row in rows]
    places = range(len(rows))
    log = not from_zero and min(values) > 0 and max(values) / min(values) > LOG_FROM
    for y, row, x in zip(places, rows, values, strict=True):
        color = OURS if _is_ours(row) else OTHERS
        if value is None and row.upper > row.lower:
            axis.plot([row.lower, row.upper], [y, y], color=color, linewidth=2, alpha=0.5)
        axis.plot([x], [y], "o", color=color, markersize=6)
        axis.annotate(
            number(x), (x if value else max(x, row.upper), y), xytext=(8, -0.5),
            textcoords="offset points", va="center", color=color,
        )  # fmt: skip
    largest = max(values if value else [row.upper for row in rows])
    if log:
        axis.set_xscale("log")
        axis.set_xlim(min(row.lower for row in rows) / 1.5, largest * 3)
    else:
        axis.set_xlim(0, largest * 1.15)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:,g}")
    if limit:
        axis.axvline(limit, color=LIMIT, linewidth=0.8, linestyle="--")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks(list(places), [name(row) for row in rows] if names else [""] * len(rows))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#e4e6ea", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.set_title(title)
    if log:
        axis.set_xlabel("logarithmic", loc="right", fontsize=8.5)


def _end_labels(axis: Any, ends: Iterable[tuple[float, float, str, str]]) -> None:
    """Name lines at their ends, one label above the other where lines end together."""
    below = float("inf")
    span = axis.get_ylim()[1] - axis.get_ylim()[0]
    for x, y, said, color in sorted(ends, key=lambda end: -end[1]):
        below = min(y, below - 0.07 * span)
        axis.annotate(
            said, (x, below), xytext=(9, 0), textcoords="offset points", va="center", color=color
        )


def _over_counts(axis: Any, counts: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(min(counts) / 1.1, max(counts) * (max(counts) / max(min(counts), 1)) ** 0.45)
    axis.grid(axis="y", color="#e4e6ea", linewidth=0.7)


def _is_ours(row: Row) -> bool:
    theirs = (
        "same work",
        "ladder",
        "crops on one core",
        "decoding",
        "restoring",
        "seams",
        "waiting",
    )
    return row.name.startswith("agedphoto") or row.table not in theirs


def _loader_name(row: Row) -> str:
    by = dict(row.by)
    said = ["reading alone" if row.name == "read only" else row.name]
    if "format" in by:
        said.append({"htj2k": "HTJ2K", "png": "PNG", "jpeg": "JPEG"}[str(by["format"])])
    if "K" in by:
        said.append(f"{by['K']} crop{'s' if by['K'] != 1 else ''} a photo")
    if "processes" in by:
        said = [f"{by['processes']} process{'es' if by['processes'] != 1 else ''}"]
        if "efficiency" in row.more:
            said.append(f"efficiency {row.more['efficiency']:.0%}")
    return ", ".join(said)


def _preset_name(row: Row) -> str:
    return f"{row.by.get('preset')} ({row.by.get('mode')}), {row.name}"


def _size_of(record: Record) -> str:
    found = record.settings
    if "batch_size" not in found:
        return ""
    return f" ({found['batch_size']} of {found['crop_px']} px)"
