"""Hairs and fibres: thin curves that bend, kink and curl, with tapering ends.

A curve's heading is the integral of its curvature, and curvature is smooth noise with heavy tails:
long gentle arcs with a kink here and there, as fibres lie. Lengths and numbers after Ivanova et al.
(see `dust`): 1,341 short and 398 long hairs on ten 35 mm frames.
"""

import numpy as np

from .canvas import Floats, Sheet, groups
from .strokes import follow, stroke, wander

_KNOT_FILM = 30.0
"""Film pixels between changes of curvature."""


def scatter_hairs(sheet: Sheet, *, severity: float) -> None:
    """Scatter the hairs of a film frame; severity 1 is the mean of the measured frames.

    Lengths in film pixels: short exp(N(3.7, 0.55)), 134 a frame; long exp(N(4.95, 0.5)), 40 a
    frame; and a few whole hairs of exp(N(6.2, 0.4)), thicker, such as fall on the print itself.
    """
    _scatter(sheet, sheet.num(134 * severity), length=(3.7, 0.55), width=4.2, bend=0.022)
    _scatter(sheet, sheet.num(40 * severity), length=(4.95, 0.5), width=4.0, bend=0.022)
    _scatter(sheet, sheet.num(2.0 * severity), length=(6.2, 0.4), width=6.0, bend=0.006)
    _scatter_lint(sheet, sheet.num(2.0 * severity))


def draw_hairs(
    sheet: Sheet,
    x: Floats,
    y: Floats,
    *,
    heading: Floats,
    length: Floats,
    width: Floats,
    bend: Floats,
    opacity: Floats,
) -> None:
    """Draw one hair a row.

    Args:
        sheet: drawn on.
        x: where it starts, px.
        y: likewise.
        heading: its first direction, radians.
        length: px along the curve.
        width: px in the middle of the hair.
        bend: standard deviation of the curvature, radians a px.
        opacity: in [0, 1].
    """
    rng = sheet.rng
    soft = sheet.softness(len(x))
    knot = _KNOT_FILM * sheet.scale_px
    for points, chosen in groups(length, smallest=12):
        num = len(chosen)
        # Heavy tails (a product of Gaussians): mostly gentle arcs, now and then a kink.
        smooth = wander(rng, num, points, knot) * np.exp(0.6 * wander(rng, num, points, knot))
        rough = rng.standard_normal((num, points), np.float32)
        curvature = bend[chosen, None] * (smooth + 0.5 * rough)
        direction = heading[chosen, None] + np.cumsum(curvature, axis=1)
        across, down = follow(x[chosen], y[chosen], direction)
        at = np.arange(points, dtype=np.float32)
        to_end = np.minimum(at, length[chosen, None] - at)
        inside = to_end >= 0.0
        taper = np.clip(to_end / (10.0 * sheet.scale_px + 2.0) + 0.25, 0.0, 1.0)
        vary = 1.0 + 0.15 * wander(rng, num, points, 2.0 * knot)
        fade = np.clip(1.0 + 0.18 * wander(rng, num, points, knot), 0.4, 1.3)
        stroke(
            sheet,
            across,
            down,
            direction,
            width=width[chosen, None] * vary * taper,
            opacity=np.minimum(opacity[chosen, None] * fade * np.sqrt(taper), 1.0) * inside,
            soft=soft[chosen, None],
        )


def _scatter(
    sheet: Sheet, num: int, *, length: tuple[float, float], width: float, bend: float
) -> None:
    """Place `num` single hairs; lengths, width and bend are of film and scale with the sheet."""
    if num == 0:
        return
    rng, scale = sheet.rng, sheet.scale_px
    x, y = sheet.place(num, clustering=1.0)
    # One in twelve is a curl or a tangle.
    curls = np.where(rng.random(num) < 0.08, 3.0, np.exp(0.35 * rng.standard_normal(num)))
    draw_hairs(
        sheet,
        x,
        y,
        heading=rng.uniform(0.0, 2 * np.pi, num).astype(np.float32),
        # Above the sheet's own size a hair would meet its other end.
        length=np.minimum(scale * np.exp(rng.normal(*length, num)), sheet.size_px).astype("f4"),
        width=(scale * width * np.exp(0.22 * rng.standard_normal(num))).astype(np.float32),
        bend=(bend / scale * curls).astype(np.float32),
        opacity=sheet.opacities(num, factor=1.2, sigma=0.5),
    )


def _scatter_lint(sheet: Sheet, num: int) -> None:
    """Place tufts: three to six curled strands that lie across each other."""
    if num == 0:
        return
    rng, scale = sheet.rng, sheet.scale_px
    tuft = np.repeat(np.arange(num), rng.integers(3, 7, num))
    strands = len(tuft)
    x, y = sheet.place(num, clustering=1.0)
    heading = rng.uniform(0.0, 2 * np.pi, strands)
    length = scale * np.exp(rng.normal(4.5, 0.5, strands))
    # Strands that all began at the middle would make a star.
    back = length * rng.uniform(0.0, 0.7, strands)
    aside = 14.0 * scale * rng.standard_normal((2, strands))
    draw_hairs(
        sheet,
        (x[tuft] + aside[0] - back * np.cos(heading)).astype(np.float32),
        (y[tuft] + aside[1] - back * np.sin(heading)).astype(np.float32),
        heading=heading.astype(np.float32),
        length=length.astype(np.float32),
        width=(scale * 4.5 * np.exp(0.2 * rng.standard_normal(strands))).astype(np.float32),
        bend=(0.05 / scale * np.exp(0.3 * rng.standard_normal(strands))).astype(np.float32),
        opacity=sheet.opacities(num, factor=1.2)[tuft],
    )
