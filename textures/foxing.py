"""Foxing: rusty spots of mould and iron in paper, dense in the middle, with a halo that fades.

Spots gather where the paper was damp. Lengths are in px of the texture. For light ground: the
opacity darkens.
"""

import numpy as np

from .canvas import Sheet, around, groups
from .field import fractal

_REACH = 2.6
"""Radii to which a halo is drawn."""


def scatter_foxing(sheet: Sheet, *, severity: float) -> None:
    """Scatter some 160 spots for each 1024 px square at severity 1, radius exp(N(1.5, 0.65)) px."""
    rng = sheet.rng
    num = max(1, int(rng.poisson(160.0 * severity * (sheet.size_px / 1024) ** 2)))
    rough = fractal(rng, sheet.size_px, largest_px=60.0, smallest_px=4.0, slope=1.5)
    x, y = sheet.place(num, clustering=1.3)
    radius = np.exp(rng.normal(1.5, 0.65, num))
    radius = np.minimum(radius, min(34.0, 0.1 * sheet.size_px)).astype(np.float32)
    # Old spots are dark and large, young ones are pale and have no core yet.
    age = np.clip(rng.beta(1.6, 1.8, num) + 0.12 * np.log(radius / 4.5), 0.08, 1.0)
    core = (0.62 * age**1.5 * rng.uniform(0.5, 1.2, num)).astype(np.float32)
    halo = (0.34 * age).astype(np.float32)
    spread = rng.uniform(1.4, 2.6, num).astype(np.float32)
    slim = np.exp(0.1 * rng.standard_normal(num)).astype(np.float32)
    lean = rng.uniform(0.0, np.pi, num).astype(np.float32)
    for half_px, chosen in groups(_REACH * radius + 1.0, smallest=4):
        column, row, dx, dy = around(x[chosen], y[chosen], half_px)
        bent = rough[np.mod(row, sheet.size_px), np.mod(column, sheet.size_px)]
        size, flat = radius[chosen][:, None, None], slim[chosen][:, None, None]
        cos, sin = np.cos(lean[chosen])[:, None, None], np.sin(lean[chosen])[:, None, None]
        u, v = (dx * cos + dy * sin) * flat, (dy * cos - dx * sin) / flat
        distance = np.sqrt(u * u + v * v) / (size * np.exp(0.3 * bent.clip(-2.0, 2.0)))
        inner = core[chosen][:, None, None] * np.exp(-np.minimum(distance**3, 30.0))
        outer = halo[chosen][:, None, None] * np.exp(-distance * spread[chosen][:, None, None])
        # Nothing at the border of its patch, or the patch would show.
        end = np.sqrt(dx * dx + dy * dy) / (_REACH * size)
        spot = (inner + outer) * np.clip(2.0 * (1.0 - end), 0.0, 1.0) * (1.0 + 0.1 * bent)
        sheet.merge(column, row, np.clip(spot, 0.0, 1.0).astype(np.float32))
