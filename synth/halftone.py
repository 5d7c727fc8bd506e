"""Halftone: the screen of newspapers, dots of ink whose area is the tone.

A dot grows from the middle of its cell: ink lies where the rank of a place, the share of the cell
that is inked before it, is below the tone wanted. Ranks are spread evenly by construction, so the
mean of a flat patch is its tone exactly, with soft edges too. In colour there are four screens,
cyan, magenta, yellow and black, at angles at which they overlap as if by chance: then the light
that passes all is the product of what passes each, and the mean is kept as well.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .defect import Defect
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, Params, PerImage

ANGLES_DEG = (15.0, 75.0, 0.0, 45.0)
"""Of the screens of cyan, magenta, yellow and black."""

SOFT_PX = 0.5
"""Width of the edge of a dot."""


def halftone(
    x: Images,
    *,
    period_px: PerImage,
    tilt_deg: PerImage,
    phase: Tensor,
    ink: PerImage,
    paper: PerImage,
    blend: PerImage,
    rows: Tensor,
    columns: Tensor,
) -> Images:
    """Print pictures in dots.

    Args:
        x: Pictures; with one channel they are printed in black at 45 degrees.
        period_px: Of the screens, from one dot to the next; at least 2.
        tilt_deg: How far the paper was turned under the scanner.
        phase: Where the screens begin, in [0, 1), (B, 8): two numbers for each of the four.
        ink: Tone of full black, in [0, 1]; black 0 on paper 1 keeps the mean of every tone.
        paper: Tone of blank paper, in [0, 1].
        blend: Share of the print in the result; 0 returns x. Less than 1 are dots that a scanner,
            or ink that spread, has not left sharp.
        rows: Of the pixels in the whole picture, (H, 1).
        columns: Likewise, (1, W).
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))

    def screened(coverage: Tensor, number: int) -> Tensor:
        ranks = dot_ranks(
            rows,
            columns,
            period_px=period_px,
            angle_deg=tilt_deg + ANGLES_DEG[number],
            phase=phase[:, 2 * number : 2 * number + 2],
        )
        return ink_where(ranks, coverage, period_px=period_px)

    if x.shape[1] == 1:
        light = 1 - screened(1 - wide, 3)
    else:
        # A skeleton black, as printers use: strong only in the shadows, never more than is there.
        light_left = wide.amax(1, keepdim=True)
        black = (1 - light_left).square()
        colours = 1 - wide / (1 - black).clamp(min=1e-6)
        dots = [screened(colours[:, i : i + 1], i) for i in range(3)]
        light = (1 - torch.cat(dots, 1)) * (1 - screened(black, 3))
    printed = per_pixel(ink) + per_pixel(paper - ink) * light
    result = wide + (printed - wide) * per_pixel(blend)
    return result.clamp(0, 1).to(x.dtype)


def dot_ranks(
    rows: Tensor, columns: Tensor, *, period_px: PerImage, angle_deg: PerImage, phase: Tensor
) -> Tensor:
    """Return for each pixel which share of its cell gets ink before it, (B, 1, H, W) in [0, 1].

    The order is that of s = (cos a + cos b) / 2, of round dots that join into a checkerboard at one
    half. The share of a cell in which s is larger has the density 2 / pi^2 K(1 - s^2), with K the
    complete elliptic integral of parameter m = 1 - s^2; it is integrated here from its
    approximation by logarithms (Abramowitz and Stegun, 17.3.33, to 3e-5).
    """
    angle = torch.deg2rad(angle_deg)[:, None, None]
    along, across = angle.cos() / period_px[:, None, None], angle.sin() / period_px[:, None, None]
    begin = phase[:, :, None, None]
    a_row, a_column = _wave(rows * across + begin[:, 0]), _wave(columns * along)
    b_row, b_column = _wave(rows * along + begin[:, 1]), _wave(columns * across)
    # The cosine of a sum, and of a difference, from waves along rows and columns: none a pixel.
    s = 0.5 * (
        a_row[0] * a_column[0]
        - a_row[1] * a_column[1]
        + b_row[0] * b_column[0]
        + b_row[1] * b_column[1]
    )
    square = s * s
    smooth = _sum_powers(square, _SMOOTH)
    steep = _sum_powers(square, _STEEP)
    # Beyond 1e-9 the logarithm no longer matters: s times it is nothing.
    above = s * (smooth - steep * square.clamp(min=1e-18).log())
    return (0.5 - above).clamp(0, 1)[:, None]


