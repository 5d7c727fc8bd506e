"""Water stains: brown tide lines where water stopped, with a paler body, and rings of cups.

Water takes what browned in the paper along and leaves it where it dries: a line that is sharp on
the dry side, fades on the wet side, runs in lobes, and has others within it from later wettings.
What is left there absorbs light and, where thick, covers the picture.
Two fields of smooth noise for each batch are most of the cost.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .texture import MASK_LEVEL
from .types import Images, Mask, OneChannel, Params, PerImage

MOST_STAINS = 3
"""On one photograph."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), for what colours a picture of one channel."""

TEA = (0.20, 0.39, 0.74)
"""Absorbance of red, green and blue light in a pale, yellow stain of density 1."""
COFFEE = (0.55, 0.77, 1.00)
"""The same of a dark brown one."""
DEPOSIT = (0.25, 0.17, 0.10)
"""Colour of what the water left, where nothing shows through."""


def stain(
    x: Images,
    density: OneChannel,
    *,
    absorb: Float[Tensor, "B 3"],
    deposit: tuple[float, float, float] = DEPOSIT,
) -> Images:
    """Lay a transparent colour over pictures; density 0 returns x, endless density the deposit.

    Of the light, exp(-density absorb) passes (Beer and Lambert), and what is held back is replaced
    by that of the deposit. Pictures of one channel get the luma of it.

    Args:
        x: The pictures.
        density: At least 0.
        absorb: For red, green and blue, at density 1.
        deposit: Colour of the stain where thick.
    """
    held = [(density * per_pixel(-absorb[:, c])).expm1_().neg_() for c in range(3)]
    if x.shape[1] == 1:
        # Weights times (1 - T) are exactly 0 where nothing is held back.
        cover = held[0] * LUMA[0] + held[1] * LUMA[1] + held[2] * LUMA[2]
        glow = sum((w * d * h for w, d, h in zip(LUMA, deposit, held, strict=True)), 0 * cover)
        return (x - x * cover + glow).to(x.dtype)
    parts = [(deposit[c] - x[:, c : c + 1]) * held[c] for c in range(3)]
    return (x + torch.cat(parts, 1)).to(x.dtype)


def cover_with(x: Images, cover: OneChannel, *, colour: Float[Tensor, "B 3"]) -> Images:
    """Cover pictures with a colour; cover 0 returns x, 1 the colour.

    Pictures of one channel get the luma of it.
    """
    if x.shape[1] == 1:
        colour = sum((LUMA[c] * colour[:, c : c + 1] for c in range(3)), 0 * colour[:, :1])
    bright = x.to(torch.promote_types(x.dtype, cover.dtype))
    colour = colour[:, :, None, None].to(bright.dtype)
    return torch.lerp(bright, colour, cover.to(bright.dtype)).to(x.dtype)


def tide_line(
    depth_px: OneChannel,
    *,
    rim: PerImage,
    body: PerImage,
    rim_px: PerImage,
    edge_px: float = 1.0,
) -> OneChannel:
    """Return the density of a stain by how far inside of its outline a pixel lies.

    Args:
        depth_px: Distance from the outline, in pixels, negative outside.
        rim: Density of the line.
        body: Density deep inside.
        rim_px: Depth at which the line has faded to 1/e.
        edge_px: Softness of the outline.
    """
    profile = depth_px.clamp(min=0).mul_(per_pixel(-1.0 / rim_px)).exp_()
    profile.mul_(per_pixel((rim - body).clamp(min=0))).add_(per_pixel(body))
    return profile.mul_((depth_px * (1.0 / edge_px)).add_(0.5).clamp_(0, 1))


