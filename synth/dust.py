"""Dust: specks strewn over a picture, light where they lay on the negative, dark on print or glass.

Sizes, numbers and clustering are those of 7,631 outlines on ten scanned 35 mm frames: Ivanova et
al., "Simulating analogue film damage to analyse and improve artefact restoration on high-resolution
scans", Computer Graphics Forum 2023; finer specks than were outlined go on as a power law. Lengths
of film are in film pixels, 7 um each: a frame is 5000 of them wide.

Only the specks there are get drawn, each as a patch of pixels: about one patch pixel for a pixel of
the picture. `strew` and `Strewn`, how marks settle and show, serve dirt and hairs too.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.compiler import is_compiling

from .defect import Defect
from .marks import Marks, around, find_marks, lay
from .philox import bits_to_normal
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .texture import MASK_LEVEL
from .types import Images, InMode, Mask, OneChannel, Params, PerImage

FRAME_FILM_PX = 5000 * 3420
"""Area of the frames that the statistics were counted on."""

CELL_PX = 64
"""Side of the cells that marks are drawn in."""

MOST_DENSE = 8.0
"""Times the mean film frame: with more, little of a photograph is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strewn(Defect):
    """Marks strewn over a picture; a base of defects, not one by itself."""

    density: Range = (0.3, 1.7)
    """How many, in multiples of the mean film frame, uniform in this range; times the severity."""
    film_px: Range = (0.2, 0.4)
    """Pixels of the picture to a film pixel of 7 um: 0.2 shows a whole 35 mm frame, 0.4 a part."""
    opacity: Range = (0.25, 0.45)
    """Median over the marks of a photograph; single marks are log-normal about it, at most 1."""
    soft_px: Range = (0.9, 1.6)
    """Width of a mark's edge where it is in focus."""
    clustering: Range = (0.4, 0.8)
    """Standard deviation of the logarithm of the density from place to place; 0 is even."""
    dark: float = 0.3
    """Share of the photographs where the marks darken, as on print or glass; else they lighten."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("density", self.density, low=0.0, high=MOST_DENSE)
        check_range("film_px", self.film_px, low=0.05, high=2.0)
        check_range("opacity", self.opacity, low=0.0, high=1.0)
        check_range("soft_px", self.soft_px, low=0.1, high=4.0)
        check_range("clustering", self.clustering, low=0.0, high=2.0)
        check_share("dark", self.dark)

    @abstractmethod
    def layer(self, scene: Scene, height: int, width: int, params: Params) -> OneChannel:
        """Draw the opacity of the marks."""

    def sample(self, scene: Scene) -> Params:
        """Draw density, film_px, opacity, soft_px and clustering (B,), and dark (B,) bool."""
        u = scene.uniform(6)
        return {
            "density": scene.strength(u[:, 0], self.density, most=MOST_DENSE),
            "film_px": scene.amount(u[:, 1], self.film_px),
            "opacity": scene.amount(u[:, 2], self.opacity),
            "soft_px": scene.amount(u[:, 3], self.soft_px),
            "clustering": scene.amount(u[:, 4], self.clustering),
            "dark": u[:, 5] < self.dark,
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Lay the marks on x; the mask is where they hide `MASK_LEVEL` or more of it."""
        layer = self.layer(scene, x.shape[2], x.shape[3], params)
        return cover(x, layer, dark=params["dark"]), layer >= MASK_LEVEL


