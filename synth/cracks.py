"""Cracks: the net that a dried-out emulsion breaks into, in some parts of the print.

The borders of Worley's regions, warped; wide in the middle of a damaged part and gone outside of
it; their width swings with a fine noise, so they break off and go on. Deep in a damaged part the
pieces break once more, into smaller ones, from the first cracks inwards. Light shows at the bottom,
the paper's, and the lips curl up and throw a thin shadow. Pieces are longer one way than the other
where a print was rolled. Lengths are in pixels of a picture with a long side of 1024 px.

The costliest of the defects beside `peel`: two searches for the nearest points.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .bare import PAPER, WARMTH, bare_colour, cover
from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .texture import MASK_LEVEL
from .types import Images, Mask, Params, PerImage
from .worley import extent_of, find_regions, to_cells

MOST_STRETCH = 3.0
"""Of pieces, length by width."""
LEAST_CELL_PX = 10.0
"""Side of the smallest pieces that there can be."""
_FINER = 0.36
"""Side of a second piece, of the first."""


def crack(
    x: Images,
    *,
    scene: Scene,
    opacity: PerImage,
    area: PerImage,
    cell_px: PerImage,
    width_px: PerImage,
    angle: PerImage,
    stretch: PerImage,
    light: PerImage,
    warmth: PerImage,
) -> tuple[Images, Mask]:
    """Crack the emulsion; opacity 0 returns x.

    Args:
        x: The pictures.
        scene: Whose keys and place; not its severity.
        opacity: How much of the paper shows in a crack, 0 to 1; the lips darken by a third of it.
        area: Share of a print that is cracked, 0 to 1, on average.
        cell_px: Side of a piece between cracks, at least `LEAST_CELL_PX`.
        width_px: Of the widest cracks.
        angle: Direction in which pieces are longer, in radians.
        stretch: Length of a piece by its width, 1 to `MOST_STRETCH`.
        light: Lightness of the paper base.
        warmth: Yellowness of the paper base.

    Returns:
        The pictures, and where at least `MASK_LEVEL` of them is hidden.
    """
    _B, C, H, W = x.shape
    scale = scene.scale
    cell_px, width = cell_px * scale, per_pixel(width_px) * (0.5 * scale)
    warp = smooth_noise(scene, H, W, period_px=50 * scale, plane=0, planes=2, octaves=3)
    fine = smooth_noise(scene, H, W, period_px=28 * scale, plane=100, octaves=4, gain=0.75)
    # How deep within a damaged part: 0 on its border, 1 where a normal number is one larger.
    coarse = smooth_noise(scene, H, W, period_px=280 * scale, plane=200, octaves=3, gain=0.45)
    deep = coarse.sub_(per_pixel(upper_quantile(area))).add_(0.18 * fine)
    y, z = to_cells(scene, warp * 0.13, cell_px=cell_px, angle=angle, stretch=stretch)
    least = LEAST_CELL_PX * scale
    extent = extent_of(scene, cell_px=least, stretch=MOST_STRETCH)
    first = find_regions(scene, y, z, extent=extent, plane=300)
    away = first.off_border().mul_(per_pixel(cell_px))
    wide = (deep * 2.5).clamp_(0, 1).mul_(0.65 + 0.55 * fine).mul_(width)
    second = find_regions(
        scene, y.mul_(1 / _FINER), z.mul_(1 / _FINER), extent=extent / _FINER, plane=301
    )
    off = second.off_border().mul_(per_pixel(_FINER * cell_px))
    # From the first cracks inwards, a third of a piece deep, and further the deeper it lies.
    inwards = (deep - (2.2 / per_pixel(cell_px)) * away).clamp_(0, 1)
    thin = inwards.mul_(0.3 + 0.6 * fine).mul_(0.7 * width)
    # Of the two cracks the one whose edge is nearer; outside of both it is negative.
    inside = torch.maximum(wide - away, thin - off)
    open_ = (torch.maximum(wide, thin) * (2.0 / scale)).clamp_(0, 1)
    line = (inside + 0.5).clamp_(0, 1).mul_(open_)
    lip = ((inside * (1 / (1.3 * scale))) + 1.4).clamp_(0, 1).mul_(open_).sub_(line).clamp_(min=0)
    alpha = per_pixel(opacity)
    bare = alpha * line
    paper = bare_colour(C, light=light, warmth=warmth)
    shadow = lip.mul_(alpha * -0.28).add_(1)
    aged = cover(x * shadow, paper, opacity=bare).clamp_(0, 1)
    return aged.to(x.dtype), bare >= MASK_LEVEL


def upper_quantile(share: Tensor) -> Tensor:
    """Return what a standard normal number exceeds with a probability of 0 to 1, within +-4."""
    return (math.sqrt(2) * torch.erfinv(1 - 2 * share)).clamp(-4, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cracks(Defect):
    """A net of cracks in the emulsion."""

    opacity: Range = (0.5, 1.0)
    """How much of the paper shows in a crack."""
    area: Range = (0.05, 0.4)
    """Share of a print that is cracked."""
    cell_px: Range = (28.0, 90.0)
    """Side of a piece between cracks."""
    width_px: Range = (0.8, 2.4)
    """Of the widest cracks."""
    stretch: Range = (1.0, 2.2)
    """Length of a piece by its width."""
    light: Range = PAPER
    """Lightness of what shows: the paper base; 0 for a negative's glass, printed."""
    warmth: Range = WARMTH
    """Its yellowness, see `bare_colour`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("opacity", self.opacity, low=0.0, high=1.0)
        check_range("area", self.area, low=0.0, high=1.0)
        check_range("cell_px", self.cell_px, low=LEAST_CELL_PX, high=1000.0)
        check_range("width_px", self.width_px, low=0.0, high=20.0)
        check_range("stretch", self.stretch, low=1.0, high=MOST_STRETCH)
        check_range("light", self.light, low=0.0, high=1.0)
        check_range("warmth", self.warmth, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw what `crack` takes, each (B,)."""
        u = scene.uniform(8)
        return {
            "opacity": scene.strength(u[:, 0], self.opacity),
            "area": scene.strength(u[:, 1], self.area),
            "cell_px": scene.amount(u[:, 2] ** 2, self.cell_px),
            "width_px": scene.amount(u[:, 3], self.width_px),
            "angle": u[:, 4] * math.pi,
            "stretch": scene.amount(u[:, 5], self.stretch),
            "light": scene.amount(u[:, 6], self.light),
            "warmth": scene.amount(u[:, 7], self.warmth),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Crack the emulsion; the mask is where the paper shows."""
        return crack(x, scene=scene, **params)
