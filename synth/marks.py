"""Marks: small things strewn over a picture, each in a cell of an endless grid.

A cell draws its marks from the key and its own place, so a mark is the same in every window that
shows a part of it. All marks of a batch are drawn as small patches and laid on the picture by
maximum, which does not depend on their order: no loop over photographs or marks, no wait for the
GPU, and work in proportion to what is covered.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .philox import bits_to_uniform
from .scene import Scene


@dataclass(frozen=True, slots=True)
class Marks:
    """The M places for a mark in reach of a window; which are taken is up to the defect."""

    x: Float[Tensor, "B M"]
    """Columns of the centres, in pixels of the window; they may lie outside."""
    y: Float[Tensor, "B M"]
    """Rows of the centres, likewise."""
    u: Float[Tensor, "B M n"]
    """Numbers in [0, 1), for existence, size, opacity and so on."""


def find_marks(
    scene: Scene,
    height: int,
    width: int,
    *,
    cell_px: int | float,
    per_cell: int,
    num_draws: int,
    reach_px: int | float,
    plane: int,
) -> Marks:
    """Find the places for marks whose centres are at most `reach_px` outside of a window.

    A mark lies anywhere in its cell. Make it exist with the probability (marks wanted in a cell) /
    `per_cell`: the counts are then binomial, nearly Poisson.

    Args:
        scene: Whose keys and place.
        height: Of the window, in pixels.
        width: Of the window, in pixels.
        cell_px: Side of the cells.
        per_cell: Places in a cell.
        num_draws: Numbers for each place.
        reach_px: How far outside of the window a mark can still show in it.
        plane: Number of the first plane; (per_cell * (2 + num_draws) + 3) // 4 are used up.
    """
    row = math.floor((scene.top - reach_px) / cell_px)
    column = math.floor((scene.left - reach_px) / cell_px)
    rows = math.floor((scene.top + height + reach_px) / cell_px) - row + 1
    columns = math.floor((scene.left + width + reach_px) / cell_px) - column + 1
    numbers = 2 + num_draws
    words = scene.cells(row, column, rows, columns, count=per_cell * numbers, plane=plane)
    u = bits_to_uniform(words).unflatten(1, (per_cell, numbers))
    device = scene.keys.device
    down = torch.arange(rows, device=device)[:, None] * cell_px + (row * cell_px - scene.top)
    right = torch.arange(columns, device=device) * cell_px + (column * cell_px - scene.left)
    return Marks(
        x=(right + cell_px * u[:, :, 0]).flatten(1),
        y=(down + cell_px * u[:, :, 1]).flatten(1),
        u=u[:, :, 2:].movedim(2, -1).flatten(1, 3),
    )


def around(marks: Marks, half_px: int) -> tuple[Tensor, Tensor]:
    """Return how far right of and below its mark each pixel of a patch lies.

    A patch is the (2 half_px + 1)**2 pixels about the pixel nearest to the mark.

    Returns:
        dx (B, M, 1, P) and dy (B, M, P, 1), in pixels.
    """
    offset = torch.arange(-half_px, half_px + 1, device=marks.x.device)
    dx = (marks.x.round() - marks.x)[:, :, None] + offset
    dy = (marks.y.round() - marks.y)[:, :, None] + offset
    return dx[:, :, None, :], dy[:, :, :, None]


def lay(
    patches: Float[Tensor, "B M P P"], marks: Marks, height: int, width: int
) -> Float[Tensor, "B 1 H W"]:
    """Lay patches about their marks on an empty window; where they meet, the larger number stays.

    Args:
        patches: At least 0; 0 is nothing. They should be 0 all along their border.
        marks: Whose centres they have.
        height: Of the window, in pixels.
        width: Of the window, in pixels.
    """
    B, _, P, _ = patches.shape
    half = P // 2
    # What lies outside falls into a border that is cut off; far outside, onto its rim.
    padded_h, padded_w = height + 2 * P, width + 2 * P
    offset = torch.arange(P, device=patches.device) + (P - half)
    row = (marks.y.round().long().clamp(-P, height + P - 1)[:, :, None] + offset).clamp(
        0, padded_h - 1
    )
    column = (marks.x.round().long().clamp(-P, width + P - 1)[:, :, None] + offset).clamp(
        0, padded_w - 1
    )
    place = row[:, :, :, None] * padded_w + column[:, :, None, :]
    empty = patches.new_zeros((B, padded_h * padded_w))
    laid = empty.scatter_reduce(1, place.flatten(1), patches.flatten(1), "amax")
    return laid.view(B, 1, padded_h, padded_w)[:, :, P : P + height, P : P + width]
