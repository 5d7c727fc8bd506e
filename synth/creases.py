"""Creases: where a print was folded, its emulsion broke in a ragged white line.

A fold is a line, hardly bent and slightly rough, with what follows from it: a core where the paper
shows, whose width swings with the paper's fibre and so leaves gaps; abrasion beside it; a light and
a shaded flank, as the paper does not lie flat any more; and a picture a little displaced. Folds
across the print run along its sides more often than not, others cut off a corner; the rest are
short dents of handling, bent like a nail. The profile is that of no measurement but of prints
looked at; lengths are in pixels of a picture with a long side of 1024 px.

The fibre is one noise for all folds; each costs some thirty passes over a single channel.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .bare import PAPER, WARMTH, bare_colour, cover
from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import NOMINAL_SIDE_PX, Scene, per_pixel
from .texture import MASK_LEVEL
from .types import Images, Mask, Params, PerImage

NUM_FOLDS = 4
"""At most, on one photograph."""
_DISPLACED_PX = 1.5
_DRAWS = 12


def crease(
    x: Images,
    *,
    scene: Scene,
    whiteness: Tensor,
    shade: Tensor,
    row: Tensor,
    column: Tensor,
    angle: Tensor,
    half_length: Tensor,
    bend: Tensor,
    core: Tensor,
    flank: Tensor,
    dirt: Tensor,
    light: PerImage,
    warmth: PerImage,
) -> tuple[Images, Mask]:
    """Fold the prints; a fold whose whiteness and shade are 0 is none.

    Args:
        x: The pictures.
        scene: Whose keys and place; not its severity.
        whiteness: Opacity of the broken emulsion, (B, folds) in [0, 1], like all that follow.
        shade: How much lighter the one and darker the other flank gets, of the value, -1 to 1; and
            how far the picture is displaced, `_DISPLACED_PX` at 0.1.
        row: Of the middle of the fold in the whole picture, in pixels.
        column: Of its middle.
        angle: Direction of the fold, in radians from the rows.
        half_length: From the middle to the end, in pixels.
        bend: Curvature, 1 / radius in pixels.
        core: Half the width of the broken line where it is wide, in pixels.
        flank: Width of a flank, in pixels.
        dirt: How dark the line is in its middle, 0 to 1.
        light: Lightness of the paper base, (B,).
        warmth: Yellowness of the paper base, (B,).

    Returns:
        The pictures, and where at least `MASK_LEVEL` of them is hidden by paper.
    """
    _B, C, H, W = x.shape
    scale = scene.scale
    rough = smooth_noise(scene, H, W, period_px=90 * scale, plane=0, octaves=5, gain=0.65)
    fibre = smooth_noise(scene, H, W, period_px=20 * scale, plane=100, octaves=4, gain=0.9)
    swing = 0.6 + 0.55 * fibre + 0.35 * rough
    rubbed = (0.16 + 0.10 * fibre).clamp(min=0)
    rough = (1.2 * scale) * rough
    rows, columns = scene.rows(H), scene.columns(W)
    bare = torch.zeros_like(rough)
    relief, down, right, dark = (torch.zeros_like(rough) for _ in range(4))
    for fold in range(whiteness.shape[1]):
        white, slope, length, wide = (
            per_pixel(value[:, fold]) for value in (whiteness, shade, half_length, core)
        )
        cos, sin = per_pixel(angle[:, fold].cos()), per_pixel(angle[:, fold].sin())
        dy, dx = rows - per_pixel(row[:, fold]), columns - per_pixel(column[:, fold])
        steep = 1 / per_pixel(flank[:, fold])
        # In place on what is ours alone: a third faster.
        along = cos * dx + sin * dy
        across = (cos * dy - sin * dx).add_(rough)
        across.addcmul_(0.5 * per_pixel(bend[:, fold]) * along, along)
        near = across.abs()
        # Both ends peter out over the last third.
        reach = along.abs_().mul_(-3 / length).add_(3).clamp_(0, 1)
        decay = (near * -steep).exp_()
        fade = decay * reach
        half = (wide * swing).mul_(reach)
        # Less than a pixel wide it is faint, and then nothing.
        line = (half - near).add_(0.5).clamp_(0, 1).mul_(half.mul_(2).clamp_(0, 1))
        grime = (white * per_pixel(dirt[:, fold])) * line
        dark = torch.maximum(dark, grime.mul_((1.2 - near).clamp_(0, 1)))
        bare = torch.maximum(bare, line.maximum(decay.mul_(fade).mul_(rubbed)).mul_(white))
        # Steepest at the fold, gone some flanks away: x exp(-|x|), whose top is 1 / e.
        flexed = across.mul_(fade).mul_(math.e * slope * steep)
        relief.add_(flexed)
        down.addcmul_(flexed, cos)
        right.addcmul_(flexed, -sin)
    amount = _DISPLACED_PX / 0.1 * scale
    moved = displace(x, amount * down, amount * right)
    lit = moved.mul_((relief + 1).clamp_(min=0))
    paper = bare_colour(C, light=light, warmth=warmth) * (1 + 0.06 * fibre)
    aged = cover(lit, paper, opacity=bare).mul_(1 - dark).clamp_(0, 1)
    return aged.to(x.dtype), bare >= MASK_LEVEL


def displace(x: Images, down: Tensor, right: Tensor) -> Images:
    """Take each pixel from (down, right) of its place, bilinearly; (B, 1, H, W) in pixels.

    Beyond the border the outermost pixels go on; at 0 the picture is as it was, bit for bit.

    Returns:
        Float32, or float64 if x is.
    """
    laid = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    _B, C, H, W = x.shape
    top, left = down.floor(), right.floor()
    y = torch.arange(H, device=x.device)[:, None] + top.long()
    z = torch.arange(W, device=x.device) + left.long()
    y0, y1 = y.clamp(0, H - 1) * W, (y + 1).clamp(0, H - 1) * W
    z0, z1 = z.clamp(0, W - 1), (z + 1).clamp(0, W - 1)
    flat = x.flatten(2)

    def take(index: Tensor) -> Tensor:
        return flat.gather(2, index.flatten(2).expand(-1, C, -1)).view(x.shape)

    down, right = (down - top).to(x.dtype), (right - left).to(x.dtype)
    upper = torch.lerp(take(y0 + z0), take(y0 + z1), right)
    lower = torch.lerp(take(y1 + z0), take(y1 + z1), right)
    return torch.lerp(upper, lower, down).contiguous(memory_format=laid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Creases(Defect):
    """Folds and dents of a print."""

    num_folds: Range = (0.5, 3.5)
    """How many there are on average, uniform in this range for each photograph; at most 4."""
    crossing: float = 0.6
    """Share of the folds that cross the whole print; the rest are short dents."""
    whiteness: Range = (0.5, 1.0)
    """Opacity of the broken emulsion."""
    core_px: Range = (0.8, 3.0)
    """Half the width of the broken line where it is wide; that of dents is 0.6 of it."""
    shade: Range = (0.03, 0.12)
    """How much lighter and darker the flanks are, of the value."""
    light: Range = PAPER
    """Lightness of the paper base."""
    warmth: Range = WARMTH
    """Yellowness of the paper base, see `bare_colour`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("num_folds", self.num_folds, low=0.0, high=float(NUM_FOLDS))
        if not 0.0 <= self.crossing <= 1.0:
            raise ValueError(f"crossing must be a share from 0 to 1, got {self.crossing!r}")
        check_range("whiteness", self.whiteness, low=0.0, high=1.0)
        check_range("core_px", self.core_px, low=0.0, high=50.0)
        check_range("shade", self.shade, low=0.0, high=0.5)
        check_range("light", self.light, low=0.0, high=1.0)
        check_range("warmth", self.warmth, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw the folds (B, 4), see `crease`, and light and warmth (B,)."""
        u = scene.uniform(3 + NUM_FOLDS * _DRAWS)
        expected = scene.strength(u[:, 0], self.num_folds, most=float(NUM_FOLDS))
        folds = [
            self._fold(scene, u[:, start : start + _DRAWS], expected / NUM_FOLDS)
            for start in range(3, 3 + NUM_FOLDS * _DRAWS, _DRAWS)
        ]
        return {name: torch.stack([fold[name] for fold in folds], 1) for name in folds[0]} | {
            "light": scene.amount(u[:, 1], self.light),
            "warmth": scene.amount(u[:, 2], self.warmth),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Fold the prints; the mask is where paper hides the picture."""
        return crease(x, scene=scene, **params)

    def reach_px(self, size: tuple[int, int]) -> int:
        """As far as a picture can be displaced."""
        longest = max(1.0, max(size) / NOMINAL_SIDE_PX)
        return math.ceil(NUM_FOLDS * _DISPLACED_PX / 0.1 * self.shade[1] * longest) + 2

    def _fold(self, scene: Scene, u: Tensor, probability: PerImage) -> Params:
        (exists, kind, where, place, turn, length, bent, strong, wide, flank, slant, dirty) = u.T
        height, width = scene.size
        longest = max(scene.size)
        crosses = kind < self.crossing
        # Two thirds of those that cross run along a side.
        straight, corner = kind < 0.67 * self.crossing, crosses & (kind >= 0.67 * self.crossing)
        quarter = torch.where(straight, (where * 2).floor(), (where * 4).floor()) * (math.pi / 2)
        tilt = torch.where(straight, (turn - 0.5) * 0.1, 0.45 + 0.67 * turn)
        angle = torch.where(crosses, quarter + tilt, where * 2 * math.pi)
        # From the centre to the tangent of the picture in the direction across the fold.
        cos, sin = angle.cos(), angle.sin()
        extent = 0.5 * (width * sin.abs() + height * cos.abs())
        offset = torch.where(corner, 0.55 + 0.4 * place, (place - 0.5) * 1.6) * extent
        aside = torch.where(crosses, 0.0, (turn - 0.5) * 0.9) * longest
        half = torch.where(crosses, 4.0, 0.04 + 0.2 * length**2) * longest
        happens = (exists < probability).float()
        return {
            "whiteness": happens * scene.strength(strong, self.whiteness),
            "shade": happens * scene.strength((slant * 2) % 1, self.shade, most=self.shade[1])
            * torch.where(slant < 0.5, -1.0, 1.0),
            "row": height / 2 - 0.5 + offset * cos + aside * sin,
            "column": width / 2 - 0.5 - offset * sin + aside * cos,
            "angle": angle,
            "half_length": half,
            "bend": torch.where(crosses, (bent - 0.5) * 0.04, (bent - 0.5) * 1.1 * longest / half)
            / longest,
            "core": scene.amount(wide, self.core_px)
            * (scene.scale * torch.where(crosses, 1.0, 0.6)),
            "flank": (5 + 15 * flank**2) * (scene.scale * torch.where(crosses, 1.0, 0.6)),
            "dirt": (dirty * 1.6 - 0.8).clamp(min=0),
        }  # fmt: skip
