"""Worn edges: what handling does to the rim of a print, and to its corners most of all.

The emulsion is rubbed off in a ragged strip along the edges, wider at the corners; a wider band
beside it has yellowed and thinned; and the corners themselves are rounded, down to what the print
was scanned on. The strip's width and the corners' radius are shares of the long side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .bare import PAPER, WARMTH, bare_colour, cover
from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .tears import BACKDROP, backdrop_of
from .texture import MASK_LEVEL
from .types import Images, Mask, Params, PerImage


def wear_edges(
    x: Images,
    *,
    scene: Scene,
    width_px: PerImage,
    radius_px: PerImage,
    rim: PerImage,
    light: PerImage,
    warmth: PerImage,
    backdrop: PerImage,
) -> tuple[Images, Mask]:
    """Wear the edges of the prints; width, radius and rim of 0 return x.

    Args:
        x: The pictures.
        scene: Whose keys and place; not its severity.
        width_px: Of the strip without emulsion, on average; it swings from none to twice that.
        radius_px: Of the corners; the worn strip has corners four times as round.
        rim: How much the band beside the strip has yellowed, 0 to 1.
        light: Lightness of the paper base.
        warmth: Yellowness of the paper base.
        backdrop: Lightness of what lies below the print, 0 to 1.

    Returns:
        The pictures, and where at least `MASK_LEVEL` of them is hidden or missing.
    """
    _B, C, H, W = x.shape
    scale = scene.scale
    chipped = smooth_noise(scene, H, W, period_px=180 * scale, plane=0, octaves=7, gain=0.72)
    fibre = smooth_noise(scene, H, W, period_px=4 * scale, plane=100)
    width, radius = per_pixel(width_px), per_pixel(radius_px)
    inside = depth_px(scene, H, W, radius)
    gone = (0.5 - inside - 0.4 * fibre).clamp_(0, 1).mul_((radius > 0).float())
    depth = depth_px(scene, H, W, 4 * radius + 3 * width)
    worn = (width * (1 + 1.1 * chipped)).sub_(depth).mul_(0.7 / scale).clamp_(0, 1)
    worn = worn.mul_((width > 0) * 0.95)
    paper = bare_colour(C, light=light, warmth=warmth) * (1 + 0.02 * fibre)
    faded = (depth.clamp(min=0) * (-0.25 / (width + scale))).exp_()
    faded = faded.mul_(0.7 + 0.3 * chipped).clamp_(0, 1).mul_(0.35 * per_pixel(rim))
    yellow = bare_colour(C, light=light, warmth=warmth.clamp(min=1.0))
    aged = cover(cover(x, yellow, opacity=faded), paper, opacity=worn)
    aged = cover(aged, per_pixel(backdrop), opacity=gone).clamp_(0, 1)
    return aged.to(x.dtype), torch.maximum(worn, gone) >= MASK_LEVEL


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeWear(Defect):
    """Worn edges and rounded corners."""

    width: Range = (0.001, 0.010)
    """Width of the strip without emulsion on average, of the long side."""
    radius: Range = (0.0, 0.02)
    """Radius of the rounded corners, of the long side."""
    rim: Range = (0.2, 0.8)
    """How much the band beside the strip has yellowed."""
    light: Range = PAPER
    """Lightness of the paper base."""
    warmth: Range = WARMTH
    """Yellowness of the paper base, see `bare_colour`."""
    backdrop: Range = BACKDROP
    """Lightness of what lies below the print, mostly near the ends of this range."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("width", self.width, low=0.0, high=0.03)
        check_range("radius", self.radius, low=0.0, high=0.25)
        check_range("rim", self.rim, low=0.0, high=1.0)
        check_range("light", self.light, low=0.0, high=1.0)
        check_range("warmth", self.warmth, low=0.0, high=1.0)
        check_range("backdrop", self.backdrop, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw what `wear_edges` takes, each (B,)."""
        u = scene.uniform(6)
        longest = max(scene.size)
        return {
            "width_px": scene.strength(u[:, 0] ** 2, self.width, most=0.012) * longest,
            "radius_px": scene.strength(u[:, 1] ** 2, self.radius, most=0.06) * longest,
            "rim": scene.strength(u[:, 2], self.rim),
            "light": scene.amount(u[:, 3], self.light),
            "warmth": scene.amount(u[:, 4], self.warmth),
            "backdrop": backdrop_of(u[:, 5], self.backdrop),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Wear the edges; the mask is where the emulsion, or the print, is gone."""
        return wear_edges(x, scene=scene, **params)


def depth_px(scene: Scene, height: int, width: int, radius: Tensor) -> Tensor:
    """Return how deep pixels lie within a picture whose corners have a radius, (B, 1, H, W)."""
    half_y, half_x = scene.size[0] / 2, scene.size[1] / 2
    radius = radius.clamp(max=min(half_y, half_x))
    y = (scene.rows(height) + 0.5 - half_y).abs() - half_y + radius
    x = (scene.columns(width) + 0.5 - half_x).abs() - half_x + radius
    beyond = torch.hypot(y.clamp(min=0), x.clamp(min=0))
    return radius - beyond - torch.maximum(y, x).clamp(max=0)
