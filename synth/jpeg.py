"""JPEG: blocks of 8 px, coarsely quantised, with half of the colour's resolution.

As libjpeg does it (ITU-T T.81, tables K.1 and K.2, scaled by quality; colour at half resolution),
up to the final rounding to 8 bits. Kornia's codec, made to be differentiated, rounds softly and
asks the GPU for the range of the quality, so the host would wait; its colour conversion is used.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_ycbcr, ycbcr_to_rgb
from torch import Tensor

from .defect import Defect
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, Params, PerImage

BLOCK_PX = 16
"""Side of the blocks that are coded on their own: 8 px, twice as large where colour is halved."""

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of quantisation at quality 50, rows of rising vertical frequency."""

CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""The same for the two components of colour."""


def jpeg(x: Images, *, quality: PerImage, top: int = 0, left: int = 0) -> Images:
    """Code and decode pictures.

    Args:
        x: Pictures, or windows of larger ones.
        quality: 1 to 100, whole numbers as libjpeg has them; 100 returns x, as it nearly would.
        top: First row of the window, which settles where blocks lie.
        left: First column of the window.
    """
    H, W = x.shape[2:]
    above, before = top % BLOCK_PX, left % BLOCK_PX
    padding = (before, -(before + W) % BLOCK_PX, above, -(above + H) % BLOCK_PX)
    wide = x.float()
    if any(padding):
        wide = F.pad(wide, padding, mode="replicate")
    if x.shape[1] == 1:
        coded = _code(_levels(wide - 128 / 255), _steps(LUMA_TABLE, quality)) / 255.0 + 128 / 255
    else:
        ycc = rgb_to_ycbcr(wide)
        luma = _code(_levels(ycc[:, :1] - 128 / 255), _steps(LUMA_TABLE, quality))
        # The mean of four pixels, and back as libjpeg's "fancy upsampling" does it.
        chroma = _levels(F.avg_pool2d(ycc[:, 1:] - 0.5, 2))
        chroma = F.interpolate(
            _code(chroma, _steps(CHROMA_TABLE, quality)),
            scale_factor=2.0,
            mode="bilinear",
            align_corners=False,
        )
        coded = ycbcr_to_rgb(torch.cat((luma / 255.0 + 128 / 255, chroma / 255.0 + 0.5), 1))
    coded = coded[..., above : above + H, before : before + W].clamp(0, 1).to(x.dtype)
    result = torch.where(per_pixel(quality) < 100, coded, x)
    if x.is_contiguous(memory_format=torch.channels_last):
        return result.contiguous(memory_format=torch.channels_last)
    return result.contiguous()


@dataclass(frozen=True, kw_only=True, slots=True)
class Jpeg(Defect):
    """A picture saved as JPEG once too often."""

    quality: Range = (30.0, 95.0)
    """Of libjpeg, 1 to 100, uniform in this range for each photograph; severity takes what it
    lacks of 100 times as much."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("quality", self.quality, low=1.0, high=100.0)

    def sample(self, scene: Scene) -> Params:
        """Draw quality (B,), whole numbers."""
        lacking = (100.0 - self.quality[1], 100.0 - self.quality[0])
        lost = scene.strength(scene.uniform(1)[:, 0], lacking, most=90.0)
        return {"quality": (100.0 - lost).round()}

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Code the pictures; nothing is hidden, so there is no mask."""
        return jpeg(x, quality=params["quality"], top=scene.top, left=scene.left), None

    def reach_px(self, size: tuple[int, int]) -> int:
        """A block, and colour that is interpolated from the next."""
        return BLOCK_PX


def _levels(x: Tensor) -> Tensor:
    """Round to 255ths, which are the whole numbers of the result."""
    # Of 8-bit pixels, luma has thousandths: so ties are rounded upwards on every device.
    return (x * 255.0 + 2e-4).round()


def _steps(table: tuple[tuple[int, ...], ...], quality: PerImage) -> Tensor:
    """Scale a table by quality as libjpeg does, in whole numbers: (B, 1, 1, 8, 1, 8)."""
    device = quality.device
    # A row of a table is one word of eight bytes: filled in on the device, as a copy from the host
    # would make it wait.
    words = torch.stack(
        [
            torch.full((), sum(step << (8 * i) for i, step in enumerate(row)), device=device)
            for row in table
        ]
    )
    steps = ((words[:, None] >> (8 * torch.arange(8, device=device))) & 0xFF).float()
    quality = quality.float()[:, None, None]
    # Halves and thousandths keep an inexact division off the whole numbers.
    scale = torch.where(quality < 50, (5000 / quality + 1e-3).floor(), 200 - 2 * quality)
    steps = ((steps * scale + 50.5) / 100).floor().clamp(1, 255)
    return steps[:, None, None, :, None, :]


def _code(levels: Tensor, steps: Tensor) -> Tensor:
    """Transform blocks of 8 x 8, quantise and transform back."""
    B, C, H, W = levels.shape
    # Eight times the transform of the standard: its constant row is all ones, so that the mean of
    # a block is exact and falls on the same side of a step on every device.
    number = torch.arange(8, device=levels.device)
    angle = (2 * number + 1) * number[:, None] * (math.pi / 16)
    basis = torch.where(number[:, None] == 0, 1.0, math.sqrt(2) * angle.cos())
    found = basis @ levels.view(B, C, H // 8, 8, W)
    found = (found.view(B, C, H, W // 8, 8) @ basis.mT).view(B, C, H // 8, 8, W // 8, 8)
    # Ties, frequent among whole numbers, go outwards, whatever the last digit of a sum.
    quantised = (found * (1.0001 / (8 * steps))).round() * steps
    rows = quantised.view(B, C, H, W // 8, 8) @ basis
    return (basis.mT @ rows.view(B, C, H // 8, 8, W)).view(B, C, H, W) / 8
