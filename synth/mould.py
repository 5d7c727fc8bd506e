"""Mould: colonies in clusters, lobed and grainy, with threads about them and specks of spores.

On prints it is gray-green to black; where it ate the gelatin it bleaches to a dull gray. A colony
is laid as its distance from the centre; smooth noise then gives the lobes and the grain of all at
once, and the zeros of other noise are their threads, which branch, meet and thin out.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .foxing import crowding
from .lattice import smooth_noise
from .marks import Marks, around, find_marks, lay
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .stains import changed, colours_between, cover_with
from .types import Images, Mask, OneChannel, Params, PerImage

GREEN = (0.36, 0.38, 0.29)
"""Colour of young mould."""
BLACK = (0.07, 0.07, 0.06)
"""Colour of old mould."""
BLEACHED = (0.76, 0.74, 0.68)
"""Colour of a print whose gelatin was eaten."""
FAR = 2.6
"""Where the threads end, in radii of the colony."""

SIZES = (
    # Cell, places in it, share of the colonies, smallest and largest radius relative to the median.
    (64.0, 2, 0.7, 0.45, 1.0),
    (128.0, 1, 0.3, 1.0, 2.2),
)
"""Colonies of two sizes, each with cells and patches of its own."""


def colony(
    near: OneChannel, noise: OneChannel, other: OneChannel, *, hairy: PerImage
) -> OneChannel:
    """Return how densely mould grows, 0 to 1; where `near` is 0, none does.

    Args:
        near: 1 - (distance from the centre / `FAR` radii), 0 where no colony is near.
        noise: Of mean 0 and standard deviation 1, for lobes and grain.
        other: The same, for the threads.
        hairy: How strong the threads are, 0 to 1.
    """
    edge = 1 - 1 / FAR
    body = (near + noise * (0.25 * near) - edge).mul_(5.0).clamp_(0, 1)
    body.mul_((noise * 0.25).add_(0.75).clamp_(0, 1))
    # Threads follow where the noise is 0, the thinner the farther out.
    threads = (near * 0.4).sub_(other.abs()).mul_(8.0).clamp_(0, 1)
    threads.mul_((near * (1.3 / edge)).clamp_(max=1)).mul_(per_pixel(0.8 * hairy))
    return torch.maximum(body, threads)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mould(Defect):
    """Clusters of colonies, dark or bleaching."""

    per_mpx: Range = (15.0, 150.0)
    """Colonies in an area of 1024 x 1024 px on a picture of that size, log-uniform."""
    specks_per_mpx: Range = (100.0, 1500.0)
    """Specks about them, likewise."""
    radius_px: Range = (3.0, 7.0)
    """Median radius of the colonies, without their threads."""
    opacity: Range = (0.3, 0.85)
    """How much of the picture a colony covers where it is dense."""
    bleaching: float = 0.3
    """Share of the photographs on which mould bleaches instead of being dark."""
    unevenness: Range = (1.2, 2.0)
    """How clustered the colonies are, see `foxing.crowding`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("per_mpx", self.per_mpx, low=1.0, high=2000.0)
        check_range("specks_per_mpx", self.specks_per_mpx, low=1.0, high=8000.0)
        check_range("radius_px", self.radius_px, low=1.0, high=12.0)
        check_range("opacity", self.opacity, low=0.0, high=1.0)
        check_range("unevenness", self.unevenness, low=0.0, high=3.0)
        if not 0.0 <= self.bleaching <= 1.0:
            raise ValueError(f"bleaching must be a share from 0 to 1, got {self.bleaching!r}")

    def sample(self, scene: Scene) -> Params:
        """Draw colour (B, 3), and numbers for each photograph (B,)."""
        u = scene.uniform(8)
        dark = colours_between(u[:, 0], GREEN, BLACK)
        pale = colours_between(0 * u[:, 0], BLEACHED, BLEACHED)
        bleaches = u[:, 1] < self.bleaching
        opacity = scene.strength(u[:, 5], self.opacity, most=1.0)
        return {
            "colour": torch.where(bleaches[:, None], pale, dark),
            "per_mpx": _log_uniform(u[:, 2], self.per_mpx) * scene.severity,
            "specks_per_mpx": _log_uniform(u[:, 3], self.specks_per_mpx) * scene.severity,
            "radius_px": scene.scale * scene.amount(u[:, 4], self.radius_px),
            # What bleaches leaves more to be seen than what lies on top.
            "opacity": opacity * torch.where(bleaches, 0.65, 1.0),
            "unevenness": scene.amount(u[:, 6], self.unevenness),
            "hairy": u[:, 7],
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Grow it over x; the mask is where a channel changes by `MASK_LEVEL`."""
        cover = mould_cover(
            params, scene, x.shape[2], x.shape[3], most_px=self.radius_px[1] * scene.scale
        )
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        aged = cover_with(wide, cover, colour=params["colour"])
        return aged.to(x.dtype), changed(wide, aged)


def mould_cover(
    params: Params, scene: Scene, height: int, width: int, *, most_px: float
) -> OneChannel:
    """Return how much mould covers, from what `Mould.sample` drew; the median radius is at most
    `most_px`.
    """
    scale = scene.scale
    near = torch.stack(
        [
            _nearness(params, scene, height, width, most_px, 1000 + 100 * number, *size)
            for number, size in enumerate(SIZES)
        ]
    ).amax(0)
    noise = smooth_noise(scene, height, width, period_px=16 * scale, plane=200, octaves=4, gain=0.8)
    other = smooth_noise(scene, height, width, period_px=7 * scale, plane=300)
    grown = colony(near, noise, other, hairy=params["hairy"])
    grown = torch.maximum(grown, _specks(params, scene, height, width))
    return grown.mul_(per_pixel(params["opacity"]))


def _nearness(
    params: Params,
    scene: Scene,
    height: int,
    width: int,
    most_px: float,
    plane: int,
    cell_px: float,
    per_cell: int,
    share: float,
    smallest: float,
    largest: float,
) -> OneChannel:
    """Return 1 - distance / `FAR` radii from the nearest colony of a size, 0 where none is near."""
    half_px = math.ceil(FAR * largest * most_px)
    marks = find_marks(
        scene,
        height,
        width,
        cell_px=cell_px * scene.scale,
        per_cell=per_cell,
        num_draws=4,
        reach_px=float(half_px + 1),
        plane=plane,
    )
    crowd = _crowd(params, scene, marks, height, width, half_px + 1.0)
    u = marks.u.unbind(-1)
    wanted = params["per_mpx"] * (share * (cell_px / 1024) ** 2 / per_cell)
    exists = (u[0] < wanted[:, None] * crowd)[:, :, None, None]
    radius = torch.exp(math.log(smallest) + u[1] * math.log(largest / smallest))
    radius = (radius * params["radius_px"][:, None]).clamp(max=largest * most_px)
    inverse = (1 / (FAR * radius))[:, :, None, None]
    stretch = torch.exp(0.7 * (u[2] - 0.5))[:, :, None, None]
    shear = (u[3] - 0.5)[:, :, None, None]
    dx, dy = around(marks, half_px)
    along = (dx * (stretch * inverse) + dy * (shear * inverse)).square_()
    away = along.add_((dy * (inverse / stretch)).square()).sqrt_()
    return lay(away.neg_().add_(1).clamp_(min=0).mul_(exists), marks, height, width)


def _specks(params: Params, scene: Scene, height: int, width: int) -> OneChannel:
    """Lay specks of spores of 0.5 to 2.5 px, where colonies are many."""
    most_px = 2.5 * scene.scale
    half_px = math.ceil(most_px) + 1
    cell_px, per_cell = 24.0, 2
    marks = find_marks(
        scene, height, width, cell_px=cell_px * scene.scale, per_cell=per_cell, num_draws=3,
        reach_px=float(half_px + 1), plane=2000,
    )  # fmt: skip
    crowd = _crowd(params, scene, marks, height, width, half_px + 1.0)
    u = marks.u.unbind(-1)
    wanted = params["specks_per_mpx"] * ((cell_px / 1024) ** 2 / per_cell)
    shown = ((u[0] < wanted[:, None] * crowd) * (0.4 + 0.6 * u[2]))[:, :, None, None]
    radius = (most_px * (0.2 + 0.8 * u[1] ** 3))[:, :, None, None]
    dx, dy = around(marks, half_px)
    away = (dx.square() + dy.square()).sqrt_()
    return lay((radius + 0.5 - away).clamp_(0, 1).mul_(shown), marks, height, width)


def _crowd(
    params: Params, scene: Scene, marks: Marks, height: int, width: int, reach_px: float
) -> Float[Tensor, "B M"]:
    """Return how many more grow about each place; colonies and specks have the same clusters."""
    return crowding(
        scene,
        marks,
        height,
        width,
        reach_px=reach_px,
        period_px=220 * scene.scale,
        unevenness=params["unevenness"],
        plane=100,
    )


def _log_uniform(u: PerImage, value: Range) -> PerImage:
    return value[0] * (value[1] / value[0]) ** u
