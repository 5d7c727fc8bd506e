"""A picture of any size aged in bounded memory: tile by tile, with no seam.

A defect acts on a window as it does on the whole picture, if the window has as much more on all
sides as the defect reaches. So tiles are aged with a halo, which is cut off; nothing is blended,
and what comes out does not depend on where the tiles lie, to within rounding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Shaped, UInt8

from agedphoto.age_settled import settle
from agedphoto.synth import Ageing
from agedphoto.synth.ageing import WINDOW_STEP, exact_products
from agedphoto.synth.types import Keys, Params

TILE_PX = 1024
"""Side of the tiles, without the halo, of recipes that do not reach far."""
MOST_TILE_PX = 2048
"""Of those that do: a larger tile has less halo for each of its pixels, but takes more memory."""


@dataclass(frozen=True, slots=True)
class AgedPicture:
    """An aged picture, 8 bits deep."""

    aged: Shaped[np.ndarray, "..."]
    """(H, W) if there is no colour in it, else (H, W, 3)."""
    mask: Bool[np.ndarray, "H W"]
    """True where damage hides the picture."""


class Span(NamedTuple):
    """A tile along one axis: what it covers, and the window that is aged for it."""

    start: int
    end: int
    window_start: int
    window_end: int


@torch.no_grad()
def age_tiled(
    ageing: Ageing,
    picture: UInt8[np.ndarray, "H W 3"],
    params: list[Params],
    *,
    keys: Keys,
    tile_px: int | None = None,
    on_tile: Callable[[], object] = lambda: None,
) -> AgedPicture:
    """Age one picture.

    Args:
        ageing: What with, of mode `color` or `grayscale`.
        picture: sRGB, in host memory; one tile at a time goes to the device of the keys.
        params: What `ageing.sample` drew for `keys` and pictures of this size.
        keys: The key of the picture, (1,), on the device to work on.
        tile_px: Side of the tiles, a multiple of 16; None is what suits the recipe.
        on_tile: Called after each tile.

    Raises:
        ValueError: If tile_px does not fit, or a tile does not fit into the device's memory.
    """
    H, W, _ = picture.shape
    ageing = _for_one(ageing, params, keys)
    halo = round_up(ageing.recipe.reach_px((H, W)))
    tile = tile_px or min(max(TILE_PX, 4 * halo), MOST_TILE_PX)
    if tile % WINDOW_STEP:
        raise ValueError(f"tile_px must be a multiple of {WINDOW_STEP}, got {tile}")
    aged, mask = np.empty((H, W, 0), np.uint8), np.empty((H, W), bool)
    is_gray = True
    for y in spans(H, tile, halo):
        for x in spans(W, tile, halo):
            window = picture[y.window_start : y.window_end, x.window_start : x.window_end]
            # A copy in any case: an array that Pillow owns cannot be written to, so torch warns.
            planes = torch.from_numpy(np.array(window.transpose(2, 0, 1), order="C"))
            try:
                with exact_products():
                    done = ageing.apply(
                        planes[None].to(keys.device),
                        params,
                        keys=keys,
                        size=(H, W),
                        top=y.window_start,
                        left=x.window_start,
                    )
            except torch.OutOfMemoryError as error:
                raise ValueError(
                    f"not enough memory on {keys.device} for tiles of {tile} px; use --device cpu"
                ) from error
            rows = slice(y.start - y.window_start, y.end - y.window_start)
            columns = slice(x.start - x.window_start, x.end - x.window_start)
            levels = to_levels(done.aged[0, :, rows, columns]).permute(1, 2, 0).cpu().numpy()
            if not aged.shape[2]:
                aged = np.empty((H, W, levels.shape[2]), np.uint8)
            aged[y.start : y.end, x.start : x.end] = levels
            mask[y.start : y.end, x.start : x.end] = done.mask[0, 0, rows, columns].cpu().numpy()
            is_gray = is_gray and bool((levels == levels[:, :, :1]).all())
            on_tile()
    return AgedPicture(np.ascontiguousarray(aged[:, :, 0]) if is_gray else aged, mask)


def to_levels(x: torch.Tensor) -> torch.Tensor:
    """Round numbers in [0, 1] to 0..255."""
    return (x.float() * 255.0).round().to(torch.uint8)


def round_up(length_px: int) -> int:
    """Return the next multiple of the step that windows begin at."""
    return -(-length_px // WINDOW_STEP) * WINDOW_STEP


def spans(length: int, tile_px: int, halo_px: int) -> Iterator[Span]:
    """Cut a length into tiles; the last may be shorter, and windows end where the picture does."""
    for start in range(0, length, tile_px):
        end = min(start + tile_px, length)
        yield Span(start, end, max(start - halo_px, 0), min(end + halo_px, length))


def _for_one(ageing: Ageing, params: list[Params], keys: Keys) -> Ageing:
    """Return an ageing of this photograph alone, with the same textures."""
    textures = ageing.textures_on(keys.device) if ageing.recipe.uses_textures else None
    recipe = settle(ageing.recipe, params)
    return Ageing(recipe, mode=ageing.mode, textures=textures, augment=False, backend="eager")
