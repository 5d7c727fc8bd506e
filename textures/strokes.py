"""Strokes: many curves of different lengths and changing width, drawn at once.

A curve is a row of points a pixel apart; each point paints a short piece of ribbon across its
direction, so that a line thinner than a pixel stays even instead of breaking into beads.
"""

import numpy as np

from .canvas import Floats, Sheet, around, edge, groups


def follow(x: Floats, y: Floats, heading: Floats) -> tuple[Floats, Floats]:
    """Walk (M, T) headings (radians) in steps of one pixel from M starting points."""
    across = x[:, None] + np.cumsum(np.cos(heading), axis=1)
    down = y[:, None] + np.cumsum(np.sin(heading), axis=1)
    return across, down


def wander(rng: np.random.Generator, num: int, length: int, knot_px: float) -> Floats:
    """Draw (num, length) smooth noise of unit variance at knots that lie `knot_px` apart."""
    at = np.arange(length, dtype=np.float32) / max(knot_px, 1.0)
    before = at.astype(np.int64)
    part = at - np.floor(at)
    knots = rng.standard_normal((num, int(before[-1]) + 2), np.float32)
    return knots[:, before] * (1.0 - part) + knots[:, before + 1] * part


def stroke(
    sheet: Sheet,
    x: Floats,
    y: Floats,
    heading: Floats,
    *,
    width: Floats,
    opacity: Floats,
    soft: Floats,
) -> None:
    """Paint points of curves, all arrays alike in shape; points of no opacity are left out.

    Args:
        sheet: drawn on.
        x: columns, px, anywhere in the plane.
        y: rows, px.
        heading: direction of the curve at the point, radians.
        width: of the ribbon, px.
        opacity: in [0, 1].
        soft: width of the ribbon's edge, px.
    """
    painted = (opacity > 0.004) & (width > 0.0)
    points = (a[painted] for a in np.broadcast_arrays(x, y, heading, width, opacity, soft))
    x, y, heading, width, opacity, soft = points
    for half_px, chosen in groups(0.5 * (width + soft) + 0.5, smallest=2):
        column, row, dx, dy = around(x[chosen], y[chosen], half_px)
        cos = np.cos(heading[chosen])[:, None, None]
        sin = np.sin(heading[chosen])[:, None, None]
        along = np.abs(dx * cos + dy * sin)
        across = np.abs(dy * cos - dx * sin)
        ribbon = edge(0.5 * width[chosen][:, None, None] - across, soft[chosen][:, None, None])
        # Full for half a step to either side, then out: neighbours take over, ends stay soft.
        ribbon = ribbon * np.clip((1.1 - along) / 0.6, 0.0, 1.0)
        sheet.merge(column, row, ribbon * opacity[chosen][:, None, None])
