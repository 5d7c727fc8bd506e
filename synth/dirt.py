"""Dirt: flakes and clots, several times as large as dust and of no regular shape.

A flake is three discs of a short bent walk with a wavy outline and uneven thickness, because one
disc looks like a pebble, or with strong waves like an amoeba, once it is large enough to be seen.
Sizes and numbers are those of 2,700 outlines on film, see `dust`. Costs some three patch pixels for
a pixel of the picture.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .dust import Strewn, edge, normals, outline, strew, turn
from .marks import around, lay
from .scene import Scene
from .types import OneChannel, Params, PerImage

_COMMON_AREA = 300.0
"""Film pixels; the twelfth part of flakes that is larger is drawn apart, in larger patches."""

_COMMON = 0.918
"""Share of the flakes that are smaller."""

_MOST_AREA = 2000.0

_CLOTS = 12.0
"""In a frame; their area follows a power law of exponent 2 up to `_MOST_AREA`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dirt(Strewn):
    """Dirt: irregular flakes, a few of them large."""

    def layer(self, scene: Scene, height: int, width: int, params: Params) -> OneChannel:
        """Draw dirt."""
        given: dict[str, Any] = {n: value for n, value in params.items() if n != "dark"}
        return dirt_map(
            scene, height, width, **given, most_film_px=self.film_px[1],
            most_soft_px=self.soft_px[1],
        )  # fmt: skip


def dirt_map(
    scene: Scene,
    height: int,
    width: int,
    *,
    density: PerImage,
    film_px: PerImage,
    opacity: PerImage,
    soft_px: PerImage,
    clustering: PerImage,
    most_film_px: float = 0.4,
    most_soft_px: float = 1.6,
    plane: int = 0,
) -> OneChannel:
    """Draw the opacity of dirt, in [0, 1].

    A frame has 270 flakes, area exp(N(4.865, 0.600)) film pixels, and a dozen clots.

    Args:
        scene: Whose keys and place.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        density: Flakes in multiples of the mean film frame, 0 to 8.
        film_px: Pixels to a film pixel, at the nominal size of a picture.
        opacity: Median of the flakes'.
        soft_px: Width of a flake's edge, at the nominal size.
        clustering: Standard deviation of the logarithm of the density.
        most_film_px: The largest of `film_px`: the size of patches cannot depend on their content.
        most_soft_px: The largest of `soft_px`.
        plane: Number of the first plane; 200 are used up.
    """
    common = _flakes(
        scene, height, width, common=True, density=density, film_px=film_px, opacity=opacity,
        soft_px=soft_px, clustering=clustering, most_film_px=most_film_px,
        most_soft_px=most_soft_px, plane=plane,
    )  # fmt: skip
    large = _flakes(
        scene, height, width, common=False, density=density, film_px=film_px, opacity=opacity,
        soft_px=soft_px, clustering=clustering, most_film_px=most_film_px,
        most_soft_px=most_soft_px, plane=plane + 100,
    )  # fmt: skip
    return torch.maximum(common, large)


