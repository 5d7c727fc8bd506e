"""Worley's cells: how far a pixel is from the nearest and the second nearest of scattered points.

One point in each cell of an endless keyed grid (Worley, "A cellular texture basis function",
SIGGRAPH 96). The second distance less the first is 0 on the borders of the points' regions: a net
of cracks, or the outline of flakes. Looks at the 3 x 3 cells about a pixel, in nine gathers a
coordinate: exact but for one border pixel in some thousands, where a fourth ring would matter.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .philox import bits_to_uniform
from .scene import Scene


@dataclass(frozen=True, slots=True)
class Worley:
    """Distances are in sides of a cell."""

    nearest: Float[Tensor, "B 1 H W"]
    """To the nearest point, about 0.5."""
    second: Float[Tensor, "B 1 H W"]
    """To the second nearest."""
    value: Float[Tensor, "B 1 H W"] | None
    """Number in [0, 1) of the nearest point, the same all over its region."""


def worley(
    scene: Scene,
    y: Float[Tensor, "B 1 H W"],
    x: Float[Tensor, "B 1 H W"],
    *,
    cell_px: float,
    warp_px: float,
    plane: int,
    jitter: float = 0.9,
    valued: bool = False,
) -> Worley:
    """Measure the distances from places to the points of a grid.

    Args:
        scene: Whose keys and place.
        y: Rows of the places in the whole picture, warped or not, in pixels.
        x: Columns, likewise.
        cell_px: Side of the cells.
        warp_px: How far the places may be off the pixels of the window, at most.
        plane: Number of the plane; one is used up.
        jitter: Share of its cell that a point may lie in, about its centre.
        valued: Whether the numbers of the points are wanted; half as much work again.
    """
    B, _, H, W = y.shape
    row = math.floor((scene.top - warp_px) / cell_px) - 1
    column = math.floor((scene.left - warp_px) / cell_px) - 1
    rows = math.floor((scene.top + H + warp_px) / cell_px) + 2 - row
    columns = math.floor((scene.left + W + warp_px) / cell_px) + 2 - column
    u = bits_to_uniform(scene.cells(row, column, rows, columns, count=3, plane=plane))
    # Places and points counted from the first cell: float32 has few digits left far out.
    y, x = y / cell_px - row, x / cell_px - column
    device = scene.keys.device
    down = (jitter * (u[:, 0] - 0.5) + torch.arange(rows, device=device)[:, None] + 0.5).flatten(1)
    right = (jitter * (u[:, 1] - 0.5) + torch.arange(columns, device=device) + 0.5).flatten(1)
    value = u[:, 2].flatten(1)
    cell_y = y.floor().long().clamp(1, rows - 2)
    cell_x = x.floor().long().clamp(1, columns - 2)
    # Of the upper left of the nine; a table without its first n numbers reads n further on.
    cell = ((cell_y - 1) * columns + (cell_x - 1)).flatten(1)
    y, x = y.flatten(1), x.flatten(1)
    nearest = torch.full_like(y, 8.0)
    second, its = nearest, torch.zeros_like(y)
    for further in (a * columns + b for a in range(3) for b in range(3)):
        dy = down[:, further:].gather(1, cell) - y
        dx = right[:, further:].gather(1, cell) - x
        distance = dy * dy + dx * dx
        if valued:
            its = torch.where(distance < nearest, value[:, further:].gather(1, cell), its)
        second = torch.minimum(second, torch.maximum(nearest, distance))
        nearest = torch.minimum(nearest, distance)
    shape = (B, 1, H, W)
    return Worley(
        nearest=nearest.sqrt().view(shape),
        second=second.sqrt().view(shape),
        value=its.view(shape) if valued else None,
    )
