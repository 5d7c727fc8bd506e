"""Wear: an opacity map of dust, hairs and scratches laid over the picture as clip(x + alpha t).

The map is added, as light that dust on the negative held back: it whitens. Maps tile without a
seam, so any offset is as good as another and no crop is too large. Each photograph gets one map in
one of its eight positions, at its own offset, strength and enlargement (bilinear): the finer a
print is scanned, the more pixels a speck has. A picture longer than the map gets it enlarged to its
long side at least: wear scales with the frame and never repeats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..textures import TextureBank
from .philox import bits_to_below, bits_to_uniform, draw_bits
from .ranges import Range, check_range, spread
from .types import Images, Indices, Keys, Mask, OneChannel, Params, PerImage

MASK_LEVEL = 0.05
"""The mask holds the pixels where alpha t is at least this share of full scale."""

STEP = 4096
"""Positions in a texture are whole numbers of this part of its pixel: the same on every device."""


def overlay(x: Images, layer: OneChannel, *, alpha: PerImage) -> Images:
    """Return clip(x + alpha layer); alpha 0 returns x."""
    return (x + alpha.to(x.dtype)[:, None, None, None] * layer.to(x.dtype)).clamp_(0, 1)


def read_textures(
    bank: Tensor,
    index: Indices,
    top: Indices,
    left: Indices,
    turn: Indices,
    step: Indices,
    size: tuple[int, int],
) -> OneChannel:
    """Cut one window of H x W pixels out of a texture for each photograph, wrapping at its edges.

    Args:
        bank: uint8 (N, S, S), 0 for none to 255 for full opacity.
        index: Which texture, 0 to N - 1.
        top: Row of the window's first row, in the texture as turned by bit 2.
        left: Column of the window's first column, likewise.
        turn: One of the eight positions of a square, 0 to 7: bit 2 swaps rows and columns of the
            texture; then, from `top` and `left`, rows run upwards with bit 0 and columns run
            leftwards with bit 1.
        step: From one pixel of the window to the next, in 1 / `STEP` pixels of the texture;
            `STEP` takes the texture as it is, less enlarges it.
        size: H, W in pixels.

    Returns:
        Float32 (B, 1, H, W) in [0, 1], interpolated bilinearly.
    """
    H, W = size
    S = bank.shape[-1]
    row, dy = _positions(H, step, turn & 1, top)
    column, dx = _positions(W, step, (turn >> 1) & 1, left)
    swap = ((turn >> 2) & 1)[:, None]
    per_row, per_column = S - swap * (S - 1), 1 + swap * (S - 1)
    flat, base = bank.reshape(-1), (index * S * S)[:, None]

    def corner(row: Tensor, column: Tensor) -> Tensor:
        down = base + row.remainder(S) * per_row
        right = column.remainder(S) * per_column
        return flat[down[:, :, None] + right[:, None, :]].to(torch.float32)

    dy, dx = dy[:, :, None], dx[:, None, :]
    upper = torch.lerp(corner(row, column), corner(row, column + 1), dx)
    lower = torch.lerp(corner(row + 1, column), corner(row + 1, column + 1), dx)
    return (torch.lerp(upper, lower, dy) / 255.0)[:, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Texture:
    """Wear from the texture bank."""

    alpha: Range = (0.2, 0.7)
    """Strength of the overlay, uniform in this range for each photograph."""
    zoom: Range = (1.0, 2.5)
    """Enlargement of the texture; its inverse is uniform in this range for each photograph."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("alpha", self.alpha, low=0.0, high=1.0)
        check_range("zoom", self.zoom, low=1.0, high=64.0)

    def sample(
        self, keys: Keys, *, op: int, size: tuple[int, int], textures: TextureBank
    ) -> Params:
        """Draw alpha (B,), and texture, top, left, turn and step (B,) int64."""
        bits = draw_bits(keys, op=op, count=6)
        least, most = math.ceil(STEP / self.zoom[1]), math.floor(STEP / self.zoom[0])
        step = least + bits_to_below(bits[:, 5], max(most - least, 0) + 1)
        return {
            "alpha": spread(bits_to_uniform(bits[:, 0]), self.alpha),
            "texture": bits_to_below(bits[:, 1], len(textures)),
            "top": bits_to_below(bits[:, 2], textures.size_px),
            "left": bits_to_below(bits[:, 3], textures.size_px),
            "turn": bits_to_below(bits[:, 4], 8),
            "step": step.clamp(max=STEP * textures.size_px // max(size)),
        }

    def apply(
        self, x: Images, params: Params, *, keys: Keys, op: int, textures: TextureBank
    ) -> tuple[Images, Mask | None]:
        """Lay the texture over x; the mask is where it adds `MASK_LEVEL` or more."""
        layer = read_textures(
            textures.textures,
            params["texture"],
            params["top"],
            params["left"],
            params["turn"],
            params["step"],
            (x.shape[2], x.shape[3]),
        )
        alpha = params["alpha"]
        mask = alpha[:, None, None, None] * layer >= MASK_LEVEL
        return overlay(x, layer, alpha=alpha), mask


def _positions(
    length: int, step: Indices, mirrored: Indices, start: Indices
) -> tuple[Tensor, Tensor]:
    """Texture coordinates of `length` pixels, (B, length): whole pixels, and the rest in [0, 1)."""
    along = torch.arange(length, device=start.device) * step[:, None]
    place = STEP * start[:, None] + torch.where(mirrored[:, None].bool(), -along, along)
    return place.div(STEP, rounding_mode="floor"), place.remainder(STEP).to(torch.float32) / STEP