@dataclass(frozen=True, kw_only=True, slots=True)
class Dust(Strewn):
    """Dust: many small roundish specks."""

    fine: float = 1.0
    """Specks finer than the annotators outlined, relative to what scans of dust show."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        Strewn.__post_init__(self)
        if not 0.0 <= self.fine <= 4.0:
            raise ValueError(f"fine must be from 0 to 4, got {self.fine!r}")

    def layer(self, scene: Scene, height: int, width: int, params: Params) -> OneChannel:
        """Draw dust."""
        given: dict[str, Any] = {n: value for n, value in params.items() if n != "dark"}
        return dust_map(
            scene, height, width, **given, fine=self.fine, most_film_px=self.film_px[1],
            most_soft_px=self.soft_px[1],
        )  # fmt: skip


def dust_map(
    scene: Scene,
    height: int,
    width: int,
    *,
    density: PerImage,
    film_px: PerImage,
    opacity: PerImage,
    soft_px: PerImage,
    clustering: PerImage,
    fine: float = 1.0,
    most_film_px: float = 0.4,
    most_soft_px: float = 1.6,
    plane: int = 0,
) -> OneChannel:
    """Draw the opacity of dust, in [0, 1].

    A frame has 763 specks, area exp(N(4.04, 0.48)) film pixels (median 57, p95 125); and 1500 of 10
    to 39, where the outlines end, after a power law of exponent 2 (scans of dust show 1.7 to 2.3).

    Args:
        scene: Whose keys and place.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        density: Specks in multiples of the mean film frame, 0 to 8.
        film_px: Pixels to a film pixel, at the nominal size of a picture.
        opacity: Median of the specks'.
        soft_px: Width of a speck's edge, at the nominal size.
        clustering: Standard deviation of the logarithm of the density.
        fine: Factor on the number of the finer specks.
        most_film_px: The largest of `film_px`: the size of patches cannot depend on their content.
        most_soft_px: The largest of `soft_px`.
        plane: Number of the first plane; 300 are used up.
    """
    scale, made = scene.scale, []
    # Specks outlined, and finer ones; those above the plane of focus are blurred.
    for per_frame, most_area, per_cell, at, lifted in (
        (763.0, 200.0, 20, plane, 0.12),
        (1500.0 * fine, 39.0, 40, plane + 120, 0.0),
    ):
        if per_frame == 0:
            continue
        most_radius = math.sqrt(most_area / math.pi) * most_film_px
        blur = 1.8 if lifted else 1.0
        half_px = math.ceil(
            scale * (1.38 * most_radius + 0.5 * (blur * most_soft_px + 0.15 * most_radius)) + 0.5
        )
        marks, there = strew(
            scene, height, width, per_frame=per_frame * density, film_px=film_px,
            clustering=clustering, per_cell=per_cell, most_wanted=0.5 * per_cell, num_draws=12,
            reach_px=float(half_px), plane=at,
        )  # fmt: skip
        n, u = normals(marks.u[..., :8]), marks.u[..., 8:]
        if lifted:
            area = (4.043 + 0.48 * n[..., 0]).exp().clamp(max=most_area)
        else:
            # Inverse of the distribution function of a density that falls with a**-2.
            area = 1.0 / (1.0 / 10.0 - u[..., 3] * (1.0 / 10.0 - 1.0 / most_area))
        radius = (area / math.pi).sqrt() * (film_px * scale)[:, None]
        soft = (soft_px * scale)[:, None] * (1.0 + (blur - 1.0) * (u[..., 1] < lifted))
        shade = (opacity[:, None] * (0.55 * n[..., 1]).exp()).clamp(0.06, 1.0) * there
        squeeze = (0.13 * n[..., 2].abs()).exp().clamp(max=1.26)
        dx, dy = around(marks, half_px)
        along, across = turn(dx, dy, u[..., 0])
        along, across = along / squeeze[..., None, None], across * squeeze[..., None, None]
        distance = (along.square() + across.square()).sqrt()
        waves = 0.07 * n[..., 3:7]
        bend = outline(along, across, distance, waves.unflatten(-1, (2, 2)), first=3)
        patches = edge(
            radius[..., None, None] * (1.0 + bend.clamp(-0.3, 0.1)) - distance,
            (soft + 0.15 * radius)[..., None, None],
        )
        made.append(lay(patches * shade[..., None, None], marks, height, width))
    return made[0] if len(made) == 1 else torch.maximum(made[0], made[1])


def strew(
    scene: Scene,
    height: int,
    width: int,
    *,
    per_frame: PerImage,
    film_px: PerImage,
    clustering: PerImage,
    per_cell: int,
    most_wanted: float,
    num_draws: int,
    reach_px: float,
    plane: int,
) -> tuple[Marks, Bool[Tensor, "B M"]]:
    """Strew marks with the density of a log-Gaussian Cox process, smooth over some 100 px.

    On film counts are over-dispersed: dust in squares of 256 film pixels follows a negative
    binomial of r = 1.6. A third of that is within a frame, the rest is between them.

    Args:
        scene: Whose keys and place.
        height: Of the window, in pixels.
        width: Of the window, in pixels.
        per_frame: Marks wanted on the area of a 35 mm frame.
        film_px: Pixels to a film pixel, at the nominal size.
        clustering: Standard deviation of the logarithm of the density.
        per_cell: Places in a cell; where the density is highest not all may suffice.
        most_wanted: Marks that are strewn in a cell on average, at most.
        num_draws: Numbers for each mark.
        reach_px: How far outside of the window a mark can still show in it.
        plane: Number of the first plane; 1 + (per_cell * (3 + num_draws) + 3) // 4 are used up.

    Returns:
        The marks there are, moved to the front, and which of the M are there.
    """
    cell_px = CELL_PX * scene.scale
    row, rows = _cells(scene.top, height, reach_px, cell_px)
    column, columns = _cells(scene.left, width, reach_px, cell_px)
    words = scene.cells(row - 2, column - 2, rows + 4, columns + 4, count=2, plane=plane)
    noise, _ = bits_to_normal(words[:, 0], words[:, 1])
    noise = _smooth(_smooth(noise).mT).mT
    spread = clustering[:, None, None]
    density = (spread * noise - 0.5 * spread.square()).exp()  # mean 1
    wanted = per_frame * (CELL_PX / film_px).square() / FRAME_FILM_PX
    share = wanted.clamp(max=most_wanted)[:, None, None] * density / per_cell
    share = share[:, None].expand(-1, per_cell, -1, -1).flatten(1)
    marks = find_marks(
        scene, height, width, cell_px=cell_px, per_cell=per_cell, num_draws=1 + num_draws,
        reach_px=reach_px, plane=plane + 1,
    )  # fmt: skip
    there = (marks.u[..., 0] < share) & near(marks.x, marks.y, height, width, reach_px)
    cells = (height + 2 * reach_px) * (width + 2 * reach_px) / cell_px**2
    index, there = gather_first(there, most_of(most_wanted * cells))
    return Marks(
        x=marks.x.gather(1, index), y=marks.y.gather(1, index), u=pick(marks.u, index)[..., 1:]
    ), there


def cover(x: Images, layer: InMode, *, dark: Bool[Tensor, " B"]) -> Images:
    """Move x towards black where it is dark, else towards white, by the opacity of a layer.

    The layer has one channel, or as many as x.
    """
    full = x.to(torch.promote_types(x.dtype, torch.float32))
    target = per_pixel((~dark).to(full.dtype))
    return (full + layer * (target - full)).clamp(0, 1).to(x.dtype)


def near(x: Tensor, y: Tensor, height: int, width: int, reach_px: Tensor | float) -> Tensor:
    """Tell which places are in a window or at most `reach_px` outside of it."""
    across = (x - x.clamp(0, width - 1)).abs()
    return (across <= reach_px) & ((y - y.clamp(0, height - 1)).abs() <= reach_px)


def most_of(mean: float) -> int:
    """How many of things that are `mean` on average there can reasonably be at once."""
    return math.ceil(1.2 * mean + 4.0 * math.sqrt(mean) + 6.0)


def gather_first(
    there: Bool[Tensor, "B M"], most: int
) -> tuple[Int64[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Find the first `most` that are there, without a wait for the GPU.

    Returns:
        Their numbers, and which of the N are numbers of something: min(most, M), and on a CPU no
        more than one of the photographs has.
    """
    B, M = there.shape
    number = torch.arange(M, device=there.device).expand(B, M)
    if there.device.type == "cpu" and not is_compiling():
        # Only there: a GPU would have to be waited for. Most photographs have few of anything.
        found = int(there.sum(1).numpy().max(initial=0))
        most = min(most, max(1, found))
    if most >= M:
        return number, there
    place = there.long().cumsum(1)
    slot = torch.where(there & (place <= most), place - 1, most)
    index = torch.zeros((B, most + 1), dtype=torch.int64, device=there.device)
    index = index.scatter(1, slot, number)[:, :most]
    return index, number[:, :most] < place[:, -1:]


