"""Dust and dirt: small irregular flakes, from specks of a pixel to clots of twenty.

A speck is one disc with a bent outline; larger dirt is several stuck together, because one bent
disc looks like a star or an amoeba when it is large enough to be seen. Sizes and numbers are those
of `film`.
"""

from dataclasses import dataclass

import numpy as np

from .canvas import Floats, Sheet, around, edge, groups
from .film import DIRT, DUST, Kind

_DISC_FILM = 120.0
"""Area, in square film pixels, from which on a flake is several discs rather than one."""

_FRINGE_FILM = 0.75
"""Film pixels from the radius of a disc to where it can just be seen, on the measured scans."""

_HARMONICS = np.arange(2, 7)
"""Of an outline; the first would only move the speck."""


def scatter_dust(sheet: Sheet, *, severity: float) -> None:
    """Scatter the dust of a film frame; severity 1 is the mean of the measured frames.

    The outlines were cut off below 39 square film pixels, so finer specks go on as a power law of
    exponent 2, as scanned dust textures show (exponents 1.7 to 2.3), and so do a few clots at the
    upper end.
    """
    rng = sheet.rng
    fine = _power_law(rng, sheet.num(1500 * severity), 10.0, 50.0)
    clots = _power_law(rng, sheet.num(12 * severity), 400.0, 4000.0)
    scatter_specks(sheet, fine, clustering=0.7)
    scatter_kind(sheet, DUST, num=sheet.num(DUST.per_frame * severity))
    scatter_kind(sheet, DIRT, num=sheet.num(DIRT.per_frame * severity))
    scatter_specks(sheet, clots, clustering=0.9, opacity=1.2)


def scatter_kind(sheet: Sheet, kind: Kind, *, num: int, clustering: float | None = None) -> None:
    """Scatter `num` specks of one kind; the kind's clustering if none is given."""
    radius = np.exp(0.5 * sheet.rng.normal(kind.log_mean, kind.log_sigma, num)) / np.sqrt(np.pi)
    # Outlines run where a speck can just be seen, outside the middle of its soft edge.
    area = np.pi * np.maximum(radius - _FRINGE_FILM, 1.0) ** 2
    gathered = kind.clustering if clustering is None else clustering
    scatter_specks(sheet, area, clustering=gathered, opacity=1.25)


def scatter_specks(
    sheet: Sheet, area_film: np.ndarray, *, clustering: float, opacity: float = 1.0
) -> None:
    """Place flakes of given areas.

    Args:
        sheet: drawn on.
        area_film: one area a flake, in square film pixels.
        clustering: as in `Sheet.place`.
        opacity: factor on the sheet's median opacity.
    """
    num = len(area_film)
    if num == 0:
        return
    x, y = sheet.place(num, clustering=clustering)
    area = area_film.astype(np.float32) * sheet.scale_px**2
    marks = Specks.draw(sheet, x, y, area, sheet.opacities(num, factor=opacity))
    splat(sheet, marks)


@dataclass(frozen=True, kw_only=True)
class Specks:
    """One row a disc: where it lies (px), how large and stretched it is, how soft, how opaque."""

    x: Floats
    y: Floats
    radius: Floats
    aspect: Floats
    angle: Floats
    soft: Floats
    opacity: Floats

    @classmethod
    def draw(cls, sheet: Sheet, x: Floats, y: Floats, area: Floats, opacity: Floats) -> "Specks":
        """Make a flake of each area in px²: one disc, or a short walk of several where it is large.

        Discs of a flake share its focus; some are thinner than the flake's opacity says.
        """
        rng = sheet.rng
        parts = np.minimum(area / (_DISC_FILM * sheet.scale_px**2), 7.0)
        # One disc as large as a clot would look like a flower.
        num_discs = 1 + np.maximum(
            rng.poisson(parts * rng.random(len(area))), (0.6 * parts).astype(np.int64)
        )
        flake = np.repeat(np.arange(len(area)), num_discs)
        first = np.concatenate(([0], np.cumsum(num_discs)[:-1]))
        num = len(flake)
        many = num_discs[flake] > 1
        uneven = np.where(many, np.exp(1.2 * rng.standard_normal(num)), 1.0)
        share = uneven / np.bincount(flake, uneven)[flake]
        # Discs 0.9 radii apart overlap: two cover 1.55 times what one does.
        covered = num_discs / (1.0 + 0.55 * (num_discs - 1))
        radius = np.sqrt(share * (area * covered)[flake] / np.pi)
        # A walk that keeps its direction for a while: flakes are longer than wide, and bent.
        turn = rng.normal(0.0, 0.8, num)
        turn[first] = rng.uniform(0.0, 2 * np.pi, len(area))
        heading = _restart_sum(turn, first, num_discs)
        step = np.where(many, 0.9 * radius, 0.0)
        dx = _restart_sum(step * np.cos(heading), first, num_discs)
        dy = _restart_sum(step * np.sin(heading), first, num_discs)
        soft = sheet.softness(len(area))[flake] + 0.25 * radius
        shade = np.where(many, rng.uniform(0.35, 1.1, num), 1.0)
        columns = {
            "x": x[flake] + dx,
            "y": y[flake] + dy,
            "radius": radius,
            "aspect": np.minimum(np.exp(0.2 * np.abs(rng.standard_normal(num))), 2.4),
            "angle": heading + rng.normal(0.0, 0.5, num),
            "soft": soft,
            "opacity": np.minimum(opacity[flake] * shade, 1.0),
        }
        return cls(**{name: column.astype(np.float32) for name, column in columns.items()})


