"""Worley's cells: how far a pixel is from the nearest and the second nearest of scattered points.

One point in each cell of a keyed grid (Worley, "A cellular texture basis function", SIGGRAPH 96).
Half the difference of the squares of the distances is 0 on the borders of the points' regions and
grows evenly off them: a net of cracks, or the outline of flakes. The grid has its origin in the
middle of the picture, may be turned and stretched, and is the same in every window. Looks at the
3 x 3 cells about a pixel, nine gathers a coordinate; the second nearest point is hardly ever
farther away.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .philox import bits_to_uniform
from .scene import Scene, per_pixel
from .types import PerImage

_SLACK = 2.0
"""How many cells beyond the picture there are: as far as a warp may reach."""

_APART = 0.95
"""Distance of neighbouring points on average, in sides of a cell."""


@dataclass(frozen=True, slots=True)
class Regions:
    """Of the nearest points; distances are in sides of a cell."""

    nearest: Float[Tensor, "B 1 H W"]
    """Square of the distance to the nearest point, about 0.25."""
    second: Float[Tensor, "B 1 H W"]
    """Square of the distance to the second nearest point."""
    value: Float[Tensor, "B 1 H W"] | None
    """Number in [0, 1) of the nearest point, the same all over its region."""

    def off_border(self) -> Float[Tensor, "B 1 H W"]:
        """Return the distance to the border: (b² - a²) / 2 by the distance between the two points.

        Which is a + b where they face each other and less elsewhere, `_APART` on average: so the
        smaller of the two is taken for it.
        """
        apart = (self.nearest.sqrt() + self.second.sqrt()).clamp_(max=_APART)
        return (self.second - self.nearest).mul_(0.5).div_(apart)


def find_regions(
    scene: Scene,
    y: Float[Tensor, "B 1 H W"],
    x: Float[Tensor, "B 1 H W"],
    *,
    extent: float,
    plane: int,
    jitter: float = 0.8,
    valued: bool = False,
) -> Regions:
    """Measure the distances from places to the points of a grid.

    Args:
        scene: Whose keys.
        y: Rows of the places, in cells from the origin, see `to_cells`.
        x: Columns, likewise.
        extent: How far from the origin there are cells; a bound for y and x.
        plane: Number of the plane; one is used up.
        jitter: Share of its cell that a point may lie in, about its centre.
        valued: Whether the numbers of the points are wanted.
    """
    half = math.ceil(extent)
    side = 2 * half
    u = bits_to_uniform(scene.cells(-half, -half, side, side, count=3, plane=plane))
    # Counted from the origin, not from the window: so each window rounds alike.
    cells = torch.arange(-half, half, device=scene.keys.device) + 0.5
    down = (jitter * (u[:, 0] - 0.5) + cells[:, None]).flatten(1)
    right = (jitter * (u[:, 1] - 0.5) + cells).flatten(1)
    value = u[:, 2].flatten(1)
    row = y.floor().long().add_(half - 1).clamp_(0, side - 3)
    column = x.floor().long().add_(half - 1).clamp_(0, side - 3)
    # Of the upper left of the nine; a table without its first n numbers reads n further on.
    cell = row.mul_(side).add_(column).flatten(1)
    shape, y, x = y.shape, y.flatten(1), x.flatten(1)
    nearest = torch.full_like(y, 8.0)
    second, its = torch.full_like(y, 8.0), torch.zeros_like(y)
    for further in (a * side + b for a in range(3) for b in range(3)):
        dy = down[:, further:].gather(1, cell).sub_(y)
        dx = right[:, further:].gather(1, cell).sub_(x)
        distance = dy.mul_(dy).addcmul_(dx, dx)
        if valued:
            its = torch.where(distance < nearest, value[:, further:].gather(1, cell), its)
        second = torch.minimum(second, torch.maximum(nearest, distance))
        nearest = torch.minimum(nearest, distance)
    return Regions(
        nearest=nearest.view(shape),
        second=second.view(shape),
        value=its.view(shape) if valued else None,
    )


def to_cells(
    scene: Scene,
    warp: Float[Tensor, "B 2 H W"],
    *,
    cell_px: PerImage,
    angle: PerImage,
    stretch: PerImage,
) -> tuple[Tensor, Tensor]:
    """Return the places of the window's pixels in a grid: y and x in cells, (B, 1, H, W).

    Args:
        scene: Whose place.
        warp: By how much the places are off, down and to the right, in sides of a cell.
        cell_px: Side of a cell, or its mean if the grid is stretched.
        angle: Of the grid's rows, in radians.
        stretch: Length of a cell along its row relative to that across; 1 is a square.
    """
    height, width = scene.size
    H, W = warp.shape[2:]
    rows = scene.rows(H) - (height - 1) / 2
    columns = scene.columns(W) - (width - 1) / 2
    cos, sin = per_pixel(angle.cos()), per_pixel(angle.sin())
    longer = stretch.sqrt()
    across, along = per_pixel(longer / cell_px), per_pixel(1 / (longer * cell_px))
    y = ((cos * across) * rows - (sin * across) * columns).add_(warp[:, :1])
    x = ((sin * along) * rows + (cos * along) * columns).add_(warp[:, 1:])
    return y, x


def extent_of(scene: Scene, *, cell_px: float, stretch: float = 1.0) -> float:
    """Return the `extent` of a grid whose cells are at least so large and at most so stretched."""
    return 0.5 * math.hypot(*scene.size) * math.sqrt(stretch) / cell_px + _SLACK
