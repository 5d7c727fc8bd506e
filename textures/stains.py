"""Water stains: what a liquid left behind as it dried, darkest along the line where it stopped.

What was dissolved travels to the edge of a puddle and stays there: a faint body, a tide line that
is sharp outside and fades inwards, now and then older lines within. Lengths are in px of the
texture: stains are of prints, not film. For light ground: the opacity darkens.
"""

import numpy as np

from .canvas import Floats, Sheet, edge
from .field import fractal, wrapped

_LARGEST = 0.3
"""Largest radius of a stain as a share of the sheet: beyond, it would meet itself."""


def scatter_stains(sheet: Sheet, *, severity: float) -> None:
    """Draw some two puddles for each 1024 px square at severity 1, one at least, and splashes.

    Puddles have radii of 70 to 300 px. A sheet much smaller than 1024 px carries smaller ones.
    """
    rng, size = sheet.rng, sheet.size_px
    squares = (size / 1024) ** 2
    coast = fractal(rng, size, largest_px=260.0, smallest_px=5.0, slope=2.0)
    tint = fractal(rng, size, largest_px=300.0, smallest_px=24.0, slope=1.6)
    num = 1 + int(rng.poisson(1.3 * severity * squares))
    x, y = sheet.place(num, clustering=0.0)
    for i in range(num):
        radius = min(float(np.exp(rng.normal(4.9, 0.4))), 300.0, _LARGEST * size)
        _draw_puddle(sheet, coast, tint, x[i], y[i], radius=radius)
        if rng.random() < 0.6:
            _splash(sheet, coast, tint, x[i], y[i], reach=1.6 * radius)


def _draw_puddle(
    sheet: Sheet, coast: Floats, tint: Floats, x: float, y: float, *, radius: float
) -> None:
    """Draw one puddle: a few round pools run into each other, with an uneven shore."""
    rng = sheet.rng
    pools = 1 + int(rng.poisson(2.0)) if radius > 30.0 else 1
    aside = 0.55 * radius * rng.standard_normal((2, pools)).clip(-1.6, 1.6)
    share = rng.uniform(0.45, 1.0, pools)
    aside[:, 0], share[0] = 0.0, 1.0
    # The foot of a cup: liquid stood only under its rim.
    ring = radius > 50.0 and rng.random() < 0.05
    if ring:
        aside, share = aside[:, :1], share[:1]
    reach = int(min(1.9 * radius + 12.0 + np.abs(aside).max(), 0.5 * (sheet.size_px - 1)))
    window, across, down = _window(sheet, x, y, reach)
    lean, flat = rng.uniform(0.0, np.pi), np.float32(np.exp(0.17 * rng.standard_normal()))
    cos, sin = np.float32(np.cos(lean)), np.float32(np.sin(lean))
    u = (across * cos)[None, :] + (down * sin)[:, None]
    v = (down * cos)[:, None] - (across * sin)[None, :]
    inside = np.full(u.shape, -1e4, np.float32)
    for dx, dy, part in np.column_stack([*aside, share * radius]).astype(np.float32):
        pool = part - np.sqrt(((u - dx) * flat) ** 2 + ((v - dy) / flat) ** 2)
        # A smooth maximum: where pools met there is no corner.
        apart = np.maximum(1.0 - np.abs(inside - pool) / 24.0, 0.0)
        inside = np.maximum(inside, pool) + 6.0 * apart * apart
    inside += (0.02 if ring else rng.uniform(0.05, 0.15)) * radius * coast[window]
    if ring:
        inside = rng.uniform(0.012, 0.035) * radius + 2.0 - np.abs(inside)
    # What reached the border of the window would be cut off there.
    border = reach - np.maximum(np.abs(across)[None, :], np.abs(down)[:, None])
    inside = np.minimum(inside, border - 6.0)

    soft = float(rng.uniform(1.2, 3.0))
    row, column = np.nonzero(inside > -0.5 * soft)
    inside, pixel = inside[row, column], (window[0][row, 0], window[1][0, column])
    shade, shore = tint[pixel], coast[pixel]
    within = np.maximum(inside, 0.0)
    line_px = float(rng.uniform(0.01, 0.035)) * radius + 1.5
    body = rng.uniform(0.1, 0.5) * (0.5 + 0.5 * np.exp(-within / (0.4 * radius)))
    # The line is dark where the last of the liquid went, and fails elsewhere.
    rim = np.exp(-within / line_px) * np.clip(0.6 + 0.5 * shade + 0.15 * shore, 0.08, 1.3)
    stain = body * (1.0 + 0.13 * shade) + 0.8 * rim
    for _ in range(int(rng.integers(0, 3)) if radius > 30.0 and not ring else 0):
        # An earlier shore, where it stood still for a while as it dried.
        back = inside - rng.uniform(0.08, 0.5) * radius - 0.06 * radius * shade
        older = np.exp(-np.maximum(back, 0.0) / line_px) * edge(back, 2.0 * soft)
        stain += rng.uniform(0.08, 0.35) * older * np.clip(0.3 + 0.6 * shade, 0.0, 1.0)
    strength = float(np.clip(rng.lognormal(-0.4, 0.4), 0.3, 1.0))
    stain = np.clip(strength * stain, 0.0, 0.95) * edge(inside, soft)
    # Wet twice is darker, but never more than all.
    sheet.opacity[pixel] = 1.0 - (1.0 - sheet.opacity[pixel]) * (1.0 - stain)


def _splash(sheet: Sheet, coast: Floats, tint: Floats, x: float, y: float, *, reach: float) -> None:
    """Throw some droplets about a puddle, fewer the larger."""
    rng = sheet.rng
    num = int(rng.integers(3, 22))
    angle = rng.uniform(0.0, 2 * np.pi) + rng.normal(0.0, 0.8, num)
    far = reach * rng.uniform(0.5, 1.3, num)
    radius = np.minimum(2.0 + np.exp(rng.normal(1.2, 0.7, num)), 0.1 * sheet.size_px)
    for i in range(num):
        px, py = x + far[i] * np.cos(angle[i]), y + far[i] * np.sin(angle[i])
        _draw_puddle(sheet, coast, tint, px, py, radius=float(radius[i]))


def _window(
    sheet: Sheet, x: float, y: float, reach: int
) -> tuple[tuple[np.ndarray, np.ndarray], Floats, Floats]:
    """Index a square about a point, no pixel twice.

    Returns:
        The index, and how far right of and below the point its columns and rows lie, px.
    """
    offset = np.arange(-reach, reach + 1)
    column = np.mod(round(float(x)) + offset, sheet.size_px)
    row = np.mod(round(float(y)) + offset, sheet.size_px)
    across = wrapped(column.astype(np.float32) - np.float32(x), sheet.size_px)
    down = wrapped(row.astype(np.float32) - np.float32(y), sheet.size_px)
    return (row[:, None], column[None, :]), across, down
