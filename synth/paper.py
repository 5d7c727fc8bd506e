"""Paper: the relief of its fibres, or of a weave pressed into it, in the light of one lamp.

A height map of felted fibres on a cloudy sheet, or of threads over and under each other as on linen
or silk finishes, is shaded by its slope towards the lamp, and the picture is multiplied by that.
Fibres are six fields of noise, of which thin bands about zero are kept: drawing them
one by one took five times as long.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, OneChannel, Params, PerImage

FIBRE_PX = 10.0
"""How far fibres run before they bend."""

FIBRE_RADIUS_PX = 1.0
"""Half of their width."""

_LAYERS = 6
_SHEET, _FIBRES, _WARP = 0, 100, 200
"""Planes of the noise, first ones."""


def shade(x: Images, slope: OneChannel, *, relief: PerImage) -> Images:
    """Return clip(x (1 + relief (slope - 1))): rough paper is a little darker than smooth.

    Args:
        x: Pictures.
        slope: Towards the lamp, of mean 0 and standard deviation about 1.
        relief: Contrast of the paper, in units of the tone; 0 returns x.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide + wide * per_pixel(relief) * (slope - 1)).clamp(0, 1).to(x.dtype)


def slope_towards(height: Tensor, *, angle: PerImage) -> OneChannel:
    """Return by how much heights rise in a direction, per pixel; a pixel is lost on each side.

    Args:
        height: In pixels, (B, 1, H + 2, W + 2).
        angle: Where the lamp is, in radians, clockwise from the right.
    """
    right = 0.5 * (height[..., 1:-1, 2:] - height[..., 1:-1, :-2])
    down = 0.5 * (height[..., 2:, 1:-1] - height[..., :-2, 1:-1])
    return per_pixel(angle.cos()) * right + per_pixel(angle.sin()) * down


def felt(scene: Scene, height: int, width: int) -> OneChannel:
    """Return the heights of a sheet of felted fibres, in pixels; slopes have a deviation near 1."""
    scale = scene.scale
    sheet = smooth_noise(
        scene, height, width, period_px=20.0 * scale, plane=_SHEET, octaves=4, gain=0.55
    )
    winding = smooth_noise(
        scene, height, width, period_px=FIBRE_PX * scale, plane=_FIBRES, planes=_LAYERS
    )
    # Where a field crosses zero, at a slope near 2 / period, and its neighbour is not near zero.
    near = 1 - (winding * (0.5 * FIBRE_PX / FIBRE_RADIUS_PX)).square()
    body = near.clamp(min=0) * (1.5 * winding.roll(1, 1) - 0.3).clamp(0, 1)
    return scale * (6.0 * sheet + 4.4 * body.amax(1, keepdim=True))


def weave(
    scene: Scene, height: int, width: int, *, period_px: PerImage, angle: PerImage
) -> OneChannel:
    """Return the heights of a plain weave, in pixels; slopes have a deviation near 1.

    Args:
        scene: Whose keys and place.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        period_px: From one thread to the next.
        angle: By which the threads are turned, in radians.
    """
    rows, columns = scene.rows(height), scene.columns(width)
    # No thread is quite straight.
    stray = 0.15 * smooth_noise(
        scene, height, width, period_px=24.0 * scene.scale, plane=_WARP, planes=2, octaves=2
    )
    cos, sin = per_pixel(angle.cos()), per_pixel(angle.sin())
    period = per_pixel(period_px)
    turns = torch.cat(
        ((columns * cos + rows * sin) / period, (rows * cos - columns * sin) / period), 1
    )
    turns = turns + stray
    wave = ((turns - 2 * (turns * 0.5).floor()) * math.pi).sin()
    # Where threads cross, one is up and the other down, in turns: the product of the two waves.
    over = wave[:, :1] * wave[:, 1:]
    squares = wave * wave
    return period * 0.6 * (squares[:, :1] * (1 + over) + squares[:, 1:] * (1 - over))


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperFibre(Defect):
    """The relief of the paper."""

    relief: Range = (0.01, 0.05)
    """Contrast of the relief, a share of the tone, uniform in this range for each photograph."""
    woven: float = 0.2
    """Share of the photographs on paper with a weave in place of fibres."""
    thread_px: Range = (4.0, 8.0)
    """From one thread of a weave to the next, uniform in this range for each photograph."""

    def __post_init__(self) -> None:
        """Check the ranges and the share."""
        check_range("relief", self.relief, low=0.0, high=0.5)
        check_range("thread_px", self.thread_px, low=2.0, high=64.0)
        if not 0.0 <= self.woven <= 1.0:
            raise ValueError(f"woven must be a share from 0 to 1, got {self.woven!r}")

    def sample(self, scene: Scene) -> Params:
        """Draw relief, lamp and turn in radians, thread_px (B,), and woven (B,) bool."""
        u = scene.uniform(5)
        return {
            "relief": scene.strength(u[:, 0], self.relief, most=0.5),
            "lamp": u[:, 1] * (2 * math.pi),
            "turn": (u[:, 2] - 0.5) * 0.1,
            "thread_px": scene.amount(u[:, 3], self.thread_px) * scene.scale,
            "woven": u[:, 4] < self.woven,
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Shade the pictures by their paper; it hides nothing, so there is no mask."""
        H, W = x.shape[2] + 2, x.shape[3] + 2
        # Slopes take a pixel on each side.
        scene = replace(scene, top=scene.top - 1, left=scene.left - 1)
        height = felt(scene, H, W) if self.woven < 1 else None
        if self.woven > 0:
            threads = weave(scene, H, W, period_px=params["thread_px"], angle=params["turn"])
            woven = per_pixel(params["woven"])
            height = threads if height is None else torch.where(woven, threads, height)
        assert height is not None
        slope = slope_towards(height, angle=params["lamp"])
        return shade(x, slope, relief=params["relief"]), None
