"""Hairs: thin curves that bend, kink and curl: short hairs, long ones, and tufts of lint.

The heading of a hair is the integral of its curvature, and curvature runs smoothly from one random
knot to the next: arcs with a kink here and there, as fibres lie. Lengths, widths and numbers are
those of 1,739 outlines on film, see `dust`. Unlike dust, hairs do not gather within a frame, but
frames differ in them from none to many: a photograph's density is a range times u**3.

A curve is a chain of short straight pieces, each drawn as a patch of its own (`lay_pieces`, which
draws scratches too), at about three patch pixels for a pixel of the picture.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .dust import Strewn, edge, gather_first, most_of, near, normals, pick, strew
from .marks import Marks, around, lay
from .ranges import Range
from .scene import Scene
from .types import OneChannel, Params, PerImage

PIECE_PX = 3.0
"""Length of the pieces of a curve, at the nominal size of a picture."""

_KNOT_FILM_PX = 40.0
"""Between the knots of the curvature."""

_CORE = 0.45
"""Annotators outline hairs generously: the hair itself has this share of an outline's width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hairs(Strewn):
    """Short and long hairs, and lint."""

    density: Range = (0.0, 4.0)
    """How many, in multiples of the mean film frame: u**3 of the way into this range, u uniform,
    so that few photographs have most of the hairs; times the severity."""
    clustering: Range = (0.1, 0.3)
    """Standard deviation of the logarithm of the density from place to place; 0 is even."""
    opacity: Range = (0.3, 0.55)
    """Median over the hairs of a photograph; single hairs are log-normal about it, at most 1."""

    def sample(self, scene: Scene) -> Params:
        """Draw density, film_px, opacity, soft_px and clustering (B,), and dark (B,) bool."""
        params = Strewn.sample(self, scene)
        u = scene.uniform(6)[:, 0]
        return params | {"density": scene.strength(u**3, self.density, most=MOST_HAIRY)}

    def layer(self, scene: Scene, height: int, width: int, params: Params) -> OneChannel:
        """Draw hairs."""
        given: dict[str, Any] = {n: value for n, value in params.items() if n != "dark"}
        return hairs_map(
            scene, height, width, **given, most_film_px=self.film_px[1],
            most_soft_px=self.soft_px[1],
        )  # fmt: skip


