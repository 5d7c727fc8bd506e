"""Creases: where a print was folded, its emulsion broke along the fold and the white paper shows.

A crease is a jagged line, whitened here and there, with flakes lost along it, fine cracks that
leave it, and a faint worn band. Lengths are in px of the texture: creases are of prints, not film.
"""

import numpy as np

from .canvas import Floats, Sheet
from .dust import Specks, splat
from .strokes import follow, stroke, wander


def scatter_creases(sheet: Sheet, *, severity: float) -> None:
    """Draw about three creases for each 1024 px square at severity 1, and one at least.

    Each is 250 to 1000 px long, but never longer than the sheet, in any direction. So a sheet much
    smaller than 1024 px has more than its share of creases, if shorter ones.
    """
    rng = sheet.rng
    num = 1 + int(rng.poisson(2.0 * severity * (sheet.size_px / 1024) ** 2))
    x, y = sheet.place(num, clustering=0.0)
    for i in range(num):
        length = min(rng.uniform(250.0, 1000.0), 0.9 * sheet.size_px)
        opacity = min(1.0, 3.0 * float(sheet.opacities(1)[0]))
        _draw_crease(sheet, x[i : i + 1], y[i : i + 1], length=int(length), opacity=opacity)


def _draw_crease(sheet: Sheet, x: Floats, y: Floats, *, length: int, opacity: float) -> None:
    """Draw one crease that starts at a point."""
    rng = sheet.rng
    # Paper folds straight; where the fold was soft it wavers, and the emulsion breaks in zigzag.
    heading = rng.uniform(0.0, 2 * np.pi) + 0.04 * wander(rng, 1, length, 90.0)
    across, down = follow(x, y, heading)
    jag = 1.1 * wander(rng, 1, length, 14.0) + 0.5 * wander(rng, 1, length, 3.0)
    across, down = across - jag * np.sin(heading), down + jag * np.cos(heading)
    ends = np.sqrt(np.sin(np.pi * (np.arange(length, dtype=np.float32) + 0.5) / length))
    broken = (
        rng.uniform(0.5, 1.0)
        + 0.5 * wander(rng, 1, length, 45.0)
        + 0.4 * wander(rng, 1, length, 5.0)
    )
    depth = np.clip(broken, 0.0, 1.0) * ends
    thick = 1.2 + rng.uniform(0.6, 3.0) * np.abs(wander(rng, 1, length, 7.0)) * depth
    soft = np.full_like(depth, sheet.soft_px)
    line = {"heading": heading, "soft": soft}
    stroke(sheet, across, down, **line, width=thick, opacity=opacity * depth)
    line["soft"] = np.full_like(depth, 6.0)
    worn = 0.2 * opacity * np.clip(0.6 + 0.6 * wander(rng, 1, length, 25.0), 0.0, 1.0) * ends
    stroke(sheet, across, down, **line, width=np.full_like(depth, 5.0), opacity=worn)
    at = _along(rng, depth, rng.poisson(0.09 * length))
    _draw_flakes(sheet, across[0, at], down[0, at], opacity=opacity)
    at = _along(rng, depth, rng.poisson(0.035 * length))
    _draw_cracks(sheet, across[0, at], down[0, at], heading[0, at], opacity=0.7 * opacity)


def _along(rng: np.random.Generator, depth: Floats, num: int) -> np.ndarray:
    """Draw points of a crease, more where it is deep."""
    cumulative = np.cumsum(depth[0] + 1e-3)
    at = np.searchsorted(cumulative, rng.random(num) * cumulative[-1], side="right")
    return np.minimum(at, depth.shape[1] - 1)


def _draw_flakes(sheet: Sheet, x: Floats, y: Floats, *, opacity: float) -> None:
    """Lose flakes of emulsion, mostly of a few px², beside the given points."""
    rng, num = sheet.rng, len(x)
    aside = rng.normal(0.0, 1.6, (2, num))
    area = np.minimum(np.exp(rng.normal(1.4, 0.9, num)), 60.0).astype(np.float32)
    opacities = np.minimum(opacity * rng.uniform(0.4, 1.1, num), 1.0)
    splat(sheet, Specks.draw(sheet, x + aside[0], y + aside[1], area, opacities))


def _draw_cracks(sheet: Sheet, x: Floats, y: Floats, heading: Floats, *, opacity: float) -> None:
    """Let fine cracks of 4 to 30 px leave the crease to either side."""
    rng, num, longest = sheet.rng, len(x), 30
    if num == 0:
        return
    lean = rng.choice([-1.0, 1.0], num) * rng.uniform(0.3, 1.4, num) + heading
    direction = lean[:, None] + np.cumsum(0.07 * wander(rng, num, longest, 3.0), axis=1)
    across, down = follow(x, y, direction)
    length = np.clip(np.exp(rng.normal(2.0, 0.6, num)), 4.0, longest)[:, None]
    fade = np.clip(1.0 - np.arange(longest, dtype=np.float32) / length, 0.0, 1.0)
    stroke(
        sheet,
        across,
        down,
        direction,
        width=0.5 + 0.5 * fade,
        opacity=opacity * fade * rng.uniform(0.3, 1.0, (num, 1)),
        soft=np.full((num, 1), sheet.soft_px, np.float32),
    )