def ink_where(ranks: Tensor, coverage: Tensor, *, period_px: PerImage) -> Tensor:
    """Return how much ink lies where, 0 to 1: on average the coverage, with soft edges.

    The edge is a ramp in the ranks. What a ramp of width d loses at its ends, for dots or gaps
    smaller than it, the level makes up for: ranks being spread evenly, the mean of
    clip((level - rank) / d + 1/2) is level if d/2 <= level <= 1 - d/2, and below that
    (level + d/2)^2 / (2 d), which is solved for the level.
    """
    coverage = coverage.clamp(0, 1)
    least = torch.minimum(coverage, 1 - coverage)
    # A dot of area A has an edge about 4 sqrt(A) long, and so many ranks lie along it.
    d = (least.sqrt() * (4.0 * SOFT_PX / per_pixel(period_px))).clamp(1e-3, 1.0)
    level = torch.where(least < d / 2, (2 * d * least).sqrt() - d / 2, least)
    level = torch.where(coverage > 0.5, 1 - level, level)
    return ((level - ranks) / d + 0.5).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Halftone(Defect):
    """The dots of a printed picture."""

    period_px: Range = (3.0, 8.0)
    """From one dot to the next, uniform in this range for each photograph."""
    blend: Range = (0.8, 1.0)
    """How much of the print there is to see: 1 are sharp dots, 0 is the photograph."""
    ink: Range = (0.03, 0.15)
    """Tone of the black ink."""
    paper: Range = (0.85, 0.98)
    """Tone of the blank paper."""
    tilt_deg: Range = (-4.0, 4.0)
    """By how much the screens are turned from their standard angles, all alike."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("period_px", self.period_px, low=2.0, high=64.0)
        check_range("blend", self.blend, low=0.0, high=1.0)
        check_range("ink", self.ink, low=0.0, high=1.0)
        check_range("paper", self.paper, low=0.0, high=1.0)
        check_range("tilt_deg", self.tilt_deg, low=-45.0, high=45.0)

    def sample(self, scene: Scene) -> Params:
        """Draw period_px, blend, ink, paper and tilt_deg (B,), and phase (B, 8)."""
        u = scene.uniform(13)
        return {
            "period_px": scene.amount(u[:, 0], self.period_px) * scene.scale,
            "blend": scene.strength(u[:, 1], self.blend),
            "ink": scene.amount(u[:, 2], self.ink),
            "paper": scene.amount(u[:, 3], self.paper),
            "tilt_deg": scene.amount(u[:, 4], self.tilt_deg),
            "phase": u[:, 5:],
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Print the pictures; what there was is still there in dots, so there is no mask."""
        H, W = x.shape[2:]
        return halftone(x, **params, rows=scene.rows(H), columns=scene.columns(W)), None


def _sum_powers(x: Tensor, factors: tuple[float, ...]) -> Tensor:
    """Return factors[0] + factors[1] x + factors[2] x^2 and so on."""
    total = torch.full_like(x, factors[-1])
    for factor in factors[-2::-1]:
        total = total.mul_(x).add_(factor)
    return total


def _wave(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of an angle in turns."""
    radians = (turns - turns.floor()) * (2 * math.pi)
    return radians.cos(), radians.sin()


# K(1 - s^2) = sum (a_i - b_i ln s^2) s^(2 i), integrated over s and times 2 / pi^2.
_A = (1.3862944, 0.1119723, 0.0725296)
_B = (0.5, 0.1213478, 0.0288729)
_SMOOTH = tuple(
    2 / math.pi**2 * (a / (2 * i + 1) + 2 * b / (2 * i + 1) ** 2)
    for i, (a, b) in enumerate(zip(_A, _B, strict=True))
)
_STEEP = tuple(2 / math.pi**2 * b / (2 * i + 1) for i, b in enumerate(_B))
