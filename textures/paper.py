"""Paper: the relief of a print's surface under raking light, and the fibres that lie in it.

Matt paper is felted fibre; much portrait paper was pressed with silk (a honeycomb) or linen (a
weave), which scans show as a pattern. For light ground: the opacity darkens, most where the relief
turns from the light; the brightest tenth of the sheet is clean.
"""

import numpy as np

from .canvas import Floats, Sheet
from .field import fractal, spectral
from .hairs import draw_hairs

_LEVELS = 2
"""Grey levels to a step: relief is noise, and noise in steps of one level hardly compresses."""


def scatter_paper(sheet: Sheet, *, severity: float) -> None:
    """Cover the sheet; severity 1 darkens by 0.1 on average, and a few fibres by more."""
    rng = sheet.rng
    strength = 0.05 * float(np.clip(severity, 0.4, 1.8))
    surface = rng.random()
    relief = _felt(sheet)
    if surface < 0.25:
        relief = relief + rng.uniform(0.8, 1.6) * _silk(sheet)
    elif surface < 0.45:
        relief = relief + rng.uniform(0.8, 1.6) * _linen(sheet)
    relief = relief / relief.std()
    cloud = fractal(rng, sheet.size_px, largest_px=300.0, smallest_px=30.0, slope=1.3)
    shade = strength * (relief + 0.35 * cloud)
    sheet.opacity = np.clip(np.quantile(shade[::4, ::4], 0.9) - shade, 0.0, 1.0).astype(np.float32)
    _scatter_fibres(sheet, severity=severity)
    step = _LEVELS / 255.0
    sheet.opacity = np.rint(sheet.opacity / step) * np.float32(step)


def _felt(sheet: Sheet) -> Floats:
    """Light falling on felted fibres: short ridges, longer along the way the paper was made."""
    rng, size = sheet.rng, sheet.size_px
    grain, light = rng.uniform(0.0, np.pi, 2)
    length = rng.uniform(1.0, 2.2)

    def gain(fx: Floats, fy: Floats) -> Floats:
        along = length * (fx * np.cos(grain) + fy * np.sin(grain))
        across = fy * np.cos(grain) - fx * np.sin(grain)
        period = np.hypot(along, across) * (7.0 / size)
        # The slope seen from the light is the derivative of the height.
        slope = np.abs(fx * np.cos(light) + fy * np.sin(light)) * (7.0 / size)
        return slope / (1.0 + period**2) ** 1.5

    return spectral(rng, size, gain, highest=size / 2.6)


def _silk(sheet: Sheet) -> Floats:
    """A honeycomb of pits, lit from one side; a whole number of them fits the sheet."""
    rng, size = sheet.rng, sheet.size_px
    waves = size / rng.uniform(7.0, 13.0)
    angle = rng.uniform(0.0, np.pi / 3)
    phase = rng.uniform(0.0, 2 * np.pi)
    total = np.zeros((size, size), np.float32)
    # Three plane waves 120 degrees apart; the third closes the triangle exactly.
    first = np.rint(waves * np.array([np.cos(angle), np.sin(angle)]))
    second = np.rint(waves * np.array([np.cos(angle + 2.0944), np.sin(angle + 2.0944)]))
    for kx, ky in (first, second, -first - second):
        total += _wave(size, kx, ky, phase)
    return total / total.std()


def _linen(sheet: Sheet) -> Floats:
    """Threads over and under each other, of uneven thickness."""
    rng, size = sheet.rng, sheet.size_px
    waves = size / rng.uniform(6.0, 12.0)
    angle = rng.uniform(0.0, np.pi / 2) if rng.random() < 0.3 else rng.normal(0.0, 0.02)
    kx, ky = np.rint(waves * np.array([np.cos(angle), np.sin(angle)]))
    uneven = fractal(rng, size, largest_px=90.0, smallest_px=10.0, slope=1.0)
    warp, weft = _wave(size, kx, ky, 0.0), _wave(size, -ky, kx, 1.0)
    total = warp * (1.0 + 0.3 * uneven) + weft * (1.0 - 0.3 * uneven)
    return total / total.std()


def _wave(size: int, kx: float, ky: float, phase: float) -> Floats:
    """Make a plane wave of whole wave numbers, as the outer product that it is."""
    turn = 2j * np.pi * np.arange(size) / size
    right, down = np.exp(kx * turn).astype(np.complex64), np.exp(ky * turn + 1j * phase)
    return (down.astype(np.complex64)[:, None] * right[None, :]).real


def _scatter_fibres(sheet: Sheet, *, severity: float) -> None:
    """Lay darker fibres into the sheet, faint and bent, such as cheap card is full of."""
    rng = sheet.rng
    num = int(rng.poisson(60.0 * severity * (sheet.size_px / 1024) ** 2))
    if num == 0:
        return
    x, y = sheet.place(num, clustering=0.2)
    flat = np.ones(num, np.float32)
    draw_hairs(
        sheet,
        x,
        y,
        heading=rng.uniform(0.0, 2 * np.pi, num).astype(np.float32),
        length=np.minimum(np.exp(rng.normal(3.0, 0.5, num)), 0.5 * sheet.size_px).astype("f4"),
        width=(1.1 * np.exp(0.3 * rng.standard_normal(num))).astype(np.float32),
        bend=0.07 * flat,
        opacity=rng.uniform(0.15, 0.45, num).astype(np.float32),
    )
