"""Fingerprints: ridges of grease, light on a glossy print, or dark where they etched the silver.

A print is one wave, cos(phase), after the AM-FM model (Larkin and Fletcher, "A coherent framework
for fingerprint analysis: are fingerprints holograms?", Optics Express 2007, eqs. 1 and 6): a
continuous phase makes the flow of the ridges, and a spiral phase +-atan2 about a point ends or
forks a ridge there, a minutia. So a pixel needs no other: no filters to iterate, as growing ridges
from noise takes. The flow is by the distance from a core, which ridges go around, and from lines at
the deltas, along which they come to lie.
Costs an atan2 a pixel for two minutiae of each print.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .stains import changed, cover_with, each
from .types import Images, Mask, OneChannel, Params, PerImage

MOST_PRINTS = 2
"""On one photograph."""
NUM_MINUTIAE = 20
"""About a print, an even number; some lie outside of the touch."""

GREASE = (0.92, 0.93, 0.90)
"""Colour of the light that grease on a glossy print throws back."""
TARNISH = (0.24, 0.17, 0.12)
"""Colour of silver that was etched, or of a dirty finger."""


def flow(
    right: OneChannel,
    below: OneChannel,
    *,
    lean: PerImage,
    stem_px: PerImage,
    delta_px: PerImage,
    deltas: tuple[PerImage, PerImage],
) -> OneChannel:
    """Return the distance, in pixels, whose level lines are the ridges of a print without minutiae.

    Ridges go around a stem, a line from the core downwards: a short stem makes a whorl, an endless
    leaning one a loop. They lie level beside the deltas.

    Args:
        right: How far right of the core a pixel lies, in pixels.
        below: How far below it.
        lean: Slope of the stem to the right, per pixel downwards.
        stem_px: Length of the stem.
        delta_px: How far below the core the deltas lie, and how far beside it.
        deltas: 1 where there is one on the left, and on the right, else 0.
    """
    unit = (1 + lean.square()).rsqrt()
    down, aside = per_pixel(unit), per_pixel(lean * unit)
    # In place where it can be: fresh memory takes longer than the sums do.
    at = torch.minimum((below * down).addcmul_(right, aside).clamp_(min=0), per_pixel(stem_px))
    around = torch.addcmul(right, at, aside, value=-1).square_()
    around.add_(at.mul_(-down).add_(below).square_()).sqrt_()
    # The level lines begin at the deltas; that of a side without one is far away.
    starts = [per_pixel(delta_px * (1 + 9 * (1 - there))) for there in deltas]
    level = torch.minimum(starts[0] + right, starts[1] - right).clamp_(min=0).square_()
    level.add_(torch.sub(below, per_pixel(delta_px), out=at).square_()).sqrt_()
    # The ring through the deltas goes on as the level line.
    level.add_(per_pixel(delta_px * math.sqrt(2.0)))
    # A smooth minimum: from one to the other, ridges bend in a few periods.
    soft = per_pixel(delta_px * 0.35)
    gap = torch.sub(around, level, out=at).abs_().neg_().add_(soft).clamp_(min=0).square_()
    return torch.minimum(around, level).addcmul_(gap, 0.25 / soft, value=-1)


def ridges(distance_px: OneChannel, spiral: OneChannel, *, period_px: PerImage) -> OneChannel:
    """Return the wave of the ridges, -1 in the valleys to 1 on the crests.

    Args:
        distance_px: Of the flow.
        spiral: Sum of the angles about the minutiae, in radians, of either sign.
        period_px: From ridge to ridge.
    """
    return (distance_px * per_pixel(2 * math.pi / period_px)).add_(spiral).cos_()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprints(Defect):
    """Up to two fingerprints: loops, whorls and arches."""

    num: Range = (0.4, 1.6)
    """Prints on a photograph, on average; drawn for each in this range, at most 2."""
    size_px: Range = (220.0, 460.0)
    """Length of the touch; at 1024 px on the long side."""
    period_px: Range = (7.5, 10.5)
    """From ridge to ridge, likewise; half a millimetre."""
    light: Range = (0.06, 0.28)
    """How much of the picture the ridges of a light print cover."""
    dark: Range = (0.10, 0.40)
    """The same of a dark one."""
    darkened: float = 0.45
    """Share of the prints that are dark."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("num", self.num, low=0.0, high=float(MOST_PRINTS))
        check_range("size_px", self.size_px, low=16.0, high=2048.0)
        check_range("period_px", self.period_px, low=2.0, high=100.0)
        check_range("light", self.light, low=0.0, high=1.0)
        check_range("dark", self.dark, low=0.0, high=1.0)
        if not 0.0 <= self.darkened <= 1.0:
            raise ValueError(f"darkened must be a share from 0 to 1, got {self.darkened!r}")

    def sample(self, scene: Scene) -> Params:
        """Draw for each of the two places (B, 2) which print is there, and where; colour is
        (B, 2, 3), and minutiae (B, 2, 2 `NUM_MINUTIAE`) are to the right of and below the core.
        """
        numbers = 16 + 2 * NUM_MINUTIAE
        u = scene.uniform(1 + MOST_PRINTS * numbers)
        share = scene.strength(u[:, 0], self.num, most=float(MOST_PRINTS)) / MOST_PRINTS
        prints = u[:, 1:].unflatten(1, (MOST_PRINTS, numbers))
        v = prints[:, :, :16].unbind(2)
        height, width = scene.size
        size = scene.scale * each(lambda one: scene.amount(one, self.size_px), v[1])
        dark = v[2] < self.darkened
        light_cover = each(lambda one: scene.strength(one, self.light, most=1.0), v[3])
        dark_cover = each(lambda one: scene.strength(one, self.dark, most=1.0), v[3])
        cover = torch.where(dark, dark_cover, light_cover) * (v[0] < share[:, None])
        # Of a hundred fingers 65 have loops, 30 whorls, 5 arches.
        whorl, arch = v[4] < 0.30, v[4] > 0.95
        lean = torch.where(whorl, 0.3 * (v[5] - 0.5), (0.5 + 0.7 * v[5]) * (2 * (v[6] < 0.5) - 1))
        lean = torch.where(arch, 0.05 * (v[5] - 0.5), lean)
        # A loop has its delta on the side that its ridges do not leave by.
        both = whorl | arch
        colours = [torch.where(dark, t, g) for t, g in zip(TARNISH, GREASE, strict=True)]
        # A touch that begins near an edge, where photographs are held, or anywhere.
        place = 0.5 - 0.5 * torch.cos(math.pi * torch.stack((v[7], v[8])))
        return {
            "cover": cover,
            "colour": torch.stack(colours, -1),
            "column": width * place[0],
            "row": height * place[1],
            "angle": 2 * math.pi * v[9],
            "size_px": size,
            "slim": 0.62 + 0.2 * v[10],
            "period_px": scene.scale * each(lambda one: scene.amount(one, self.period_px), v[11]),
            "core_px": size * torch.where(arch, -0.3, 0.12 * (v[12] - 0.3)),
            "lean": lean,
            "stem_px": torch.where(whorl, 0.12 * v[13] * size, 100.0 * size),
            "delta_px": size * (0.26 + 0.1 * v[14]),
            "delta_left": (both | (lean > 0)).float(),
            "delta_right": (both | (lean < 0)).float(),
            "pressure": v[15],
            "minutiae_px": (prints[:, :, 16:] - 0.5) * size[:, :, None],
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Lay the prints over x; the mask is where they change a channel by `MASK_LEVEL`."""
        H, W = x.shape[2:]
        scale = scene.scale
        wavy = smooth_noise(scene, H, W, period_px=70 * scale, plane=100, octaves=2)
        grainy = smooth_noise(scene, H, W, period_px=6 * scale, plane=200, octaves=2, gain=1.0)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        aged = wide
        for number in range(MOST_PRINTS):
            its = {name: value[:, number] for name, value in params.items()}
            print_cover = touch(its, scene, wavy if number == 0 else -wavy, grainy)
            aged = cover_with(aged, print_cover, colour=its["colour"])
        return aged.to(x.dtype), changed(wide, aged)


def touch(its: Params, scene: Scene, wavy: OneChannel, grainy: OneChannel) -> OneChannel:
    """Return how much one print covers.

    Args:
        its: What `Fingerprints.sample` drew for it, (B,) or (B, n).
        scene: Where.
        wavy: Noise of some ridges' size, for uneven pressure and distance of the ridges.
        grainy: Noise of a ridge's size, which breaks them.
    """
    H, W = wavy.shape[2:]
    dx = scene.columns(W) - per_pixel(its["column"])
    dy = scene.rows(H) - per_pixel(its["row"])
    cos, sin = per_pixel(its["angle"].cos()), per_pixel(its["angle"].sin())
    right, below = dx * cos + dy * sin, dy * cos - dx * sin
    half = its["size_px"] / 2
    # The skin presses most in the middle; where it presses more, ridges are broader.
    press = (right * per_pixel(1 / (half * its["slim"]))).square_()
    press = press.add_((below * per_pixel(1 / half)).square_()).neg_().add_(1)
    press.add_(wavy, alpha=0.2)
    below = below + per_pixel(its["core_px"])
    distance = flow(
        right,
        below,
        lean=its["lean"],
        stem_px=its["stem_px"],
        delta_px=its["delta_px"],
        deltas=(its["delta_left"], its["delta_right"]),
    )
    distance.add_(wavy * per_pixel(0.35 * its["period_px"]))
    spiral = _spirals(right, below, its["minutiae_px"])
    wave = ridges(distance, spiral, period_px=its["period_px"])
    # Broad ridges have a higher wave everywhere; noise breaks them, and opens pores.
    wave.add_(grainy, alpha=0.45).add_(press.clamp(max=0.8))
    wave.add_(per_pixel(0.5 * its["pressure"] - 0.75)).mul_(1.2).add_(0.5).clamp_(0, 1)
    contact = press.mul_(1.7).clamp_(0, 1).mul_(per_pixel(its["cover"]))
    # Between the ridges, too, a touch leaves a film.
    return wave.mul_(0.9).add_(0.1).mul_(contact)


def _spirals(right: OneChannel, below: OneChannel, points_px: Float[Tensor, "B n"]) -> OneChannel:
    """Return the sum of the angles about points, every other one counted backwards."""
    total, x, y, x_back, y_back, sine = (torch.zeros_like(right) for _ in range(6))
    # Two points at a time: the difference of two angles is that of z1 conj(z2), modulo 2 pi. Into
    # the same memory each time, as fresh memory would take longer than the angle does.
    for number in range(0, 2 * NUM_MINUTIAE, 4):
        for place, index, out in (
            (right, 0, x), (below, 1, y), (right, 2, x_back), (below, 3, y_back)
        ):  # fmt: skip
            torch.sub(place, per_pixel(points_px[:, number + index]), out=out)
        torch.mul(y, x_back, out=sine).addcmul_(x, y_back, value=-1)
        total.add_(torch.atan2(sine, x.mul_(x_back).addcmul_(y, y_back), out=sine))
    return total
