"""Hairs and fibres: thin curves that bend, kink and curl, with tapering ends.

A curve's heading is the integral of its curvature, and curvature is smooth noise with heavy tails:
long gentle arcs with a kink here and there, as fibres lie. Lengths and numbers are those of `film`.
"""

import numpy as np

from .canvas import Floats, Sheet, groups
from .film import LONG_HAIR, SHORT_HAIR, Kind
from .strokes import follow, stroke, wander

_KNOT_FILM = 30.0
"""Film pixels between changes of curvature."""

_WHOLE_HAIR = Kind(per_frame=2.0, log_mean=6.2, log_sigma=0.4, clustering=1.0, width=6.0)


def scatter_hairs(sheet: Sheet, *, severity: float) -> None:
    """Scatter the hairs of a film frame; severity 1 is the mean of the measured frames.

    With them go a few whole hairs, thicker, and tufts of lint, such as fall on the print itself.
    """
    scatter_kind(sheet, SHORT_HAIR, num=sheet.num(SHORT_HAIR.per_frame * severity))
    scatter_kind(sheet, LONG_HAIR, num=sheet.num(LONG_HAIR.per_frame * severity))
    scatter_kind(sheet, _WHOLE_HAIR, num=sheet.num(_WHOLE_HAIR.per_frame * severity), bend=0.006)
    _scatter_lint(sheet, sheet.num(2.0 * severity))


def scatter_kind(sheet: Sheet, kind: Kind, *, num: int, bend: float = 0.022) -> None:
    """Place `num` single hairs of a kind, bent by `bend` radians a film pixel."""
    if num == 0:
        return
    rng, scale = sheet.rng, sheet.scale_px
    x, y = sheet.place(num, clustering=kind.clustering)
    # One in twelve is a curl or a tangle.
    curls = np.where(rng.random(num) < 0.08, 3.0, np.exp(0.35 * rng.standard_normal(num)))
    length = scale * np.exp(rng.normal(kind.log_mean, kind.log_sigma, num))
    draw_hairs(
        sheet,
        x,
        y,
        heading=rng.uniform(0.0, 2 * np.pi, num).astype(np.float32),
        # Above the sheet's own size a hair would meet its other end.
        length=np.minimum(length, sheet.size_px).astype(np.float32),
        width=(scale * kind.width * np.exp(0.22 * rng.standard_normal(num))).astype(np.float32),
        bend=(bend / scale * curls).astype(np.float32),
        opacity=sheet.opacities(num, factor=1.2, sigma=0.5),
    )


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