def each(draw: Callable[[PerImage], PerImage], u: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """Draw for each of several things on a photograph as for one."""
    return torch.stack([draw(one) for one in u.unbind(1)], 1)


def luma_of(colour: tuple[float, float, float]) -> float:
    """Return the Rec. 601 luma of a colour."""
    return sum(w * c for w, c in zip(LUMA, colour, strict=True))


def colours_between(
    u: PerImage, first: tuple[float, float, float], last: tuple[float, float, float]
) -> Float[Tensor, "B 3"]:
    """Mix two colours, for u from 0 to 1."""
    return torch.stack([a + u * (b - a) for a, b in zip(first, last, strict=True)], 1)


def changed(x: Images, aged: Images) -> Mask:
    """Find the pixels where a channel is `MASK_LEVEL` or more away from what it was.

    To be asked before the result is rounded to a narrow type.
    """
    by = (aged - x).abs_()
    most = by[:, :1]
    for channel in range(1, x.shape[1]):
        most = torch.maximum(most, by[:, channel : channel + 1])
    return most >= MASK_LEVEL


@dataclass(frozen=True, kw_only=True, slots=True)
class WaterStains(Defect):
    """Up to three tide lines or rings of brown deposit."""

    num: Range = (0.5, 2.5)
    """Stains on a photograph, on average; drawn for each in this range, at most 3."""
    radius_px: Range = (50.0, 420.0)
    """How far they spread, log-uniform; at 1024 px on the long side."""
    density: Range = (0.5, 1.7)
    """Density of the tide line; 1 lets half of the blue light pass or less."""
    rings: float = 0.2
    """Share of the stains that are rings, as a cup leaves them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("num", self.num, low=0.0, high=float(MOST_STAINS))
        check_range("radius_px", self.radius_px, low=4.0, high=4096.0)
        check_range("density", self.density, low=0.0, high=4.0)
        if not 0.0 <= self.rings <= 1.0:
            raise ValueError(f"rings must be a share from 0 to 1, got {self.rings!r}")

    def sample(self, scene: Scene) -> Params:
        """Draw absorb (B, 3), and for each of the three places (B, 3) where and how it is."""
        u = scene.uniform(2 + 13 * MOST_STAINS)
        share = scene.strength(u[:, 0], self.num, most=float(MOST_STAINS)) / MOST_STAINS
        v = u[:, 2:].unflatten(1, (MOST_STAINS, 13)).unbind(2)
        height, width = scene.size
        low, high = (math.log(radius) for radius in self.radius_px)
        radius = scene.scale * each(lambda one: scene.amount(one, (low, high)), v[1]).exp()
        ring = v[2] < self.rings
        density = each(lambda one: scene.strength(one, self.density, most=4.0), v[3])
        density = density * (v[0] < share[:, None])
        # Some place in the picture, more often near an edge, lies in or a little beside the stain.
        away, direction = 1.1 * radius * v[6].sqrt(), 2 * math.pi * v[7]
        reach = torch.minimum(radius, torch.full_like(radius, 170.0 * scene.scale))
        return {
            "absorb": colours_between(u[:, 1], TEA, COFFEE),
            "density": density,
            "body": density * torch.where(ring, 0.06, 0.08 + 0.27 * v[8]),
            "column": width * (0.5 - 0.5 * torch.cos(math.pi * v[4])) + away * direction.cos(),
            "row": height * (0.5 - 0.5 * torch.cos(math.pi * v[5])) + away * direction.sin(),
            "radius_px": radius,
            "stretch": torch.exp((2 * v[9] - 1) * torch.where(ring, 0.015, 0.4)),
            "angle": math.pi * v[10],
            "wobble_px": reach * torch.where(ring, 0.012, 0.08 + 0.14 * v[11]),
            "rim_px": scene.scale * torch.where(ring, 3.0 + 4.0 * v[12], 2.5 + 9.0 * v[12] ** 2),
            "inner_px": torch.where(ring, 6.0 * scene.scale + 0.02 * radius, radius * v[8] * 0.3),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Lay the stains over x; the mask is where they change a channel by `MASK_LEVEL`."""
        density = stain_density(params, scene, x.shape[2], x.shape[3])
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        aged = stain(wide, density, absorb=params["absorb"])
        return aged.to(x.dtype), changed(wide, aged)


def stain_density(params: Params, scene: Scene, height: int, width: int) -> OneChannel:
    """Return the density of all stains together, from what `WaterStains.sample` drew."""
    scale = scene.scale
    one = smooth_noise(scene, height, width, period_px=190 * scale, plane=100, octaves=6)
    two = smooth_noise(scene, height, width, period_px=150 * scale, plane=200, octaves=4)
    patchy = torch.sigmoid(1.3 + 2.2 * two)
    faint = 1 - 0.7 * patchy
    total = torch.zeros_like(one)
    for number in range(MOST_STAINS):
        its = {name: value[:, number] for name, value in params.items() if name != "absorb"}
        # Turns of the same two fields: each stain has an outline of its own, for no further draws.
        cos, sin = math.cos(number * math.pi / 3), math.sin(number * math.pi / 3)
        rough, other = (cos * one).add_(two, alpha=sin), (cos * two).sub_(one, alpha=sin)
        wobble = per_pixel(its["wobble_px"])
        # |noise| has sharp valleys: water runs ahead in round lobes, and lags in the nooks between.
        rough.add_(other.abs().sub_(0.8), alpha=0.9)
        depth = _depth(its, scene, height, width).add_(rough.mul_(wobble))
        line = {"rim_px": its["rim_px"], "edge_px": 1.2 * scale}
        outer = tide_line(depth, rim=its["density"], body=its["body"], **line)
        total.addcmul_(outer, patchy)
        depth.sub_(per_pixel(its["inner_px"])).add_(other.mul_(wobble))
        inner = tide_line(depth, rim=0.45 * its["density"], body=0.3 * its["body"], **line)
        total.addcmul_(inner, faint)
    return total


def _depth(its: dict[str, Tensor], scene: Scene, height: int, width: int) -> OneChannel:
    """Return how far inside of its ellipse each pixel lies."""
    dx = scene.columns(width) - per_pixel(its["column"])
    dy = scene.rows(height) - per_pixel(its["row"])
    cos, sin = per_pixel(its["angle"].cos()), per_pixel(its["angle"].sin())
    stretch = per_pixel(its["stretch"])
    along = (dx * (cos * stretch) + dy * (sin * stretch)).square_()
    across = (dy * (cos / stretch) - dx * (sin / stretch)).square_()
    return along.add_(across).sqrt_().neg_().add_(per_pixel(its["radius_px"]))
