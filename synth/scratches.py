"""Scratches: straight marks along the way of the film or anywhere, long, short or double.

Lengths, widths and numbers are those of 65 outlines on ten film frames, see `dust`. A photograph
has ten places for a scratch, wherever one can still touch it, and each breaks up along its length,
as a grain of sand skips over the emulsion. Drawn in pieces like hairs: only what lies in the window
costs, some two patch pixels for a pixel of the picture.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .dust import FRAME_FILM_PX, MOST_DENSE, check_share, cover, normals
from .hairs import PIECE_PX, lay_pieces
from .philox import bits_to_normal
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .texture import MASK_LEVEL
from .types import Images, Mask, OneChannel, Params, PerImage

PLACES = 10
"""For a scratch, on a photograph."""

TWINS = 3
"""How many of the places may hold a double one."""

LINES = PLACES + TWINS

_EACH = 16
"""Numbers that a place takes."""

LINE_DRAWS = 1 + PLACES * _EACH
"""Numbers that `draw_lines` takes."""

_MOST_FILM_PX = 5000.0
"""The longest scratches run across the whole frame."""

_MOST_WIDTH_FILM_PX = 9.0

_CORE = 0.45
"""Of an outline's width, as with hairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scratches(Defect):
    """Scratches of film: white, black, or coloured where they go into the emulsion."""

    density: Range = (0.0, 2.5)
    """How many, in multiples of the mean film frame (6.5), uniform; times the severity. There are
    never more than 10 on a photograph, and 3 of them double."""
    film_px: Range = (0.2, 0.4)
    """Pixels of the picture to a film pixel of 7 um: 0.2 shows a whole 35 mm frame, 0.4 a part."""
    opacity: Range = (0.4, 0.8)
    """Median over the scratches of a photograph, where they are deepest."""
    soft_px: Range = (0.9, 1.5)
    """Width of a scratch's edge."""
    long: float = 0.1
    """Share of the scratches that run right across the frame."""
    upright: float = 0.6
    """Share of the photographs where most scratches are upright, the way of film; on the others
    they share any direction."""
    dark: float = 0.3
    """Share of the photographs where scratches are black: the way of those on prints and of those
    on the back of film; else they are light."""
    coloured: float = 0.0
    """Share of the photographs, of those with light scratches, where they cut into the layers of
    colour film: white on the surface, green where the magenta dye is gone, yellow where cyan is
    gone too. For colour photographs; on one channel only their luma shows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("density", self.density, low=0.0, high=MOST_DENSE)
        check_range("film_px", self.film_px, low=0.05, high=2.0)
        check_range("opacity", self.opacity, low=0.0, high=1.0)
        check_range("soft_px", self.soft_px, low=0.1, high=4.0)
        for name in ("long", "upright", "dark", "coloured"):
            check_share(name, getattr(self, name))

    def sample(self, scene: Scene) -> Params:
        """Draw soft_px (B,), dark and coloured (B,) bool, and the lines of `draw_lines`."""
        u = scene.uniform(LINE_DRAWS + 7)
        drawn = u[:, LINE_DRAWS:]
        lines = draw_lines(
            scene,
            u[:, :LINE_DRAWS],
            density=scene.strength(drawn[:, 0], self.density, most=MOST_DENSE),
            film_px=scene.amount(drawn[:, 1], self.film_px),
            opacity=scene.amount(drawn[:, 2], self.opacity),
            upright=drawn[:, 3] < self.upright,
            long=self.long,
        )
        return lines | {
            "soft_px": scene.amount(drawn[:, 4], self.soft_px),
            "dark": drawn[:, 5] < self.dark,
            "coloured": drawn[:, 6] < self.coloured,
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Scratch x; the mask is where a scratch hides `MASK_LEVEL` or more of it."""
        layer = scratches_map(
            scene, x.shape[2], x.shape[3], params, soft_px=params["soft_px"],
            most_film_px=self.film_px[1], most_soft_px=self.soft_px[1],
        )  # fmt: skip
        dark = params["dark"]
        aged = cover(
            x, layer * depth_colour(layer, x.shape[1], params["coloured"] & ~dark), dark=dark
        )
        return aged, layer >= MASK_LEVEL


