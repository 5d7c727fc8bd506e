"""Contact sheets: pictures in rows and columns, small, and below each a part of it at full size.

A small picture shows stains and casts, and hides grain; a part pixel by pixel shows the grain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Picture: TypeAlias = np.ndarray
"""8 bits, (H, W) or (H, W, 3)."""

GROUND = (24, 24, 24)
INK = (232, 232, 232)
FAINT = (160, 160, 160)
MARGIN_PX = 28
GAP_PX = 6
ROW_GAP_PX = 22
TEXT_PX = 15
TITLE_PX = 26


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture as it is on a sheet."""

    whole: Image.Image
    """Made small."""
    detail: Image.Image | None
    """A part of it, pixel by pixel; none of a picture that is small enough to be shown so."""


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures beside one another."""

    label: str
    cells: Sequence[Cell]


def make_cell(picture: Picture, *, cell_px: int, centre: tuple[float, float] = (0.5, 0.5)) -> Cell:
    """Make a picture small.

    Args:
        picture: The picture.
        cell_px: Its long side on the sheet.
        centre: Of the detail, as shares of height and width.
    """
    H, W = picture.shape[:2]
    whole = shrink(picture, cell_px)
    if max(H, W) <= cell_px:
        return Cell(whole, None)
    height, width = min(H, cell_px // 2), min(W, cell_px)
    top = round(min(max(centre[0] * H - height / 2, 0), H - height))
    left = round(min(max(centre[1] * W - width / 2, 0), W - width))
    part = np.ascontiguousarray(picture[top : top + height, left : left + width])
    return Cell(whole, Image.fromarray(part).convert("RGB"))


def shrink(picture: Picture, long_side_px: int) -> Image.Image:
    """Make a picture small enough, by averages over areas; one that is stays as it is."""
    H, W = picture.shape[:2]
    if max(H, W) <= long_side_px:
        return Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
    scale = long_side_px / max(H, W)
    size = max(1, round(W * scale)), max(1, round(H * scale))
    # First by a whole factor, in strips: Pillow keeps four bytes of each pixel.
    factor = max(1, int(0.5 / scale))
    strip = max(1, 256 // factor) * factor
    strips = [
        np.asarray(Image.fromarray(np.ascontiguousarray(picture[y : y + strip])).reduce(factor))
        for y in range(0, H, strip)
    ]
    return Image.fromarray(np.concatenate(strips)).convert("RGB").resize(size, Image.Resampling.BOX)


def draw_sheet(
    rows: Sequence[Row], *, title: str, columns: Sequence[str], cell_px: int, num_blocks: int = 1
) -> Image.Image:
    """Draw a sheet.

    Args:
        rows: From top to bottom, at least one.
        title: Above everything.
        columns: What stands above each column.
        cell_px: Width of the columns.
        num_blocks: How many columns of rows stand beside one another.

    Returns:
        Mode RGB.
    """
    tall = -(-len(rows) // num_blocks)
    blocks = [rows[first : first + tall] for first in range(0, len(rows), tall)]
    block_px = len(columns) * (cell_px + GAP_PX) - GAP_PX
    head_px = MARGIN_PX + TITLE_PX + 2 * GAP_PX
    height = max(sum(map(_row_height, block)) for block in blocks)
    sheet = Image.new(
        "RGB",
        (
            2 * MARGIN_PX + len(blocks) * (block_px + MARGIN_PX) - MARGIN_PX,
            head_px + 2 * TEXT_PX + height + MARGIN_PX - ROW_GAP_PX,
        ),
        GROUND,
    )
    draw = ImageDraw.Draw(sheet)
    _write(draw, (MARGIN_PX, MARGIN_PX - GAP_PX), title, TITLE_PX, INK, sheet.width - 2 * MARGIN_PX)
    for number, block in enumerate(blocks):
        left = MARGIN_PX + number * (block_px + MARGIN_PX)
        for place, column in enumerate(columns):
            x = left + place * (cell_px + GAP_PX)
            _write(draw, (x, head_px), column, TEXT_PX, FAINT, cell_px)
        y = head_px + 2 * TEXT_PX
        for row in block:
            _draw_row(sheet, draw, row, left, y, cell_px, block_px)
            y += _row_height(row)
    return sheet


def _row_height(row: Row) -> int:
    """Height of a row with its label and the gap below it, in pixels."""
    return _label_height(row) + _whole_height(row) + _detail_height(row) + ROW_GAP_PX


def _label_height(row: Row) -> int:
    return TEXT_PX + 2 * GAP_PX if row.label else 0


def _whole_height(row: Row) -> int:
    return max(cell.whole.height for cell in row.cells)


def _detail_height(row: Row) -> int:
    return max((GAP_PX + cell.detail.height for cell in row.cells if cell.detail), default=0)


def _draw_row(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    row: Row,
    left: int,
    top: int,
    cell_px: int,
    block_px: int,
) -> None:
    if row.label:
        _write(draw, (left, top), row.label, TEXT_PX, INK, block_px)
    y = top + _label_height(row)
    for place, cell in enumerate(row.cells):
        x = left + place * (cell_px + GAP_PX)
        sheet.paste(cell.whole, (x, y))
        if cell.detail:
            sheet.paste(cell.detail, (x, y + _whole_height(row) + GAP_PX))


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size_px: int,
    ink: tuple[int, int, int],
    width_px: int,
) -> None:
    """Write one line, cut off where it does not fit."""
    font = ImageFont.load_default(size_px)
    # A name may hold anything; what is not to be seen would move the lines.
    text = "".join(c if c.isprintable() else "�" for c in text[:width_px])
    if draw.textlength(text, font=font) > width_px:
        while text and draw.textlength(f"{text}...", font=font) > width_px:
            text = text[:-1]
        text = f"{text}..."
    draw.text(place, text, font=font, fill=ink)