def pick(values: Shaped[Tensor, "B M n"], index: Int64[Tensor, "B N"]) -> Shaped[Tensor, "B N n"]:
    """Return the rows of some numbers."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


def normals(u: Float[Tensor, "*shape n"]) -> Float[Tensor, "*shape n"]:
    """Map an even number of independent numbers in [0, 1) to standard normal ones."""
    radius = ((u[..., ::2] + 2.0**-24).log() * -2.0).sqrt()
    angle = u[..., 1::2] * (2.0 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)


def turn(dx: Tensor, dy: Tensor, turns: Float[Tensor, "B M"]) -> tuple[Tensor, Tensor]:
    """Return coordinates along and across a direction, given in full turns."""
    angle = (turns * (2.0 * math.pi))[..., None, None]
    cos, sin = angle.cos(), angle.sin()
    return dx * cos + dy * sin, dy * cos - dx * sin


def outline(
    along: Float[Tensor, "B M P P"],
    across: Float[Tensor, "B M P P"],
    distance: Float[Tensor, "B M P P"],
    waves: Float[Tensor, "B M k 2"],
    *,
    first: int,
) -> Float[Tensor, "B M P P"]:
    """Sum waves about a centre, a cos(j t) + b sin(j t) for j from `first` on."""
    inverse = 1.0 / distance.clamp(min=1e-3)
    cos, sin = along * inverse, across * inverse
    real, imaginary = cos, sin
    for _ in range(first - 1):
        real, imaginary = real * cos - imaginary * sin, real * sin + imaginary * cos
    total = torch.zeros_like(distance)
    for number in range(waves.shape[2]):
        if number:
            real, imaginary = real * cos - imaginary * sin, real * sin + imaginary * cos
        a, b = waves[:, :, number, :, None, None].unbind(2)
        total = total + a * real + b * imaginary
    return total


def edge(inside_px: Tensor, soft_px: Tensor) -> Tensor:
    """Opacity at a distance inside of an outline: 0 outside, 1 inside, smooth in between."""
    t = (inside_px / soft_px + 0.5).clamp(0, 1)
    return t * t * (3.0 - 2.0 * t)


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless the value is from 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be a share from 0 to 1, got {value!r}")


def _cells(start: int, length: int, reach_px: float, cell_px: float) -> tuple[int, int]:
    """Return the first cell in reach of a window and how many there are, as `find_marks` has it."""
    first = math.floor((start - reach_px) / cell_px)
    return first, math.floor((start + length + reach_px) / cell_px) - first + 1


def _smooth(noise: Tensor) -> Tensor:
    """Weigh five neighbours of the last axis by 1, 4, 6, 4, 1; the variance stays."""
    n = noise.shape[-1] - 4
    total = sum(w * noise[..., i : i + n] for i, w in enumerate((1.0, 4.0, 6.0, 4.0, 1.0)))
    assert isinstance(total, Tensor)
    return total * (1.0 / math.sqrt(70.0))