def draw_lines(
    scene: Scene,
    u: Float[Tensor, "B n"],
    *,
    density: PerImage,
    film_px: PerImage,
    opacity: PerImage,
    upright: Tensor,
    long: float,
    within: bool = False,
) -> Params:
    """Draw where the scratches of pictures are.

    A frame has 6.5 of length exp(N(5.54, 0.906)) film pixels and width exp(N(2.07, 0.35)). Seven
    in ten share a direction; three in twenty are double.

    Args:
        scene: Whose size and scale.
        u: `LINE_DRAWS` numbers in [0, 1) for each photograph.
        density: Scratches in multiples of the mean film frame.
        film_px: Pixels to a film pixel, at the nominal size of a picture.
        opacity: Median of the scratches'.
        upright: (B,) bool, whether the shared direction is upright, within some degrees.
        long: Share of the scratches that run right across.
        within: Whether all middles lie within the picture, and no scratch ends half a picture
            away; else they lie around it as well, as far as their scratch can still touch it.

    Returns:
        x and y of the middles, length and width_px, in pixels of the whole picture; heading and bow
        from end to end, in radians; opacity, 0 where there is none; bias, about 0.6: how deep the
        scratch is, with less of it there are more gaps. Each (B, `LINES`).
    """
    H, W = scene.size
    px = (film_px * scene.scale)[:, None]
    v = u[:, 1:].unflatten(1, (PLACES, _EACH))
    n, v = normals(v[..., :6]), v[..., 6:]

    # Where, how long and which way.
    main = torch.where(upright, 0.5 * math.pi + 0.03 * (u[:, 0] - 0.5), math.pi * u[:, 0])[:, None]
    spread = torch.where(upright, 0.017, 0.14)[:, None]
    heading = torch.where(v[..., 0] < 0.7, main + spread * n[..., 0], math.pi * v[..., 1])
    across = torch.full_like(heading, _MOST_FILM_PX)
    film = torch.where(v[..., 2] < long, across, (5.54 + 0.906 * n[..., 1]).exp().minimum(across))
    length = (film * px).clamp(max=0.9 * min(H, W) - 24.0 if within else 2.0 * max(H, W))
    beyond = 0.0 if within else 1.0
    box_w = W + beyond * length * heading.cos().abs()
    box_h = H + beyond * length * heading.sin().abs()
    x = 0.5 * (W - 1) + (v[..., 3] - 0.5) * box_w
    y = 0.5 * (H - 1) + (v[..., 4] - 0.5) * box_h
    wanted = 6.5 * density[:, None] * box_w * box_h / (FRAME_FILM_PX * px.square())
    there = v[..., 5] < wanted / PLACES

    # How wide and deep.
    outline = (2.07 + 0.35 * n[..., 2]).exp().clamp(max=_MOST_WIDTH_FILM_PX / _CORE)
    shade = (opacity[:, None] * (0.5 * n[..., 3]).exp()).clamp(0.1, 1.0) * there
    lines = {
        "x": x,
        "y": y,
        "heading": heading,
        "length": length,
        "width_px": _CORE * outline * px,
        "bow": 0.03 * n[..., 4] * (length / (length + 300.0 * px)),
        "opacity": shade,
        "bias": 0.1 + v[..., 6],
    }

    # The double ones; of half of the places that may.
    gap = (2.0 + 4.0 * v[:, :TWINS, 7]) * scene.scale
    first = {name: value[:, :TWINS] for name, value in lines.items()}
    double = v[:, :TWINS, 8] < 0.15 * PLACES / TWINS
    twins = first | {
        "x": first["x"] - gap * first["heading"].sin(),
        "y": first["y"] + gap * first["heading"].cos(),
        "length": first["length"] * (0.4 + 0.6 * v[:, :TWINS, 9]),
        "width_px": 0.7 * first["width_px"],
        "opacity": 0.8 * first["opacity"] * double,
    }
    return {name: torch.cat([lines[name], twins[name]], 1) for name in lines}


