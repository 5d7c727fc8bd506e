"""Endless textures: a bank of wear made afresh on the device, in place of one that is kept.

The maps of dust, dirt, hairs and scratches are drawn on squares that go on at their opposite sides:
marks are strewn in a grid of cells that repeats, and scratches that leave the square are folded
back into it. A texture of 1024 px takes some 0.3 s of one CPU core and milliseconds of a GPU.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..textures import TextureBank
from .dirt import dirt_map
from .dust import CELL_PX, dust_map, normals
from .hairs import hairs_map
from .keys import sample_keys
from .ranges import spread
from .scene import Scene
from .scratches import LINE_DRAWS, draw_lines, scratches_map
from .types import Keys, OneChannel, PerImage

ENDLESS_FAMILIES = ("dust", "hairs", "scratches", "mixed")
"""Families of endless textures, in the order in which a bank cycles through them."""

_AMOUNTS = {
    "dust": (1.2, 1.2, 0.25, 0.0),
    "hairs": (0.4, 0.4, 2.8, 0.0),
    "scratches": (0.4, 0.4, 0.2, 12.0),
    "mixed": (0.8, 0.8, 1.1, 3.0),
}
"""Dust, dirt, hairs and scratches in multiples of the mean film frame: none comes alone."""

FILM_PX = (0.2, 0.4)
"""Pixels of a texture to a film pixel of 7 um, uniform in this range for each texture."""

_SOFT_PX = (0.9, 1.5)

_MOST_SCRATCHED = 3.0
"""Times the mean film frame, from which on there are not places enough on a square."""

_AT_ONCE_PX = 4 * 1024 * 1024


def endless_textures(
    seed: int,
    epoch: int,
    *,
    count: int = 64,
    size_px: int = 1024,
    families: Sequence[str] = ENDLESS_FAMILIES,
    device: torch.device | str = "cpu",
) -> TextureBank:
    """Draw a bank of textures that tile without a seam, on dark ground.

    Each depends only on the seed, the epoch, its number, its family and the size: other epochs have
    other textures, a smaller bank is the start of a larger one.

    Args:
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**32 - 1.
        count: How many, at least 1.
        size_px: Side of each, at least 64. Marks are as large and as dense at any size.
        families: Texture number i is of family i modulo their number.
        device: Where they are made and stay.

    Raises:
        ValueError: If an argument is out of range or a family is unknown.
    """
    for name, value, least in (("count", count, 1), ("size_px", size_px, 64)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"{name} must be a whole number, at least {least}, got {value!r}; use {least} or "
                "more"
            )
    families = (families,) if isinstance(families, str) else tuple(families)
    unknown = [family for family in families if family not in ENDLESS_FAMILIES]
    if unknown or not families:
        raise ValueError(
            f"families must be one or more of {', '.join(ENDLESS_FAMILIES)}, got "
            f"{', '.join(map(repr, unknown)) or 'none'}; leave it out to have them all"
        )
    # Numbers below 0, which no photograph has: wear is not drawn with a photograph's key.
    numbers = torch.arange(count, device=device)
    keys = sample_keys(seed, epoch, -1 - numbers, torch.zeros_like(numbers))
    sheets = torch.empty((count, size_px, size_px), dtype=torch.uint8, device=device)
    # Few at a time: a whole bank in float32 with all its patches would take gigabytes.
    group = max(1, _AT_ONCE_PX // size_px**2)
    for number, family in enumerate(families):
        every = slice(number, None, len(families))
        for some, sheet in zip(keys[every].split(group), sheets[every].split(group), strict=True):
            opacity = _wear(some, _AMOUNTS[family], size_px)
            sheet.copy_((opacity[:, 0] * 255.0).round())
    names = tuple(f"{families[i % len(families)]}-{i:04d}" for i in range(count))
    return TextureBank(sheets, names)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sheet(Scene):
    """A square whose marks are of the same size at any size, and whose cells repeat."""

    num_cells: int
    """Along each side."""
    repeats: bool = True
    """Whether cells repeat beyond its sides."""

    @property
    def scale(self) -> float:
        """So that a whole number of cells makes a side."""
        return self.size[0] / (self.num_cells * CELL_PX)

    def cells(
        self, top: int, left: int, height: int, width: int, *, count: int, plane: int
    ) -> Int[Tensor, "B count height width"]:
        """Draw 32-bit words for each cell, those of a square over and over."""
        if not self.repeats:
            # Not super(): a dataclass with slots is made anew, and super() is of the first one.
            return Scene.cells(self, top, left, height, width, count=count, plane=plane)
        n = self.num_cells
        words = Scene.cells(self, 0, 0, n, n, count=count, plane=plane)
        rows = torch.arange(top, top + height, device=words.device) % n
        columns = torch.arange(left, left + width, device=words.device) % n
        return words[:, :, rows[:, None], columns]


def _wear(keys: Keys, amounts: tuple[float, float, float, float], size_px: int) -> OneChannel:
    """Draw the opacity of textures with so much dust, dirt, hairs and scratches."""
    sheet = _Sheet(
        keys=keys,
        op=0,
        size=(size_px, size_px),
        severity=torch.ones(len(keys), device=keys.device),
        num_cells=max(1, round(size_px / CELL_PX)),
    )
    u = sheet.uniform(10)
    n = normals(u[:, :6])
    # Real frames differ tenfold; beyond this range little is left of a photograph, or of the wear.
    wear = (0.65 * n[:, 0]).exp().clamp(0.25, 2.3)
    lens: dict[str, Any] = {
        "film_px": spread(u[:, 6], FILM_PX),
        "soft_px": spread(u[:, 7], _SOFT_PX),
    }
    dim = spread(u[:, 8], (0.28, 0.45))
    given: dict[str, Any] = lens | {
        "opacity": dim,
        "most_film_px": FILM_PX[1],
        "most_soft_px": _SOFT_PX[1],
    }
    some = [wear * amount * (0.3 * n[:, 1 + i]).exp() for i, amount in enumerate(amounts)]
    even, bunched = torch.full_like(wear, 0.2), torch.full_like(wear, 0.6)
    S = size_px
    layers = [
        dust_map(replace(sheet, op=0), S, S, density=some[0], clustering=bunched, **given),
        dirt_map(replace(sheet, op=1), S, S, density=some[1], clustering=bunched, **given),
        hairs_map(replace(sheet, op=2), S, S, density=some[2], clustering=even, **given),
    ]
    # A square has places for a few scratches only, so many are drawn in turns.
    turns = math.ceil(amounts[3] / _MOST_SCRATCHED)
    for turn in range(turns):
        layers.append(
            _scratches(
                replace(sheet, op=3 + turn),
                density=some[3] / turns,
                upright=u[:, 9] < 0.5,
                opacity=1.6 * dim,
                **lens,
            )
        )
    return torch.stack(layers).amax(0)


def _scratches(
    sheet: _Sheet,
    *,
    density: PerImage,
    upright: Bool[Tensor, " B"],
    film_px: PerImage,
    soft_px: PerImage,
    opacity: PerImage,
) -> OneChannel:
    """Draw scratches on four squares, half a square about the one, and fold them into one."""
    S, half = sheet.size[0], sheet.size[0] // 2
    around = replace(sheet, repeats=False, top=-half, left=-half)
    lines = draw_lines(
        around, around.uniform(LINE_DRAWS), density=density, film_px=film_px, opacity=opacity,
        upright=upright, long=0.1, within=True,
    )  # fmt: skip
    four = scratches_map(
        around, 2 * S, 2 * S, lines, soft_px=soft_px, most_film_px=FILM_PX[1],
        most_soft_px=_SOFT_PX[1],
    )  # fmt: skip
    folded = four.unflatten(3, (2, S)).unflatten(2, (2, S)).amax((2, 4))
    return folded.roll((-half, -half), (2, 3))
