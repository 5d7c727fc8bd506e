"""A scan of few pixels, brought back to size: detail goes, sometimes the pixels show as squares.

Each scanned pixel is the mean of what it covers, of any width and not only a whole number of
pixels. Its grid begins at the corner of the whole picture, so all windows see the same pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .defect import Defect
from .ranges import Range, check_range
from .scene import NOMINAL_SIDE_PX, Scene, per_pixel
from .types import Images, Mask, Params, PerImage

MOST_FACTOR = 16.0
"""No scan is coarser; it bounds what one pixel costs."""


def low_resolution(
    x: Images,
    *,
    factor: PerImage,
    nearest: Tensor,
    most_factor: float,
    size: tuple[int, int] | None = None,
    top: int = 0,
    left: int = 0,
) -> Images:
    """Shrink by area and enlarge again.

    Args:
        x: Pictures, or windows of them.
        factor: Side of a scanned pixel, in pixels, at least 1; 1 returns x.
        nearest: (B,) bool; whether scanned pixels stay squares, else enlarged bilinearly.
        most_factor: No factor is larger.
        size: Height and width of the whole pictures, if these are windows.
        top: First row of the window.
        left: First column of the window.
    """
    H, W = size or (x.shape[2], x.shape[3])
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    taps = math.ceil(most_factor) + 1
    scanned = _rescan(wide, factor, nearest, taps, top, H)
    scanned = _rescan(scanned.mT, factor, nearest, taps, left, W).mT
    scanned = torch.where(per_pixel(factor) > 1, scanned, wide).clamp(0, 1).to(x.dtype)
    if x.is_contiguous(memory_format=torch.channels_last):
        return scanned.contiguous(memory_format=torch.channels_last)
    return scanned.contiguous()


@dataclass(frozen=True, kw_only=True, slots=True)
class LowResolution(Defect):
    """A scan of too few pixels."""

    factor: Range = (1.2, 4.0)
    """Side of a scanned pixel, in pixels; severity moves it within this range, or towards 1."""
    nearest: float = 0.25
    """Share of the photographs in which the scanned pixels stay squares."""

    def __post_init__(self) -> None:
        """Check the range and the share."""
        check_range("factor", self.factor, low=1.0, high=MOST_FACTOR)
        if not 0.0 <= self.nearest <= 1.0:
            raise ValueError(f"nearest must be a share from 0 to 1, got {self.nearest!r}")

    def sample(self, scene: Scene) -> Params:
        """Draw factor (B,), and nearest (B,) bool."""
        u = scene.uniform(2)
        most = self.factor[1] - 1
        more = scene.strength(u[:, 0], (self.factor[0] - 1, most), most=most)
        # As far from 1 pixel as the picture is fine.
        factor = 1 + more * scene.scale
        return {
            "factor": factor.clamp(max=self._most_factor(scene.size)),
            "nearest": u[:, 1] < self.nearest,
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Scan the pictures; nothing is hidden, so there is no mask."""
        return low_resolution(
            x,
            factor=params["factor"],
            nearest=params["nearest"],
            most_factor=self._most_factor(scene.size),
            size=scene.size,
            top=scene.top,
            left=scene.left,
        ), None

    def reach_px(self, size: tuple[int, int]) -> int:
        """As far as one and a half scanned pixels."""
        return math.ceil(1.5 * self._most_factor(size)) + 1

    def _most_factor(self, size: tuple[int, int]) -> float:
        scale = max(1.0, max(size) / NOMINAL_SIDE_PX)
        return min(1 + (self.factor[1] - 1) * scale, MOST_FACTOR)


def _rescan(
    x: Tensor, factor: PerImage, nearest: Tensor, taps: int, top: int, height: int
) -> Tensor:
    """Shrink and enlarge down the rows, of which the whole picture has `height`."""
    B, C, H, W = x.shape
    rows = x.reshape(B * C * H, W)
    first_row = (torch.arange(B * C, device=x.device) * H).view(B, C, 1)
    factor = factor.float()[:, None]

    def take(index: Tensor, of: Tensor, base: Tensor, length: int) -> Tensor:
        place = base + index.clamp(0, length - 1)[:, None, :]
        return of.index_select(0, place.flatten()).view(B, C, -1, W)

    # Where each row falls among the scanned ones, whose centres have whole numbers.
    place = (torch.arange(H, device=x.device) + (top + 0.5)) / factor - 0.5
    above = place.floor()
    share = place - above
    share = torch.where(nearest[:, None], (share >= 0.5).float(), share)
    # Of the scanned rows, those that matter: at most as many as there are rows, and two.
    start = above[:, :1]
    last = ((height / factor).ceil() - 1).clamp(min=0)
    number = (start + torch.arange(H + 2, device=x.device)).clamp(min=0).minimum(last)
    begin = number * factor
    end = (begin + factor).clamp(max=height)
    row = begin.floor()
    scanned = total = None
    for tap in range(taps):
        overlap = (torch.minimum(row + (tap + 1), end) - torch.maximum(row + tap, begin)).clamp(0)
        taken = take((row + (tap - top)).long(), rows, first_row, H) * overlap[:, None, :, None]
        scanned = taken if scanned is None else scanned.add_(taken)
        total = overlap if total is None else total + overlap
    assert scanned is not None
    assert total is not None
    scanned = (scanned / total[:, None, :, None]).view(B * C * (H + 2), W)
    first_scanned = (torch.arange(B * C, device=x.device) * (H + 2)).view(B, C, 1)
    index = (above - start).long()
    return torch.lerp(
        take(index, scanned, first_scanned, H + 2),
        take(index + 1, scanned, first_scanned, H + 2),
        share[:, None, :, None].to(scanned.dtype),
    )