def scratches_map(
    scene: Scene,
    height: int,
    width: int,
    lines: Params,
    *,
    soft_px: PerImage,
    most_film_px: float = 0.4,
    most_soft_px: float = 1.5,
    plane: int = 0,
) -> OneChannel:
    """Draw the opacity of scratches, in [0, 1].

    Args:
        scene: Whose keys and place; along each scratch its depth is noise of its own.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        lines: Where the scratches are, as `draw_lines` returns it.
        soft_px: Width of a scratch's edge, at the nominal size.
        most_film_px: The largest pixels to a film pixel: patches cannot depend on their content.
        most_soft_px: The largest of `soft_px`.
        plane: Of the noise along the scratches.
    """
    x, y, heading, length = (lines[name] for name in ("x", "y", "heading", "length"))
    width_px, opacity = lines["width_px"], lines["opacity"]
    scale, piece_px = scene.scale, PIECE_PX * scene.scale
    most_px = min(_MOST_FILM_PX * most_film_px * scale, 2.0 * max(scene.size))
    num = 2 * math.ceil(0.5 * most_px / piece_px)
    s = (torch.arange(num + 1, device=x.device) - num // 2) * piece_px
    s = s.minimum(0.5 * length[..., None]).maximum(-0.5 * length[..., None])
    coarse, fine, grit = _noise(scene, num + 1, plane)
    part = s / length[..., None]  # -0.5 to 0.5
    depth = (lines["bias"][..., None] + 0.5 * coarse + 0.3 * fine + 0.12 * grit).clamp(0, 1)
    # Rise at the start, fall at the end.
    depth = depth * (part * math.pi).cos().clamp(min=0).sqrt()
    aside = (
        lines["bow"][..., None] * length[..., None] * part.square()
        + 0.08 * width_px[..., None] * grit
    )
    cos, sin = heading.cos()[..., None], heading.sin()[..., None]
    # Chords of half of the lines right through the window are more than there ever are.
    chord = math.hypot(height, width) / piece_px + 2.0
    return lay_pieces(
        x[..., None] + s * cos - aside * sin - scene.left,
        y[..., None] + s * sin + aside * cos - scene.top,
        half_width=0.5 * width_px[..., None] * (0.55 + 0.45 * depth),
        opacity=opacity[..., None] * depth,
        soft=(soft_px * scale)[:, None].expand_as(x),
        there=(s.diff(dim=-1) > 0.0) & (opacity > 0.0)[..., None],
        height=height,
        width=width,
        half_px=math.ceil(
            scale * (0.6 * PIECE_PX + 0.5 * _MOST_WIDTH_FILM_PX * most_film_px + 0.5 * most_soft_px)
            + 0.5
        ),
        most=math.ceil(0.5 * LINES * chord),
    )


def depth_colour(layer: OneChannel, channels: int, coloured: Tensor) -> Tensor:
    """How much of each channel a scratch takes along: all on the surface; deeper, that of its dyes.

    Args:
        layer: Opacity; the more of it, the deeper is the scratch.
        channels: 3, or 1 for the luma of the colour.
        coloured: (B,) bool, whether it is of colour film; else all channels are taken alike.

    Returns:
        Factors (B, channels, H, W) in [0, 1].
    """
    depth = per_pixel(coloured.to(layer.dtype)) * ((layer - 0.25) / 0.75).clamp(0, 1)
    # White, then green: red and blue go; then yellow: red comes back.
    red = 1.0 - 0.7 * (1.0 - (depth / 0.5 - 1.0).abs()).clamp(min=0)
    blue = 1.0 - 0.85 * (depth / 0.5).clamp(max=1)
    if channels == 1:
        return 0.299 * red + 0.587 + 0.114 * blue
    return torch.cat([red, torch.ones_like(red), blue], 1)


def _noise(scene: Scene, count: int, plane: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw normal noise at the nodes of each line: every 20 nodes, every 2, and at each."""
    words = scene.cells(0, 0, LINES, count, count=4, plane=plane)
    grit, fine = bits_to_normal(words[:, 0], words[:, 1])
    coarse, _ = bits_to_normal(words[:, 2], words[:, 3])
    return _between(coarse, 20), _between(fine, 2), grit


def _between(noise: Tensor, every: int) -> Tensor:
    """Take one number of `every` along the last axis and go straight from each to the next."""
    count = noise.shape[-1]
    at = torch.arange(count, device=noise.device)
    before = at // every
    part = (at - before * every) / every
    return torch.lerp(noise[..., before], noise[..., before + 1], part)
