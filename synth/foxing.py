"""Foxing: rust-brown spots with soft, ragged edges that grow in damp paper, in clusters.

Most are a few pixels wide, some ten times that with a pale halo. Where a spot lies is keyed, and it
is laid on the picture as its distance from the centre; smooth noise then frays all at once.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .lattice import smooth_noise
from .marks import Marks, around, find_marks, lay
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .stains import changed, colours_between, stain
from .types import Images, Mask, OneChannel, Params, PerImage

RUST = (0.44, 0.71, 1.05)
"""Absorbance of red, green and blue light in a reddish spot of density 1."""
OCHRE = (0.33, 0.54, 0.92)
"""The same of a yellowish one."""
FAR = 2.5
"""Where a spot ends, in its radii."""

SIZES = (
    # Cell, places in it, share of the spots, smallest and largest radius relative to the median.
    (32.0, 2, 0.58, 0.35, 1.0),
    (64.0, 2, 0.34, 1.0, 2.0),
    (128.0, 1, 0.08, 2.0, 5.0),
)
"""Spots of three sizes, each with cells and patches of its own: small ones are many and cheap."""


def spot(distance: OneChannel, *, halo: PerImage) -> OneChannel:
    """Return the density of a spot, 1 in its centre and 0 from `FAR` radii on.

    Args:
        distance: From the centre, in radii, squared.
        halo: Share of the density that lies in the pale surroundings, 0 to 1.
    """
    end = FAR * FAR
    core = (distance * -1.0).exp_().sub_(math.exp(-end)).mul_(1 / (1 - math.exp(-end)))
    wide = (distance * -0.25).exp_().sub_(math.exp(-end / 4)).mul_(1 / (1 - math.exp(-end / 4)))
    return torch.lerp(core, wide, per_pixel(halo)).clamp_(min=0)


def crowding(
    scene: Scene,
    marks: Marks,
    height: int,
    width: int,
    *,
    reach_px: float,
    period_px: float,
    unevenness: PerImage,
    plane: int,
) -> Float[Tensor, "B M"]:
    """Return how many times more marks than on average there are about each: 1 on the whole.

    The density is log-normal, exp(unevenness n), n smooth noise: what grows, grows in clusters.

    Args:
        scene: Whose keys and place.
        marks: Of a window.
        height: Of the window, in pixels.
        width: Of the window, in pixels.
        reach_px: How far outside of it a mark can matter.
        period_px: Size of the clusters.
        unevenness: 0 is an even spread; at 1.5 nearly all marks lie on a fourth of the area.
        plane: Number of the first plane; 2 are used up.
    """
    # Coarse, as the clusters are: a point in `step` pixels, at whole multiples of it.
    step = max(1, int(period_px / 16))
    top, left = (math.floor((at - reach_px) / step) for at in (scene.top, scene.left))
    rows = math.floor((scene.top + height + reach_px) / step) - top + 1
    columns = math.floor((scene.left + width + reach_px) / step) - left + 1
    noise = smooth_noise(
        replace(scene, top=top, left=left),
        rows,
        columns,
        period_px=period_px / step,
        plane=plane,
        octaves=2,
    )
    row = ((marks.y + scene.top) / step - top).long().clamp(0, rows - 1)
    column = ((marks.x + scene.left) / step - left).long().clamp(0, columns - 1)
    there = noise.flatten(1).gather(1, row * columns + column)
    rate = unevenness[:, None]
    return torch.exp(rate * there - rate.square() / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Foxing(Defect):
    """Clusters of rust-brown spots of several sizes."""

    per_mpx: Range = (80.0, 800.0)
    """Spots in an area of 1024 x 1024 px on a picture of that size, log-uniform."""
    radius_px: Range = (1.5, 3.0)
    """Median radius of the spots; few are more than four times as large."""
    density: Range = (0.3, 1.1)
    """Density of a spot's centre; 1 lets a third of the blue light pass."""
    unevenness: Range = (0.8, 1.6)
    """How clustered they are, see `crowding`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("per_mpx", self.per_mpx, low=1.0, high=4000.0)
        check_range("radius_px", self.radius_px, low=0.5, high=8.0)
        check_range("density", self.density, low=0.0, high=4.0)
        check_range("unevenness", self.unevenness, low=0.0, high=3.0)

    def sample(self, scene: Scene) -> Params:
        """Draw absorb (B, 3), and numbers for each photograph (B,)."""
        u = scene.uniform(6)
        low, high = (math.log(number) for number in self.per_mpx)
        per_mpx = torch.exp(scene.amount(u[:, 0], (low, high)))
        return {
            "absorb": colours_between(u[:, 1], OCHRE, RUST),
            "per_mpx": (per_mpx * scene.severity).clamp(max=16000.0),
            "radius_px": scene.scale * scene.amount(u[:, 2], self.radius_px),
            "density": scene.strength(u[:, 3], self.density, most=4.0),
            "unevenness": scene.amount(u[:, 4], self.unevenness),
            "halo": 0.15 + 0.35 * u[:, 5],
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Lay the spots over x; the mask is where they change a channel by `MASK_LEVEL`."""
        density = spots_density(
            params, scene, x.shape[2], x.shape[3], most_px=self.radius_px[1] * scene.scale
        )
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        aged = stain(wide, density, absorb=params["absorb"])
        return aged.to(x.dtype), changed(wide, aged)


def spots_density(
    params: Params, scene: Scene, height: int, width: int, *, most_px: float
) -> OneChannel:
    """Return the density of all spots, from what `Foxing.sample` drew; the median radius is at
    most `most_px`.
    """
    near = torch.stack(
        [
            _nearness(params, scene, height, width, most_px, 1000 + 100 * number, *size)
            for number, size in enumerate(SIZES)
        ]
    ).amax(0)
    noise = smooth_noise(
        scene, height, width, period_px=20 * scene.scale, plane=200, octaves=3, gain=0.75
    )
    # Frayed in between, but still the same in the centres and nothing beyond the ends.
    near = (noise * (1 - near)).add_(1).mul_(near).clamp_(0, 1)
    density = spot((1 - near) * FAR**2, halo=params["halo"])
    return density.mul_(noise.mul_(0.25).add_(1).clamp_(min=0.3)).mul_(per_pixel(params["density"]))


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
    """Return 1 - (distance / FAR)**2 from the nearest spot of a size, 0 where none is near."""
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
    wanted = params["per_mpx"] * (share * (cell_px / 1024) ** 2 / per_cell)
    crowd = crowding(
        scene,
        marks,
        height,
        width,
        reach_px=float(half_px + 1),
        period_px=170 * scene.scale,
        unevenness=params["unevenness"],
        plane=100,
    )
    u = marks.u.unbind(-1)
    exists = u[0] < wanted[:, None] * crowd
    radius = torch.exp(math.log(smallest) + u[1] * math.log(largest / smallest))
    radius = (radius * params["radius_px"][:, None]).clamp(max=largest * most_px)
    # Pale spots are as if seen from a distance: their nearness is below 1 even in the centre.
    near = torch.where(exists, 1 - 1.6 / FAR**2 * u[2] ** 2, 0.0)[:, :, None, None]
    dx, dy = around(marks, half_px)
    stretch = torch.exp(0.5 * (u[3] - 0.5))[:, :, None, None]
    radius = radius[:, :, None, None]
    across = (dx * (stretch / (FAR * radius))).square()
    down = (dy / (stretch * FAR * radius)).square()
    return lay((near - across).sub(down).clamp_(min=0), marks, height, width)
