"""Colour that lies over a whole picture: paper and varnish gone yellow, and casts of the dyes.

Pictures of one channel get the luma of the colour, so they darken by as much.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .fading import patchiness
from .grayscale import grayscale
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, OneChannel, Params, PerImage

YELLOW = (1.0, 0.93, 0.74)
"""What is left of white on old baryta paper: red, green, blue."""

BROWN = (0.93, 0.82, 0.63)
"""On acid paper and varnish."""


def yellow(
    x: Images, *, amount: PerImage, brownness: PerImage, where: OneChannel | float = 1.0
) -> Images:
    """Multiply by the colour of old paper; amount 0 returns x.

    Args:
        x: One channel or three.
        amount: 1 is white paper turned to `YELLOW` or `BROWN`.
        brownness: 0 is the one, 1 the other.
        where: How much of it there is at each pixel.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # Optical density adds up, so the colour of twice the amount is its square.
    density = torch.stack(
        [
            -math.log(y) - brownness * (math.log(b) - math.log(y))
            for y, b in zip(YELLOW, BROWN, strict=True)
        ],
        1,
    )[:, :, None, None]
    left = (-(per_pixel(amount) * where) * density).exp()
    if x.shape[1] == 1:
        left = grayscale(left)
    return torch.where(per_pixel(amount) > 0, (wide * left).to(x.dtype), x)


def cast(x: Images, *, gain: Float[Tensor, "B 3"], lift: Float[Tensor, "B 3"]) -> Images:
    """Return lift + (gain - lift) x for each channel; gain 1 and lift 0 return x.

    Args:
        x: One channel or three.
        gain: What white becomes, 0 to 1.
        lift: What black becomes, 0 to `gain`.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    high, low = gain[:, :, None, None], lift[:, :, None, None]
    if x.shape[1] == 1:
        high, low = grayscale(high), grayscale(low)
    happens = per_pixel((1 - gain + lift).sum(1)) > 0
    return torch.where(happens, (low + (high - low) * wide).clamp(0, 1).to(x.dtype), x)


@dataclass(frozen=True, kw_only=True, slots=True)
class Yellowing(Defect):
    """Paper, gelatine or varnish gone yellow, more so at the edges and in patches."""

    amount: Range = (0.2, 1.2)
    """How far it went; 1 is white turned to (1, 0.93, 0.74) or browner."""
    brownness: Range = (0.0, 0.8)
    """From yellow, 0, to brown, 1."""
    unevenness: Range = (0.05, 0.3)
    """Standard deviation from place to place, relative to the mean."""
    edges: Range = (0.0, 1.0)
    """How much more of it the edges have; 1 is twice as much."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("amount", self.amount, low=0.0, high=3.0)
        check_range("brownness", self.brownness, low=0.0, high=1.0)
        check_range("unevenness", self.unevenness, low=0.0, high=1.0)
        check_range("edges", self.edges, low=0.0, high=2.0)

    def sample(self, scene: Scene) -> Params:
        """Draw amount, brownness, unevenness and edges (B,)."""
        u = scene.uniform(4)
        return {
            "amount": scene.strength(u[:, 0], self.amount, most=3.0),
            "brownness": scene.amount(u[:, 1], self.brownness),
            "unevenness": scene.amount(u[:, 2], self.unevenness),
            "edges": scene.amount(u[:, 3], self.edges),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Yellow; it is seen through, so there is no mask."""
        where = patchiness(
            scene,
            x.shape[2],
            x.shape[3],
            unevenness=params["unevenness"],
            edges=params["edges"],
            plane=0,
        )
        return yellow(x, amount=params["amount"], brownness=params["brownness"], where=where), None


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorCast(Defect):
    """A cast of one hue over the lights and of another over the shadows (crossed curves)."""

    strength: Range = (0.03, 0.2)
    """What the weakest channel of white loses, in units of full scale."""
    hue_deg: Range = (0.0, 360.0)
    """Of the lights: 0 is red, 120 green, 240 blue."""
    crossing: Range = (0.0, 0.5)
    """What the shadows gain, in the complementary hue, relative to what the lights lose."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("strength", self.strength, low=0.0, high=0.6)
        check_range("hue_deg", self.hue_deg, low=0.0, high=360.0)
        check_range("crossing", self.crossing, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw gain (B, 3) and lift (B, 3), see `cast`."""
        u = scene.uniform(3)
        strength = scene.strength(u[:, 0], self.strength, most=0.6)[:, None]
        hue = scene.amount(u[:, 1], self.hue_deg)[:, None] * (math.pi / 180)
        channel = torch.arange(3, device=u.device) * (2 * math.pi / 3)
        # 0 in the channel of the hue itself, 1 in that opposite to it.
        short = (1 - (hue - channel).cos()) / 2
        short = short / short.amax(1, keepdim=True)
        gain = 1 - strength * short
        lift = strength * scene.amount(u[:, 2], self.crossing)[:, None] * short
        return {"gain": gain, "lift": torch.minimum(lift, gain)}

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Add the cast; it hides nothing, so there is no mask."""
        return cast(x, gain=params["gain"], lift=params["lift"]), None
