"""Peeling: emulsion that comes off in flakes and bares the paper.

Where a smooth noise, larger along the edges of the print, exceeds a level, the emulsion is gone;
each flake has a level of its own, so the loss follows the cracks between flakes, leaves islands and
takes single ones further out. A layer has a thickness: its lip is lit on one side and throws a
shadow on the paper on the other. Lengths are in pixels of a picture with a long side of 1024 px.
Lightness 0.85 is bare paper; 0 is bare glass of a negative, which prints black.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .bare import PAPER, WARMTH, bare_colour, cover
from .cracks import upper_quantile
from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import NOMINAL_SIDE_PX, Scene, per_pixel
from .texture import MASK_LEVEL
from .types import Images, Mask, Params, PerImage
from .worley import extent_of, find_regions, to_cells

LEAST_FLAKE_PX = 6.0
"""Side of the smallest flakes that there can be."""
MOST_AREA = 0.5
"""Of a print that can be bare."""
_LIP_PX = 1.3


def peel(
    x: Images,
    *,
    scene: Scene,
    area: PerImage,
    edges: PerImage,
    flake_px: PerImage,
    relief: PerImage,
    angle: PerImage,
    light: PerImage,
    warmth: PerImage,
) -> tuple[Images, Mask]:
    """Let the emulsion flake off; area 0 returns x.

    Args:
        x: The pictures.
        scene: Whose keys and place; not its severity.
        area: Share of a print that is bare, 0 to `MOST_AREA`, on average over prints.
        edges: How much more it peels along the edges, 0 (alike) to 2 (hardly elsewhere).
        flake_px: Side of a flake, at least `LEAST_FLAKE_PX`.
        relief: Strength of the lip's light and shadow, 0 to 1.
        angle: Where the light comes from, in radians.
        light: Lightness of what lies below.
        warmth: Its yellowness.

    Returns:
        The pictures, and where at least `MASK_LEVEL` of them is hidden.
    """
    _B, C, H, W = x.shape
    scale = scene.scale
    flake_px = flake_px * scale
    warp = smooth_noise(scene, H, W, period_px=24 * scale, plane=0, planes=2, octaves=3, gain=0.7)
    fibre = smooth_noise(scene, H, W, period_px=5 * scale, plane=100)
    loose = smooth_noise(scene, H, W, period_px=220 * scale, plane=200, octaves=5, gain=0.6)
    y, z = to_cells(scene, warp * 0.22, cell_px=flake_px, angle=angle, stretch=angle * 0 + 1)
    extent = extent_of(scene, cell_px=LEAST_FLAKE_PX * scale)
    flakes = find_regions(scene, y, z, extent=extent, plane=300, valued=True)
    assert flakes.value is not None
    off = flakes.off_border().mul_(per_pixel(flake_px))
    # On the border of two flakes the mean of all: no steps there, which would alias.
    own = (flakes.value - 0.5).mul_((off * (0.7 / scale)).clamp(0, 1))
    near_edge = (edge_distance_px(scene, H, W) * (-12.0 / min(scene.size))).exp() - 0.3
    # Of their sum, measured; what is asked for is what goes, within a fifth or so.
    spread = (0.93 + 0.06 * edges * edges).sqrt()
    level = per_pixel(spread * upper_quantile(area))
    loose = loose.addcmul_(per_pixel(edges), near_edge).add_(own, alpha=1.1).sub_(level)
    gone = (loose * 20).add_(0.5).clamp_(0, 1)
    # None at all if there is no loss: a few places always exceed four standard deviations.
    there = per_pixel((area > 0).float())
    bare = gone * there
    strength = per_pixel(relief) * there
    down, right = slope(bare, max(1, round(_LIP_PX * scale)))
    lip = strength * (per_pixel(angle.sin()) * down + per_pixel(angle.cos()) * right)
    # Flakes about to go have come apart already.
    apart = ((loose + 0.5) * 2).clamp_(0, 1).mul_((1.1 - off * (1 / scale)).clamp_(0, 1))
    paper = bare_colour(C, light=light, warmth=warmth) * (1 + 0.025 * fibre)
    layer = x * (1 - apart.mul_(0.45 * there))
    layer = layer + lip.clamp(min=0).mul_(0.35)
    paper = paper * (1 + lip.clamp(max=0).mul_(0.55))
    return cover(layer, paper, opacity=bare).clamp_(0, 1).to(x.dtype), bare >= MASK_LEVEL


def edge_distance_px(scene: Scene, height: int, width: int) -> Tensor:
    """Return how far the pixels of a window are from the nearest edge of the picture, (H, W)."""
    rows, columns = scene.rows(height), scene.columns(width)
    from_rows = rows.minimum(scene.size[0] - 1 - rows)
    return from_rows.minimum(columns.minimum(scene.size[1] - 1 - columns))


def slope(layer: Tensor, reach_px: int) -> tuple[Tensor, Tensor]:
    """Return by how much a layer (B, 1, H, W) grows downwards and to the right, from `reach_px`
    before each pixel to as far behind it; beyond the border it goes on as there.
    """
    wide = F.pad(layer, (reach_px,) * 4, mode="replicate")
    H, W = layer.shape[2:]
    middle_y, middle_x = slice(reach_px, reach_px + H), slice(reach_px, reach_px + W)
    down = wide[:, :, 2 * reach_px :, middle_x] - wide[:, :, :H, middle_x]
    right = wide[:, :, middle_y, 2 * reach_px :] - wide[:, :, middle_y, :W]
    return down, right


@dataclass(frozen=True, kw_only=True, slots=True)
class Peeling(Defect):
    """Emulsion that has flaked off."""

    area: Range = (0.005, 0.10)
    """Share of a print that is bare; whatever the severity, at most 0.25."""
    edges: Range = (0.3, 1.6)
    """How much more it peels along the edges, 0 to 2."""
    flake_px: Range = (10.0, 40.0)
    """Side of a flake."""
    relief: Range = (0.3, 1.0)
    """Strength of the light and shadow along the lip."""
    light: Range = PAPER
    """Lightness of what lies below: the paper base; 0 for a negative's glass, printed."""
    warmth: Range = WARMTH
    """Its yellowness, see `bare_colour`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("area", self.area, low=0.0, high=MOST_AREA)
        check_range("edges", self.edges, low=0.0, high=2.0)
        check_range("flake_px", self.flake_px, low=LEAST_FLAKE_PX, high=1000.0)
        check_range("relief", self.relief, low=0.0, high=1.0)
        check_range("light", self.light, low=0.0, high=1.0)
        check_range("warmth", self.warmth, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw what `peel` takes, each (B,)."""
        u = scene.uniform(7)
        most = max(0.25, self.area[1])
        return {
            # The square: most prints lose little.
            "area": scene.strength(u[:, 0] ** 2, self.area, most=most),
            "edges": scene.amount(u[:, 1], self.edges),
            "flake_px": scene.amount(u[:, 2] ** 2, self.flake_px),
            "relief": scene.amount(u[:, 3], self.relief),
            "angle": u[:, 4] * (2 * math.pi),
            "light": scene.amount(u[:, 5], self.light),
            "warmth": scene.amount(u[:, 6], self.warmth),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Let the emulsion flake off; the mask is where it is gone."""
        return peel(x, scene=scene, **params)

    def reach_px(self, size: tuple[int, int]) -> int:
        """As far as the lip of a flake reaches."""
        return math.ceil(_LIP_PX * max(1.0, max(size) / NOMINAL_SIDE_PX)) + 1
