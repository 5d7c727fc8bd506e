"""Scratches: straight marks that mostly run one way, and scuffs: bundles of fine ones.

Opacity breaks along a scratch, as a grain of sand skips over the emulsion. Lengths and numbers are
those of `film`: the longest go right across the frame.
"""

import numpy as np

from .canvas import Floats, Sheet, groups
from .film import SCRATCH, Kind
from .strokes import follow, stroke, wander

_FAINT = 1.3
"""A scratch by its length as seen: the ends are too faint."""


def scatter_scratches(sheet: Sheet, *, severity: float) -> None:
    """Scatter the scratches of a film frame; severity 1 is the mean of the measured frames (6.5).

    Seven in ten share the sheet's direction: the length of the film (upright here, within 3
    degrees) on every second sheet, any direction on the others. One in seven is double.
    """
    num = sheet.num(SCRATCH.per_frame * severity)
    main = scatter_kind(sheet, SCRATCH, num=num)
    _scatter_scuffs(sheet, sheet.num(0.6 * severity), main=main)


def scatter_kind(sheet: Sheet, kind: Kind, *, num: int, clustering: float | None = None) -> float:
    """Place `num` scratches of a kind; return the direction that most of them share, radians."""
    rng, scale = sheet.rng, sheet.scale_px
    upright = rng.random() < 0.5
    main = np.pi / 2 + np.deg2rad(rng.normal(0.0, 1.5)) if upright else rng.uniform(0.0, np.pi)
    if num == 0:
        return main
    x, y = sheet.place(num, clustering=kind.clustering if clustering is None else clustering)
    spread = np.deg2rad(1.0 if upright else 8.0)
    heading = main + spread * rng.standard_normal(num)
    heading = np.where(rng.random(num) < 0.7, heading, rng.uniform(0.0, np.pi, num))
    length = _FAINT * scale * np.exp(rng.normal(kind.log_mean, kind.log_sigma, num))
    length = np.minimum(length, sheet.size_px)
    width = scale * kind.width * np.exp(0.45 * rng.standard_normal(num))
    opacity = sheet.opacities(num, factor=1.6)
    twin = rng.random(num) < 0.15
    gap = rng.uniform(2.0, 6.0, num)
    draw_scratches(
        sheet,
        np.concatenate([x, (x - gap * np.sin(heading))[twin]]),
        np.concatenate([y, (y + gap * np.cos(heading))[twin]]),
        heading=np.concatenate([heading, heading[twin]]),
        length=np.concatenate([length, length[twin] * rng.uniform(0.4, 1.0, twin.sum())]),
        width=np.concatenate([width, 0.7 * width[twin]]),
        opacity=np.concatenate([opacity, 0.8 * opacity[twin]]),
        bow=0.1,
    )
    return main


def draw_scratches(
    sheet: Sheet,
    x: np.ndarray,
    y: np.ndarray,
    *,
    heading: np.ndarray,
    length: np.ndarray,
    width: np.ndarray,
    opacity: np.ndarray,
    bow: float,
) -> None:
    """Draw one scratch a row.

    Args:
        sheet: drawn on.
        x: middle of the scratch, px.
        y: likewise.
        heading: radians.
        length: px.
        width: px where it is deepest.
        opacity: in [0, 1], where it is deepest.
        bow: standard deviation of the turn from end to end, radians.
    """
    rng = sheet.rng
    soft = np.maximum(0.8 * sheet.softness(len(x)), 1.0)
    for points, chosen in groups(length, smallest=12):
        num = len(chosen)
        span = length[chosen, None].astype(np.float32)
        at = np.arange(points, dtype=np.float32)
        turn = (bow * rng.standard_normal((num, 1), np.float32)) * (at / span - 0.5)
        direction = heading[chosen, None].astype(np.float32) + turn
        start_x = x[chosen] - 0.5 * length[chosen] * np.cos(heading[chosen])
        start_y = y[chosen] - 0.5 * length[chosen] * np.sin(heading[chosen])
        across, down = follow(start_x.astype(np.float32), start_y.astype(np.float32), direction)
        # A torn edge; on fine scratches it is below what shows.
        rough = 0.08 * width[chosen, None].astype(np.float32) * wander(rng, num, points, 2.5)
        across, down = across - rough * np.sin(direction), down + rough * np.cos(direction)
        depth = _depth(rng, num, points) * _ends(at, span)
        stroke(
            sheet,
            across,
            down,
            direction,
            width=width[chosen, None].astype(np.float32) * (0.55 + 0.45 * depth),
            opacity=np.minimum(opacity[chosen, None].astype(np.float32) * depth, 1.0),
            soft=soft[chosen, None],
        )


def _depth(rng: np.random.Generator, num: int, points: int) -> Floats:
    """How deep a scratch goes at each point, in [0, 1]; each has its own share of gaps."""
    coarse = wander(rng, num, points, 60.0)
    fine = wander(rng, num, points, 5.0)
    grit = rng.standard_normal((num, points), np.float32)
    bias = rng.uniform(0.1, 1.1, (num, 1)).astype(np.float32)
    return np.clip(bias + 0.5 * coarse + 0.3 * fine + 0.12 * grit, 0.0, 1.0)


def _ends(at: Floats, span: Floats) -> Floats:
    """Rise at the start and fall at the end of each scratch; 0 beyond."""
    return np.sqrt(np.maximum(np.sin(np.pi * np.clip(at / span, 0.0, 1.0)), 0.0))


def _scatter_scuffs(sheet: Sheet, num: int, *, main: float) -> None:
    """Place bundles of 30 to 200 fine parallel marks in long patches, as left by a sleeve."""
    if num == 0:
        return
    rng, scale = sheet.rng, sheet.scale_px
    scuff = np.repeat(np.arange(num), rng.integers(30, 200, num))
    marks = len(scuff)
    x, y = sheet.place(num, clustering=0.6)
    lean = np.where(rng.random(num) < 0.5, main, rng.uniform(0.0, np.pi, num))
    along = (rng.uniform(60.0, 320.0, num) * scale)[scuff] * rng.standard_normal(marks)
    aside = (rng.uniform(25.0, 130.0, num) * scale)[scuff] * rng.standard_normal(marks)
    cos, sin = np.cos(lean)[scuff], np.sin(lean)[scuff]
    draw_scratches(
        sheet,
        x[scuff] + along * cos - aside * sin,
        y[scuff] + along * sin + aside * cos,
        heading=lean[scuff] + np.deg2rad(5.0) * rng.standard_normal(marks),
        length=scale * np.exp(rng.normal(4.3, 0.6, marks)),
        width=scale * 2.0 * np.exp(0.3 * rng.standard_normal(marks)),
        opacity=sheet.opacities(num, factor=1.1)[scuff] * rng.uniform(0.3, 1.0, marks),
        bow=0.04,
    )
