"""Where a crop is cut and how it is turned: the augmentation both sides of a pair share."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from .philox import bits_to_below, draw_bits
from .types import Indices, Keys

CROP_OP = 0xFFFFFFFE
"""Op number of the crop's draws; no recipe is long enough to reach it."""


@dataclass(frozen=True, slots=True)
class CropBoxes:
    """Where to cut one square crop out of each photo, and how to turn it."""

    top: Indices
    """First row, in pixels."""
    left: Indices
    """First column, in pixels."""
    turn: Indices
    """One of the eight positions of a square: bit 0 mirrors rows, bit 1 mirrors columns, bit 2
    swaps rows and columns."""


def sample_crops(keys: Keys, heights: Indices, widths: Indices, *, crop_px: int) -> CropBoxes:
    """Draw a box of crop_px x crop_px pixels inside each photo, and a turn, all uniform.

    Raises:
        ValueError: If crop_px is not positive or a photo is smaller than the crop.
    """
    if crop_px < 1:
        raise ValueError(f"crop_px must be at least 1, got {crop_px}")
    smallest = int(torch.minimum(heights, widths).min())
    if crop_px > smallest:
        raise ValueError(
            f"crop_px is {crop_px}, but one of the photos has only {smallest} px on its short "
            f"side; use crop_px of at most {smallest} or leave that photo out"
        )
    bits = draw_bits(keys, op=CROP_OP, count=3)
    return CropBoxes(
        top=bits_to_below(bits[:, 0], heights - crop_px + 1),
        left=bits_to_below(bits[:, 1], widths - crop_px + 1),
        turn=bits_to_below(bits[:, 2], 8),
    )


def turn_crops(crops: UInt8[Tensor, "B C S S"], turn: Indices) -> UInt8[Tensor, "B C S S"]:
    """Turn square crops into one of the eight positions of a square."""
    for bit, moved in enumerate(
        (lambda x: x.flip(-2), lambda x: x.flip(-1), lambda x: x.transpose(-2, -1))
    ):
        chosen = ((turn >> bit) & 1).bool()[:, None, None, None]
        crops = torch.where(chosen, moved(crops), crops)
    return crops


def sample_mirror(keys: Keys) -> Bool[Tensor, " B"]:
    """Draw whether a whole photo is mirrored left to right: one of the turns, the natural one."""
    return (bits_to_below(draw_bits(keys, op=CROP_OP, count=3)[:, 2], 8) >> 1 & 1).bool()
