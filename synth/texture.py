"""Wear: an opacity map of dust, hairs and scratches laid over the picture as clip(x + alpha t).

Maps on dark ground are added, as light that dust on the negative held back: they whiten. Maps on
light ground darken, x (1 - alpha t), as stains on the print do. Maps tile without a seam, so any
offset is as good as another and no crop is too large. Each photograph gets one map in one of its
eight positions, at its own offset, strength and enlargement (bilinear): the finer a print is
scanned, the more pixels a speck has. A picture longer than the map gets it enlarged to its long
side at least: wear scales with the frame and never repeats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .defect import Defect
from .philox import bits_to_below, bits_to_uniform
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Indices, Mask, OneChannel, Params, PerImage

MASK_LEVEL = 0.05
"""The mask holds the pixels where alpha t is at least this share of full scale."""

STEP = 4096
"""Positions in a texture are whole numbers of this part of its pixel: the same on every device."""


def overlay(x: Images, layer: OneChannel, *, alpha: PerImage) -> Images:
    """Return clip(x + alpha layer); alpha 0 returns x."""
    return (x + per_pixel(alpha).to(x.dtype) * layer.to(x.dtype)).clamp(0, 1)


def darken(x: Images, layer: OneChannel, *, alpha: PerImage) -> Images:
    """Return x (1 - alpha layer); alpha 0 returns x."""
    return x * (1 - per_pixel(alpha).to(x.dtype) * layer.to(x.dtype))


def read_textures(
    bank: Tensor,
    index: Indices,
    top: Indices,
    left: Indices,
    turn: Indices,
    step: Indices,
    size: tuple[int, int],
    *,
    row: int = 0,
    column: int = 0,
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
        row: Rows of the whole picture above the window that is wanted.
        column: Columns of the whole picture left of it.

    Returns:
        Float32 (B, 1, H, W) in [0, 1], interpolated bilinearly.
    """
    H, W = size
    S = bank.shape[-1]
    rows, dy = _positions(row, H, step, turn & 1, top)
    columns, dx = _positions(column, W, step, (turn >> 1) & 1, left)
    swap = ((turn >> 2) & 1)[:, None]
    per_row, per_column = S - swap * (S - 1), 1 + swap * (S - 1)
    flat, base = bank.reshape(-1), (index * S * S)[:, None]

    def corner(down: Tensor, right: Tensor) -> Tensor:
        down = base + down.remainder(S) * per_row
        right = right.remainder(S) * per_column
        return flat[down[:, :, None] + right[:, None, :]].to(torch.float32)

    dy, dx = dy[:, :, None], dx[:, None, :]
    upper = torch.lerp(corner(rows, columns), corner(rows, columns + 1), dx)
    lower = torch.lerp(corner(rows + 1, columns), corner(rows + 1, columns + 1), dx)
    return (torch.lerp(upper, lower, dy) / 255.0)[:, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Texture(Defect):
    """Wear from the texture bank."""

    alpha: Range = (0.2, 0.7)
    """Strength of the overlay, uniform in this range for each photograph."""
    zoom: Range = (1.0, 2.5)
    """Enlargement of the texture; its inverse is uniform in this range for each photograph."""
    families: tuple[str, ...] = ()
    """Of the textures to draw from; all on dark ground if empty."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("alpha", self.alpha, low=0.0, high=1.0)
        check_range("zoom", self.zoom, low=1.0, high=64.0)
        named = isinstance(self.families, tuple) and all(isinstance(f, str) for f in self.families)
        if not named:
            raise ValueError(
                f'families must be a tuple of names, such as ("dust",), got {self.families!r}'
            )

    @property
    def uses_textures(self) -> bool:
        """It does."""
        return True

    def sample(self, scene: Scene) -> Params:
        """Draw alpha (B,), and texture, top, left, turn and step (B,) int64."""
        bits = scene.bits(6)
        choice = scene.bank.choose(self.families)
        side = scene.bank.size_px
        least, most = math.ceil(STEP / self.zoom[1]), math.floor(STEP / self.zoom[0])
        step = least + bits_to_below(bits[:, 5], max(most - least, 0) + 1)
        return {
            "alpha": scene.strength(bits_to_uniform(bits[:, 0]), self.alpha),
            "texture": choice[bits_to_below(bits[:, 1], len(choice))],
            "top": bits_to_below(bits[:, 2], side),
            "left": bits_to_below(bits[:, 3], side),
            "turn": bits_to_below(bits[:, 4], 8),
            "step": step.clamp(max=max(1, STEP * side // max(scene.size))),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Lay the texture over x; the mask is where it adds or takes `MASK_LEVEL` or more."""
        layer = read_textures(
            scene.bank.textures,
            params["texture"],
            params["top"],
            params["left"],
            params["turn"],
            params["step"],
            (x.shape[2], x.shape[3]),
            row=scene.top,
            column=scene.left,
        )
        alpha = params["alpha"]
        dark = per_pixel(scene.bank.light_ground[params["texture"]])
        mask = per_pixel(alpha) * layer >= MASK_LEVEL
        aged = torch.where(dark, darken(x, layer, alpha=alpha), overlay(x, layer, alpha=alpha))
        return aged, mask


def _positions(
    first: int, length: int, step: Indices, mirrored: Indices, start: Indices
) -> tuple[Tensor, Tensor]:
    """Texture coordinates of pixels `first` to `first` + `length`, (B, length): whole texture
    pixels, and the rest in [0, 1).
    """
    along = (torch.arange(length, device=start.device) + first) * step[:, None]
    place = STEP * start[:, None] + torch.where(mirrored[:, None].bool(), -along, along)
    return place.div(STEP, rounding_mode="floor"), place.remainder(STEP).to(torch.float32) / STEP