MOST_HAIRY = 6.0
"""Times the mean film frame; the measured ones have up to 4.3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """A kind of hair; lengths in film pixels."""

    per_frame: float
    mu: float
    """Of the logarithm of the length."""
    sigma: float
    least: float
    most: float
    width: float
    bend: float
    """Standard deviation of the curvature, radians a film pixel."""
    curl: float
    """Share of the hairs that bend three times as much."""
    strands: int
    per_cell: int
    """Places in a cell."""
    most_wanted: float
    """Hairs in a cell on average, at most."""


_KINDS = (
    _Kind(
        per_frame=134.0, mu=3.643, sigma=0.728, least=12.0, most=150.0, width=7.1, bend=0.0165,
        curl=0.1, strands=1, per_cell=4, most_wanted=1.5,
    ),
    _Kind(
        per_frame=40.0, mu=4.974, sigma=0.516, least=50.0, most=450.0, width=6.5, bend=0.0165,
        curl=0.1, strands=1, per_cell=2, most_wanted=0.5,
    ),
    _Kind(
        per_frame=2.0, mu=4.5, sigma=0.5, least=30.0, most=250.0, width=6.5, bend=0.05,
        curl=0.0, strands=5, per_cell=1, most_wanted=0.05,
    ),
)  # fmt: skip
"""Short hairs, long hairs, and tufts of lint, whose strands lie across each other."""


def hairs_map(
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
    """Draw the opacity of hairs, in [0, 1].

    A frame has 134 short hairs, length exp(N(3.643, 0.728)) film pixels, 40 long ones of
    exp(N(4.974, 0.516)), and two tufts of lint.

    Args:
        scene: Whose keys and place.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        density: Hairs in multiples of the mean film frame, 0 to 6.
        film_px: Pixels to a film pixel, at the nominal size of a picture.
        opacity: Median of the hairs'.
        soft_px: Width of a hair's edge, at the nominal size.
        clustering: Standard deviation of the logarithm of the density.
        most_film_px: The largest of `film_px`: the size of patches cannot depend on their content.
        most_soft_px: The largest of `soft_px`.
        plane: Number of the first plane; 300 are used up.
    """
    total: Tensor | None = None
    for number, kind in enumerate(_KINDS):
        layer = _hairs(
            scene, height, width, kind, density=density, film_px=film_px, opacity=opacity,
            soft_px=soft_px, clustering=clustering, most_film_px=most_film_px,
            most_soft_px=most_soft_px, plane=plane + 100 * number,
        )  # fmt: skip
        total = layer if total is None else torch.maximum(total, layer)
    assert total is not None
    return total


def _hairs(
    scene: Scene,
    height: int,
    width: int,
    kind: _Kind,
    *,
    density: PerImage,
    film_px: PerImage,
    opacity: PerImage,
    soft_px: PerImage,
    clustering: PerImage,
    most_film_px: float,
    most_soft_px: float,
    plane: int,
) -> OneChannel:
    scale, strands = scene.scale, kind.strands
    # Half the length; lint lies about a middle.
    reach_px = scale * most_film_px * kind.most * (0.5 if strands == 1 else 0.8)
    num_knots = 2 * math.ceil(0.5 * kind.most / _KNOT_FILM_PX) + 2
    num_knots += num_knots % 2
    each = _NORMALS + num_knots + _UNIFORMS
    marks, there = strew(
        scene, height, width, per_frame=kind.per_frame * density, film_px=film_px,
        clustering=clustering, per_cell=kind.per_cell, most_wanted=kind.most_wanted,
        num_draws=strands * each, reach_px=reach_px, plane=plane,
    )  # fmt: skip

    # One row a strand from here on.
    u = marks.u.unflatten(2, (strands, each)).flatten(1, 2)
    there = there.repeat_interleave(strands, 1)
    n, u = normals(u[..., : _NORMALS + num_knots]), u[..., _NORMALS + num_knots :]
    # Film pixels to pixels.
    px = (film_px * scale)[:, None]
    length = (kind.mu + kind.sigma * n[..., 0]).exp().clamp(kind.least, kind.most) * px
    core = 0.5 * _CORE * kind.width * (0.22 * n[..., 1]).clamp(max=0.5).exp() * px
    # A tuft is as opaque as its first strand.
    shade = opacity[:, None] * (0.5 * n[:, ::strands, 2]).exp().repeat_interleave(strands, 1)
    lifted = 1.0 + 0.8 * (u[..., 1] < 0.12)  # above the plane of focus
    soft = (soft_px * scale)[:, None] * lifted
    bend = kind.bend * (0.35 * n[..., 3]).exp() * torch.where(u[..., 2] < kind.curl, 3.0, 1.0)
    x, y = (place.repeat_interleave(strands, 1) for place in (marks.x, marks.y))
    if strands > 1:
        # Strands that all had the same middle would make a star.
        x, y = x + 18.0 * n[..., 4] * px, y + 18.0 * n[..., 5] * px

    num = 2 * math.ceil(0.5 * most_film_px * kind.most / PIECE_PX)
    s = (torch.arange(num + 1, device=n.device) - num // 2) * (PIECE_PX * scale)
    # Beyond its ends a hair goes on in pieces of no length, which are left out.
    s = s.minimum(0.5 * length[..., None]).maximum(-0.5 * length[..., None])
    turns, knots = 2.0 * math.pi * u[..., 0], (bend / px)[..., None] * n[..., _NORMALS:]
    x, y = _follow(x, y, turns, knots, s, _KNOT_FILM_PX * px)
    to_end = 0.5 * length[..., None] - s.abs()
    taper = (to_end / (8.0 * px + scale)[..., None] + 0.3).clamp(0, 1)
    vary = 1.0 + 0.15 * (s / (25.0 * px[..., None]) + 6.3 * u[..., 3:]).sin()
    fade = 1.0 + 0.2 * (s / (17.0 * px[..., None]) + 6.3 * u[..., 3:]).cos()
    mean_length = math.exp(kind.mu + 0.5 * kind.sigma**2) * most_film_px
    pieces = marks.x.shape[1] * strands * (mean_length / PIECE_PX + 1.5)
    return lay_pieces(
        x,
        y,
        half_width=core[..., None] * vary * taper,
        opacity=(shade[..., None] * fade).clamp(0.06, 1.0) * taper.sqrt(),
        soft=soft,
        there=(s.diff(dim=-1) > 0.0) & there[..., None],
        height=height,
        width=width,
        half_px=math.ceil(
            scale * (0.5 * PIECE_PX + _CORE * kind.width * most_film_px + 0.9 * most_soft_px) + 0.5
        ),
        most=most_of(pieces),
    )


_NORMALS = 6
"""Normal numbers of a strand before those of its knots."""

_UNIFORMS = 4
"""Uniform ones after."""


def lay_pieces(
    x: Float[Tensor, "B M n"],
    y: Float[Tensor, "B M n"],
    *,
    half_width: Float[Tensor, "B M n"],
    opacity: Float[Tensor, "B M n"],
    soft: Float[Tensor, "B M"],
    there: Bool[Tensor, "B M m"],
    height: int,
    width: int,
    half_px: int,
    most: int,
) -> OneChannel:
    """Draw M chains of straight pieces on an empty window; where they meet, the larger stays.

    Args:
        x: Columns of the nodes, in pixels of the window.
        y: Their rows.
        half_width: Of the chain at the nodes, in pixels; even in between, as is the opacity.
        opacity: At the nodes, 0 to 1.
        soft: Width of the edge of each chain, in pixels.
        there: Which pieces are drawn, m = n - 1.
        height: Of the window, in pixels.
        width: Of the window, in pixels.
        half_px: From the middle of a piece to the farthest pixel it can colour.
        most: Pieces to draw; the last ones of more are left out.
    """
    B, M, n = x.shape
    ends = torch.stack([x, y, half_width, opacity], -1)
    pieces = torch.cat(
        [ends[:, :, :-1], ends[:, :, 1:], soft[..., None, None].expand(B, M, n - 1, 1)], -1
    ).flatten(1, 2)
    middle = 0.5 * (pieces[..., :2] + pieces[..., 4:6])
    there = there.flatten(1, 2) & near(
        middle[..., 0], middle[..., 1], height, width, float(half_px)
    )
    index, there = gather_first(there, most)
    ax, ay, aw, ao, bx, by, bw, bo, soft = pick(pieces, index).unbind(-1)
    x, y = 0.5 * (ax + bx), 0.5 * (ay + by)
    marks = Marks(x=x, y=y, u=x.new_zeros((*x.shape, 0)))
    dx, dy = around(marks, half_px)

    def wide(value: Tensor) -> Tensor:
        return value[..., None, None]

    half = 0.5 * ((bx - ax).square() + (by - ay).square()).sqrt().clamp(min=1e-3)
    cos, sin = wide(0.5 * (bx - ax) / half), wide(0.5 * (by - ay) / half)
    # Nearest place on the piece, -1 to 1.
    t = ((dx * cos + dy * sin) / wide(half)).clamp(-1, 1)
    away = ((dx - t * wide(half) * cos).square() + (dy - t * wide(half) * sin).square()).sqrt()
    inside = wide(0.5 * (aw + bw)) + t * wide(0.5 * (bw - aw)) - away
    shade = wide(0.5 * (ao + bo)) + t * wide(0.5 * (bo - ao))
    return lay(edge(inside, wide(soft)) * shade * wide(there), marks, height, width)


def _follow(
    x: Tensor, y: Tensor, heading: Tensor, knots: Tensor, s: Tensor, knot_px: Tensor
) -> tuple[Tensor, Tensor]:
    """Walk both ways from the middle of each curve; return the columns and rows of its nodes.

    Args:
        x: Columns of the middles, (B, M).
        y: Their rows.
        heading: In the middle, radians, (B, M).
        knots: Curvature at the knots, radians a pixel, (B, M, k).
        s: Where the nodes are along the curve, in pixels, (B, M, n); the middle one at 0.
        knot_px: Between the knots, (B, 1).
    """
    # In double precision, so that CPU and GPU lay the same curve to far below a pixel's 1e-5.
    precise = s.float if s.device.type == "mps" else s.double
    s = precise()
    at = s / knot_px[..., None]
    step, between = s.diff(dim=-1), 0.5 * (at[..., 1:] + at[..., :-1])
    middle = s.shape[2] // 2
    # Counted from the first knot; the curve ends before the last one.
    between = between + 0.5 * (knots.shape[2] - 1)
    before = between.floor().clamp(0, knots.shape[2] - 2)
    index = before.long()
    curvature = torch.lerp(
        knots.gather(2, index).to(s.dtype), knots.gather(2, index + 1).to(s.dtype), between - before
    )
    bends = (curvature * step).cumsum(-1)
    # Half of a piece's own bend is behind its middle.
    bends = bends - 0.5 * curvature * step - bends[..., middle - 1 : middle]
    angle = heading[..., None].to(s.dtype) + bends
    walked = torch.stack([step * angle.cos(), step * angle.sin()], -1).cumsum(2)
    walked = torch.cat([torch.zeros_like(walked[:, :, :1]), walked], 2)
    walked = (walked - walked[:, :, middle : middle + 1]).float()
    return x[..., None] + walked[..., 0], y[..., None] + walked[..., 1]
