"""Silver mirroring: a bluish, metallic sheen on the dark parts of an old print, from the edges in.

Silver of the image wanders to the surface where air and damp get at it, and lies there as a mirror:
it shows where there was most of it, and near the borders of the picture.
"""

from dataclasses import dataclass

import torch

from .defect import Defect
from .grayscale import grayscale
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .stains import changed, luma_of
from .types import Images, Mask, OneChannel, Params

SHEEN = (0.68, 0.76, 0.90)
"""Colour of the light that the silver throws back."""


def mirror(x: Images, sheen: OneChannel) -> Images:
    """Add the sheen of silver where x is dark (by screen); sheen 0 returns x.

    Pictures of one channel get the luma of it.

    Args:
        x: The pictures.
        sheen: 0 to 1, how much of the light black silver throws back.
    """
    dark = (1 - grayscale(x)).square_()
    veil = dark * sheen
    if x.shape[1] == 1:
        return ((1 - x) * (veil * luma_of(SHEEN)) + x).to(x.dtype)
    parts = [(1 - x[:, c : c + 1]) * (veil * SHEEN[c]) for c in range(3)]
    return (x + torch.cat(parts, 1)).to(x.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class SilverMirroring(Defect):
    """A bluish sheen on dark parts near the edges."""

    sheen: Range = (0.2, 0.7)
    """How much light the mirror throws back at the very edge."""
    width_px: Range = (40.0, 180.0)
    """How far from the edge it has faded to 1/e; at 1024 px on the long side."""
    inside: Range = (0.0, 0.15)
    """Share of the sheen that also lies in patches anywhere."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("sheen", self.sheen, low=0.0, high=1.0)
        check_range("width_px", self.width_px, low=1.0, high=1024.0)
        check_range("inside", self.inside, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw sheen, width_px and inside (B,)."""
        u = scene.uniform(3)
        return {
            "sheen": scene.strength(u[:, 0], self.sheen, most=1.0),
            "width_px": scene.scale * scene.amount(u[:, 1], self.width_px),
            "inside": scene.amount(u[:, 2], self.inside),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Let it shine; the mask is where a channel changes by `MASK_LEVEL`."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        aged = mirror(wide, sheen_of(params, scene, x.shape[2], x.shape[3]))
        return aged.to(x.dtype), changed(wide, aged)


def sheen_of(params: Params, scene: Scene, height: int, width: int) -> OneChannel:
    """Return the sheen of black, from what `SilverMirroring.sample` drew."""
    noise = smooth_noise(
        scene, height, width, period_px=130 * scene.scale, plane=100, octaves=4, gain=0.6
    )
    rows, columns = scene.rows(height), scene.columns(width)
    down = torch.minimum(rows, scene.size[0] - 1 - rows)
    right = torch.minimum(columns, scene.size[1] - 1 - columns)
    inverse = per_pixel(-1 / params["width_px"])
    # Two edges together make more at the corners.
    far = (1 - (down * inverse).exp()) * (1 - (right * inverse).exp())
    edge = (1 - far).mul_((noise * 0.9).exp_().mul_(0.8))
    patches = noise.sub_(0.6).mul_(1.2).clamp_(0, 1).mul_(per_pixel(params["inside"]))
    return edge.add_(patches).clamp_(max=1).mul_(per_pixel(params["sheen"]))