def splat(sheet: Sheet, marks: Specks) -> None:
    """Draw discs with bent outlines, r(t) = r (1 + sum over k of a_k cos(k t + p_k))."""
    reach = np.sqrt(marks.aspect) * (1.4 * marks.radius + 0.5 * marks.soft)
    # Half a pixel more: the patch is centred on a pixel, the speck is not.
    for half_px, chosen in groups(reach + 0.5, smallest=2):
        column, row, dx, dy = around(marks.x[chosen], marks.y[chosen], half_px)
        cos, sin = np.cos(marks.angle[chosen]), np.sin(marks.angle[chosen])
        squeeze = np.sqrt(marks.aspect[chosen])
        u = (dx * cos[:, None, None] + dy * sin[:, None, None]) / squeeze[:, None, None]
        v = (dy * cos[:, None, None] - dx * sin[:, None, None]) * squeeze[:, None, None]
        distance = np.sqrt(u * u + v * v)
        radius = marks.radius[chosen][:, None, None]
        if half_px > 3:  # on smaller specks nobody sees the outline
            radius = radius * _outline(sheet.rng, u, v, distance)
        opacity = edge(radius - distance, marks.soft[chosen][:, None, None])
        if half_px > 5:
            opacity = opacity * _mottle(sheet.rng, len(chosen), 2 * half_px + 1)
        sheet.merge(column, row, opacity * marks.opacity[chosen][:, None, None])


def _outline(rng: np.random.Generator, u: Floats, v: Floats, distance: Floats) -> Floats:
    """Radius towards each pixel, relative to the disc's, in [0.5, 1.4]."""
    amplitude = (0.12 * _HARMONICS**-0.5).astype(np.float32)
    wave = rng.standard_normal((2, len(u), len(_HARMONICS)), np.float32) * amplitude
    wave = wave[0] + 1j * wave[1]
    unit = (u + 1j * v) / np.maximum(distance, 1e-3)
    bend = np.zeros_like(unit)
    for k in reversed(range(len(_HARMONICS))):  # Horner: cos(kt) and sin(kt) without trigonometry
        bend = (bend + wave[:, k, None, None]) * unit
    return np.clip(1.0 + (bend * unit).real, 0.5, 1.4).astype(np.float32)


def _mottle(rng: np.random.Generator, num: int, patch_px: int) -> Floats:
    """Thickness of flakes from place to place, in [0.4, 1]: a flat one looks cut from paper."""
    tile = rng.standard_normal((64, 64), np.float32)
    for axis in (0, 1):  # box blur of 4 px
        tile = np.sum([np.roll(tile, shift, axis) for shift in range(4)], axis=0)
    tile = np.clip(0.8 + 0.2 * tile / tile.std(), 0.4, 1.0)
    row, column = rng.integers(0, 64, (2, num, 1, 1))
    at = np.arange(patch_px)
    return tile[(row + at[:, None]) % 64, (column + at[None, :]) % 64]


def _restart_sum(steps: np.ndarray, first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Cumulative sum that starts again at each flake."""
    total = np.cumsum(steps)
    return total - np.repeat(total[first] - steps[first], length)


def _power_law(rng: np.random.Generator, num: int, low: float, high: float) -> np.ndarray:
    """Draw from a density proportional to a^-2 between low and high."""
    return 1.0 / (1.0 / low + rng.random(num) * (1.0 / high - 1.0 / low))
