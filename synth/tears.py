"""Tears: corners that are torn off, and rips that run in from an edge.

Each corner of the print, and the edge that follows it clockwise, may lose a part once: a corner
along a slanting line, an edge along a wedge. The line wanders as torn paper does. The emulsion
breaks before the paper does, so a band of white fibres lies along the tear, wide here and absent
there; beyond lies what the print was scanned on, with a little shadow. Places are shares of the
print, so a print loses as much at any resolution; widths are in pixels of a picture with a long
side of 1024 px.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .bare import bare_colour, cover
from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .texture import MASK_LEVEL
from .types import Images, Mask, Params, PerImage

NUM_TEARS = 4
"""At most: one for each corner, or the edge that follows it clockwise."""
BACKDROP: Range = (0.02, 0.98)
"""Darkest and lightest of what prints are scanned on: black card, or the white lid."""
_NOWHERE_PX = -1e6
_DRAWS = 8


def tear(
    x: Images,
    *,
    scene: Scene,
    torn: Tensor,
    down: Tensor,
    aside: Tensor,
    inset: Tensor,
    lean: Tensor,
    rough: Tensor,
    band_px: PerImage,
    light: PerImage,
    warmth: PerImage,
    backdrop: PerImage,
) -> tuple[Images, Mask]:
    """Tear the prints; with none of the four places torn, they are returned as they are.

    Args:
        x: The pictures.
        scene: Whose keys and place; not its severity.
        torn: 0 (whole), 1 (the corner is off) or 2 (ripped from the edge), (B, 4) like all
            tensors up to `rough`. Places are counted from the upper left corner clockwise.
        down: How far it reaches inwards from the edge, in pixels.
        aside: How far it reaches along the edge: of a corner all, of a rip half the mouth.
        inset: Middle of a rip's mouth, in pixels from the corner.
        lean: How far a rip runs along the edge for each pixel inwards.
        rough: How far the tear wanders off its line, in pixels.
        band_px: Width of the band of fibres where it is wide, (B,).
        light: Lightness of the fibres, (B,).
        warmth: Their yellowness, (B,).
        backdrop: Lightness of what lies below the print, 0 to 1, (B,).

    Returns:
        The pictures, and where at least `MASK_LEVEL` of them is hidden or missing.
    """
    _B, C, H, W = x.shape
    scale = scene.scale
    wander = smooth_noise(scene, H, W, period_px=80 * scale, plane=0, octaves=5, gain=0.5)
    fibre = smooth_noise(scene, H, W, period_px=22 * scale, plane=100, octaves=4, gain=0.75)
    # For each row, and for each column, that a rip comes through.
    zigzag = (
        smooth_noise(
            replace(scene, left=0), H, 1, period_px=90 * scale, plane=200, octaves=3, gain=0.4
        ),
        smooth_noise(
            replace(scene, top=0), 1, W, period_px=90 * scale, plane=300, octaves=3, gain=0.4
        ),
    )
    height, width = scene.size
    rows, columns = scene.rows(H), scene.columns(W)
    below, beside = height - 1 - rows, width - 1 - columns
    lost: Tensor | None = None
    for place, (along, inwards) in enumerate(
        ((columns, rows), (rows, beside), (beside, below), (below, columns))
    ):
        kind = per_pixel(torn[:, place])
        rip = (kind == 2).float()
        deep, broad = per_pixel(down[:, place]), per_pixel(aside[:, place])
        # A line from (0, deep) on the one edge to (broad, 0) on the other; a rip has two, that
        # meet inside and lean a little.
        middle = per_pixel(inset[:, place]) + per_pixel(lean[:, place]) * inwards
        stray = per_pixel(rough[:, place])
        # Both sides of a rip wander alike, or it would close here and there.
        ahead = along - rip * (middle + stray * zigzag[place % 2])
        ahead = torch.lerp(ahead, ahead.abs(), rip)
        steep = torch.rsqrt(deep * deep + broad * broad)
        inside = deep * broad * steep - ahead * (deep * steep) - inwards * (broad * steep)
        # Past its tip a rip is over, however narrow it was.
        inside = torch.minimum(inside, (deep - inwards) + (1 - rip) * -_NOWHERE_PX)
        # Twice as steep for a rip: its fibres stand half as wide.
        inside.addcmul_((1 - rip) * stray + (0.3 * scale) * rip, wander).mul_(1 + rip).add_(
            (kind == 0) * _NOWHERE_PX
        )
        lost = inside if lost is None else torch.maximum(lost, inside)
    assert lost is not None
    gone = (lost + 0.5).clamp(0, 1)
    width_px = per_pixel(band_px) * (0.45 + 0.4 * fibre + 0.2 * wander).clamp_(min=0.15)
    bared = (lost + width_px).add_(0.5).clamp_(0, 1)
    # The paper thins towards the tear, and its fibres stand up.
    slant = (lost / per_pixel(band_px) + 1).clamp_(0, 1)
    paper = bare_colour(C, light=light, warmth=warmth) * ((1 + 0.06 * fibre).sub_(slant.mul_(0.10)))
    aged = cover(x, paper, opacity=bared)
    shadow = 1 - 0.4 * (lost.clamp(min=0) * (-1 / (5 * scale))).exp_()
    aged = cover(aged, per_pixel(backdrop) * shadow, opacity=gone).clamp_(0, 1)
    return aged.to(x.dtype), torch.maximum(bared, gone) >= MASK_LEVEL


def backdrop_of(u: PerImage, value: Range) -> PerImage:
    """Map u in [0, 1) onto a range of lightness, mostly to near its ends."""
    for _ in range(2):
        u = u * u * (3 - 2 * u)
    return value[0] + u * (value[1] - value[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class TornCorners(Defect):
    """Torn-off corners and rips from the edges."""

    num_tears: Range = (0.4, 2.0)
    """How many there are on average, uniform in this range for each photograph; at most 4."""
    rips: float = 0.35
    """Share of the tears that are rips from an edge; the rest are corners."""
    size: Range = (0.03, 0.16)
    """How far a torn corner reaches along each of its edges, as a share of that edge."""
    band_px: Range = (3.0, 12.0)
    """Width of the band of white fibres where it is wide."""
    light: Range = (0.86, 0.98)
    """Lightness of the fibres: fresh paper, cleaner than the print's base."""
    warmth: Range = (0.1, 0.6)
    """Their yellowness, see `bare_colour`."""
    backdrop: Range = BACKDROP
    """Lightness of what lies below the print, mostly near the ends of this range."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("num_tears", self.num_tears, low=0.0, high=float(NUM_TEARS))
        if not 0.0 <= self.rips <= 1.0:
            raise ValueError(f"rips must be a share from 0 to 1, got {self.rips!r}")
        check_range("size", self.size, low=0.0, high=0.5)
        check_range("band_px", self.band_px, low=0.5, high=100.0)
        check_range("light", self.light, low=0.0, high=1.0)
        check_range("warmth", self.warmth, low=0.0, high=1.0)
        check_range("backdrop", self.backdrop, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw what `tear` takes: the tears (B, 4), and for each photograph (B,)."""
        u = scene.uniform(5 + NUM_TEARS * _DRAWS)
        expected = scene.strength(u[:, 0], self.num_tears, most=float(NUM_TEARS))
        tears = [
            self._tear(scene, u[:, 5 + place * _DRAWS :][:, :_DRAWS], place, expected / NUM_TEARS)
            for place in range(NUM_TEARS)
        ]
        return {name: torch.stack([one[name] for one in tears], 1) for name in tears[0]} | {
            "band_px": scene.amount(u[:, 1], self.band_px) * scene.scale,
            "light": scene.amount(u[:, 2], self.light),
            "warmth": scene.amount(u[:, 3], self.warmth),
            "backdrop": backdrop_of(u[:, 4], self.backdrop),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Tear the prints; the mask is where the picture is missing."""
        return tear(x, scene=scene, **params)

    def _tear(self, scene: Scene, u: Tensor, place: int, probability: PerImage) -> Params:
        exists, kind, deep, broad, where, rough, flat, slant = u.T
        height, width = scene.size
        # Along the edge, and along the one that leads to the corner.
        edge, side = (width, height) if place % 2 == 0 else (height, width)
        rip = kind < self.rips
        # A rip goes deeper than a corner, and has a mouth of a few pixels.
        down = scene.amount(deep, self.size) * torch.where(rip, 1.3, 1.0) * side
        corner = scene.amount(broad, self.size) * edge
        mouth = down * (0.01 + 0.2 * flat * flat)
        aside = torch.where(rip, mouth, corner).clamp(min=0.5)
        shorter = torch.minimum(aside, down)
        return {
            "torn": (exists < probability) * torch.where(rip, 2, 1),
            "down": down.clamp(min=0.5),
            "aside": aside,
            "inset": (0.15 + 0.7 * where) * edge,
            "lean": 2 * slant - 1,
            "rough": (0.04 + 0.07 * rough) * torch.where(rip, 0.5 * down, shorter)
            + (1 + rough) * scene.scale,
        }