def _flakes(
    scene: Scene,
    height: int,
    width: int,
    *,
    common: bool,
    density: PerImage,
    film_px: PerImage,
    opacity: PerImage,
    soft_px: PerImage,
    clustering: PerImage,
    most_film_px: float,
    most_soft_px: float,
    plane: int,
) -> OneChannel:
    scale = scene.scale
    most_area = _COMMON_AREA if common else _MOST_AREA
    most_radius = math.sqrt(most_area / math.pi) * most_film_px
    half_px = math.ceil(scale * ((_REACH + 0.08) * most_radius + 0.9 * most_soft_px) + 0.5)
    per_frame = 270.0 * _COMMON if common else 270.0 * (1.0 - _COMMON) + _CLOTS
    marks, there = strew(
        scene, height, width, per_frame=per_frame * density, film_px=film_px,
        clustering=clustering, per_cell=6 if common else 2, most_wanted=3.0 if common else 0.5,
        num_draws=25, reach_px=float(half_px), plane=plane,
    )  # fmt: skip
    n, u = normals(marks.u[..., :16]), marks.u[..., 16:]
    area = _common_area(u[..., 0]) if common else _large_area(u[..., 0], u[..., 1])
    radius = (area / math.pi).sqrt() * (film_px * scale)[:, None]
    dx, dy = around(marks, half_px)
    along, across = turn(dx, dy, u[..., 2])

    # In radii of the flake from here on.
    inverse = 1.0 / radius[..., None, None]
    along, across = along * inverse, across * inverse
    inside = _three_discs(along, across, n[..., :4], u[..., 3:5])
    # Finer waves than the flake has pixels for would be noise, so they fade as j**-0.7.
    fade = torch.arange(2, 2 + 5, device=u.device) ** -0.7
    waves = 0.11 * n[..., 4:14].unflatten(-1, (5, 2)) * fade[:, None]
    distance = (along.square() + across.square()).sqrt()
    bend = outline(along, across, distance, waves, first=2)
    # Beyond the reach of the discs no wave may raise anything: the patch ends there.
    inside = (inside + bend.clamp(-0.3, 0.2)).minimum(_REACH - distance)

    lifted = 1.0 + 0.8 * (u[..., 5] < 0.12)  # above the plane of focus
    soft = (soft_px * scale)[:, None] * lifted * inverse[..., 0, 0] + 0.15
    shade = (opacity[:, None] * 1.1 * (0.55 * n[..., 14]).exp()).clamp(0.06, 1.0) * there
    pitch = (2.0 + 2.0 * u[..., 6])[..., None, None]
    phase = (2.0 * math.pi) * u[..., 7:9, None, None]
    thick = (
        0.76
        + 0.24
        * (along * pitch + phase[:, :, 0] + across).sin()
        * (across * pitch + phase[:, :, 1] - along).sin()
    )
    patches = edge(inside, soft[..., None, None]) * thick * shade[..., None, None]
    return lay(patches, marks, height, width)


_REACH = 1.75
"""Farthest point of a flake from its middle, in radii of the disc of the same area."""

_MAIN, _SIDE = 0.89, (0.45, 0.75)
"""Radii of the discs, in those of the disc of the same area as the three together."""


def _three_discs(along: Tensor, across: Tensor, n: Tensor, u: Tensor) -> Tensor:
    """How far inside of the union of three discs each pixel lies; negative outside."""
    inside = _MAIN - (along.square() + across.square()).sqrt()
    x = y = torch.zeros_like(u[..., 0])
    reach = torch.full_like(x, _MAIN)
    for number in range(2):
        # The second disc goes on where the first one led, or lies on the other side.
        heading = 0.7 * n[..., number] + number * math.pi * (n[..., 2] > 0)
        radius = _SIDE[0] + (_SIDE[1] - _SIDE[0]) * u[..., number]
        step = (0.55 + 0.15 * n[..., 3].clamp(-2, 2)) * reach
        x, y = x + step * heading.cos(), y + step * heading.sin()
        away = (along - x[..., None, None]).square() + (across - y[..., None, None]).square()
        inside = inside.maximum(radius[..., None, None] - away.sqrt())
        reach = radius
    return inside


def _common_area(u: Tensor) -> Tensor:
    """Areas up to `_COMMON_AREA`, in film pixels, of numbers in [0, 1)."""
    n = torch.erfinv((2.0 * _COMMON * u - 1.0).clamp(min=-0.999)) * math.sqrt(2.0)
    return (4.865 + 0.6 * n).exp().clamp(max=_COMMON_AREA)


def _large_area(u: Tensor, v: Tensor) -> Tensor:
    """Areas from `_COMMON_AREA` to `_MOST_AREA`: the rest of the normal ones, and clots."""
    rest = torch.erfinv((2.0 * (_COMMON + (1.0 - _COMMON) * u) - 1.0).clamp(max=0.99999))
    flakes = (4.865 + 0.6 * math.sqrt(2.0) * rest).exp()
    clots = 1.0 / (1.0 / _COMMON_AREA - u * (1.0 / _COMMON_AREA - 1.0 / _MOST_AREA))
    share = 270.0 * (1.0 - _COMMON) / (270.0 * (1.0 - _COMMON) + _CLOTS)
    return torch.where(v < share, flakes, clots).clamp(_COMMON_AREA, _MOST_AREA)
