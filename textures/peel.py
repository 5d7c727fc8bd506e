"""Peeled emulsion: flakes that came off a print or a plate, so that the bare base shows.

A brittle layer cracks into cells, and cells come off one by one, most of them next to others that
have: the outline is angular, the cracks go on beyond it. Lengths are in px of the texture.
"""

import numpy as np

from .canvas import Floats, Sheet, edge
from .dust import Specks, splat
from .field import fractal

_AROUND = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]


def scatter_peel(sheet: Sheet, *, severity: float) -> None:
    """Peel some 2.5 % of the sheet at severity 1, in one to a few places, never more than 5 %."""
    rng, size = sheet.rng, sheet.size_px
    # As many cells as fit a whole number of times: the sheet tiles.
    cells = max(6, round(size / rng.uniform(11.0, 26.0)))
    pitch = size / cells
    worn = fractal(rng, size, largest_px=300.0, smallest_px=12.0, slope=1.7)
    bend = fractal(rng, size, largest_px=40.0, smallest_px=4.0, slope=1.4)
    shift = (0.5 + rng.uniform(-0.42, 0.42, (2, cells, cells))) * pitch
    grid = np.arange(cells) * pitch
    points = np.stack([grid[:, None] + shift[0], grid[None, :] + shift[1]]).astype(np.float32)
    weight = (pitch * rng.uniform(0.0, 0.38, (cells, cells))).astype(np.float32)
    row, column = np.mod(points.astype(np.int64), size)
    loose = worn[row, column] + rng.uniform(0.12, 0.3) * rng.standard_normal((cells, cells))
    share = float(np.clip(0.025 * severity * np.exp(0.4 * rng.standard_normal()), 0.004, 0.05))
    lost = loose > np.quantile(loose, 1.0 - share)

    # Only near what is lost: the rest of the sheet stays as it is.
    near = lost
    for axis in (0, 1):
        near = near | np.roll(near, 1, axis) | np.roll(near, -1, axis)
    at = (np.arange(size) / pitch).astype(np.int64).clip(max=cells - 1)
    pixel = np.flatnonzero(near[at[:, None], at[None, :]])
    if not pixel.size:
        return
    gap, crack = _distances(
        pixel, points, weight, lost, bend.reshape(-1), pitch=pitch, size_px=size
    )
    chipped = gap + 0.7 * bend.reshape(-1)[pixel] * rng.uniform(0.5, 1.5)
    bare = edge(chipped, sheet.soft_px)
    # The base is not one white: remains of the layer stay on it, and its torn edge is brightest.
    remains = fractal(rng, size, largest_px=60.0, smallest_px=8.0, slope=1.3).reshape(-1)[pixel]
    depth = np.clip(
        rng.uniform(0.55, 0.85) + 0.12 * remains + 0.06 * bend.reshape(-1)[pixel], 0.25, 0.95
    )
    rim = 0.35 * np.exp(-np.maximum(chipped, 0.0) / 1.6)
    fine = np.clip(0.6 + 0.6 * bend.reshape(-1)[pixel], 0.0, 1.0)
    fades = np.clip(1.0 + gap / (0.45 * pitch), 0.0, 1.0)
    cracks = rng.uniform(0.2, 0.55) * fine * fades * (1.0 - edge(crack - 0.8, 1.4))
    flat = sheet.opacity.reshape(-1)
    flat[pixel] = np.maximum(flat[pixel], np.maximum(bare * np.minimum(depth + rim, 1.0), cracks))
    _draw_chips(sheet, pixel, gap, pitch=pitch)


def _distances(
    pixel: np.ndarray,
    points: Floats,
    weight: Floats,
    lost: np.ndarray,
    bend: Floats,
    *,
    pitch: float,
    size_px: int,
) -> tuple[Floats, Floats]:
    """Measure how far inside what is lost each pixel lies, and how far from the nearest crack, px.

    Cells are those of the nearest point, some points reaching farther than others, among the nine
    about the pixel, bent a little.
    """
    wide = lost.shape[0] + 2
    # One more cell on each side, where the sheet goes on: no distance has to wrap.
    cell = np.stack([*points, weight, np.where(lost, np.float32(1e4), 0.0)], axis=-1)
    cell = np.pad(cell, ((1, 1), (1, 1), (0, 0)), mode="wrap").astype(np.float32)
    cell[0, :, 0] -= size_px
    cell[-1, :, 0] += size_px
    cell[:, 0, 1] -= size_px
    cell[:, -1, 1] += size_px
    cell = cell.reshape(-1, 4)
    row, column = np.divmod(pixel, size_px)
    i = (row / pitch).astype(np.int64).clip(max=wide - 3)
    j = (column / pitch).astype(np.int64).clip(max=wide - 3)
    at = (i + 1) * wide + j + 1
    turn = np.float32(0.09 * pitch) * bend[pixel]
    y, x = row.astype(np.float32) + turn, column.astype(np.float32) - turn
    to_lost, to_kept, first, second = (
        np.full(len(pixel), 9.0 * pitch, np.float32) for _ in range(4)
    )
    for down, right in _AROUND:
        near = cell[at + (down * wide + right)]
        distance = np.sqrt((near[:, 0] - y) ** 2 + (near[:, 1] - x) ** 2) - near[:, 2]
        gone = near[:, 3]
        to_lost = np.minimum(to_lost, distance + (np.float32(1e4) - gone))
        to_kept = np.minimum(to_kept, distance + gone)
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    return 0.5 * (to_kept - to_lost), 0.5 * (second - first)


def _draw_chips(sheet: Sheet, pixel: np.ndarray, gap: Floats, *, pitch: float) -> None:
    """Lose small chips of a few px² just outside what is lost."""
    rng = sheet.rng
    rim = pixel[(gap > -0.7 * pitch) & (gap < 0.0)]
    num = int(rng.poisson(0.004 * len(rim)))
    if num == 0:
        return
    y, x = np.divmod(rim[rng.integers(0, len(rim), num)], sheet.size_px)
    area = np.minimum(np.exp(rng.normal(1.6, 0.8, num)), 60.0).astype(np.float32)
    opacity = rng.uniform(0.3, 0.95, num).astype(np.float32)
    splat(sheet, Specks.draw(sheet, x.astype(np.float32), y.astype(np.float32), area, opacity))
