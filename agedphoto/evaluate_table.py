"""An evaluation as lines of text: one table for each way of measuring, numbers under numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    group: str
    """What is above its heading, shared with its neighbours of the same group."""
    heading: str
    name: str
    """Of the value in the JSON."""
    format: str = ".2f"


COLUMNS = (
    Column("PSNR dB", "aged", "aged_psnr_db"),
    Column("PSNR dB", "restored", "psnr_db"),
    Column("PSNR dB", "gain", "gain_db", "+.2f"),
    Column("SSIM", "aged", "aged_ssim", ".4f"),
    Column("SSIM", "restored", "ssim", ".4f"),
    Column("MSE", "aged", "aged_mse", ".6f"),
    Column("MSE", "restored", "mse", ".6f"),
    Column("hidden by damage", "share", "hidden_share", ".1%"),
    Column("hidden by damage", "aged dB", "aged_inside_psnr_db"),
    Column("hidden by damage", "restored dB", "inside_psnr_db"),
    Column("the rest", "aged dB", "aged_outside_psnr_db"),
    Column("the rest", "restored dB", "outside_psnr_db"),
    Column("mask", "IoU", "mask_iou", ".3f"),
    Column("ab-PSNR dB", "all gray", "gray_ab_psnr_db"),
    Column("ab-PSNR dB", "restored", "ab_psnr_db"),
    Column("ab-PSNR dB", "gain", "ab_gain_db", "+.2f"),
    Column("colourfulness", "clean", "clean_colorfulness", ".1f"),
    Column("colourfulness", "restored", "colorfulness", ".1f"),
)

_GAP, _GROUP_GAP = "  ", "    "


def table(record: Mapping[str, Any], *, rows: bool = False) -> Iterator[str]:
    """Yield the lines that show an evaluation, see `evaluate_run.evaluate`.

    Args:
        record: What was measured.
        rows: Whether to show each photo, not their mean alone.
    """
    model, photos = record["model"], record["photos"]
    crop = f", at most {photos['crop_px']} px a side" if photos["crop_px"] else ""
    yield (
        f"{model['name']} ({model['mode']}, sha256 {model['sha256'][:12]}): "
        f"{photos['measured']} of {photos['of']} photos measured{crop}"
    )
    for measured in record["measured"]:
        yield ""
        yield measured["title"]
        lines = [(row["photo"], row) for row in measured["rows"]] if rows else []
        lines += [("mean", measured["mean"]), ("pooled", measured["pooled"])]
        beside = measured.get("beside", ())
        for peer in beside:
            name = peer["name"]
            if rows:
                lines += [(f"{row['photo']}, {name}", row) for row in peer["rows"]]
            lines += [(f"mean, {name}", peer["mean"]), (f"pooled, {name}", peer["pooled"])]
        yield from _align(lines)
        yield from (f"{peer['name']}: {peer['about']}" for peer in beside)


def _align(lines: list[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Put values under their headings; columns without any value are left out."""
    shown = [
        column
        for column in COLUMNS
        if any(values.get(column.name) is not None for _, values in lines)
    ]
    names = [name for name, _ in lines]
    head_width = max(map(len, names))
    groups, headings = " " * head_width, " " * head_width
    bodies = [f"{name:<{head_width}}" for name in names]
    before = ""
    for column in shown:
        cells = [_cell(values.get(column.name), column.format) for _, values in lines]
        width = max(len(column.heading), *map(len, cells))
        gap = _GAP if column.group == before else _GROUP_GAP
        if column.group != before:
            groups = f"{groups:<{len(headings)}}{gap}{column.group}"
            # A group that is wider than its columns pushes them to the right.
            width = max(width, _needed(column, shown))
        headings += f"{gap}{column.heading:>{width}}"
        bodies = [f"{body}{gap}{cell:>{width}}" for body, cell in zip(bodies, cells, strict=True)]
        before = column.group
    yield groups
    yield headings
    yield from (body.rstrip() for body in bodies)


def _needed(first: Column, shown: list[Column]) -> int:
    """Return how wide the first column of a group has to be for the group's name to fit."""
    others = [column for column in shown if column.group == first.group and column is not first]
    return len(first.group) - sum(len(_GAP) + len(column.heading) for column in others)


def _cell(value: float | None, format: str) -> str:
    return "" if value is None else f"{value:{format}}"
