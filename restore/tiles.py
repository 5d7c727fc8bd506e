"""Pictures of any size through a network, in overlapping tiles that leave no seam.

Tiles lie on the grid of the network's coarsest level, so every pixel is computed as in one piece,
but for the borders of a tile, where the network cannot see on. Those are left out: neighbouring
tiles share `overlap_px`, of which the outer quarters are thrown away and the middle half is blended
by sin^2, cos^2 weights that add up to 1.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..train.unet import pad_to_multiple

Network = Callable[[Tensor], Tensor]


@torch.no_grad()
def apply_tiled(
    net: Network,
    picture: Tensor,
    *,
    stride: int,
    tile_px: int,
    overlap_px: int,
    device: torch.device,
    on_tile: Callable[[], object] = lambda: None,
) -> Tensor:
    """Apply `net` to a picture (C, H, W) tile by tile.

    Args:
        net: Maps (1, C, h, w) to (1, D, h, w) on `device`.
        picture: Float32, on the CPU; only one tile at a time goes to the device.
        stride: Pixels to one of the network's coarsest level.
        tile_px: Side of a tile, a multiple of `stride`. A picture that fits into one tile is done
            in one piece.
        overlap_px: What neighbours share, a multiple of `stride`, at most half of `tile_px`.
        device: Where the network is.
        on_tile: Called after each tile.

    Returns:
        Float32 (D, H, W) on the CPU.

    Raises:
        ValueError: If tile_px or overlap_px does not fit.
    """
    check_tiles(tile_px, overlap_px, stride=stride)
    _, height, width = picture.shape
    rows, columns = _spans(height, tile_px, overlap_px), _spans(width, tile_px, overlap_px)
    if len(rows) == len(columns) == 1:
        return _run(net, picture, device, on_tile)
    # Continued to the grid here, for the last tiles to end where one piece would.
    padded = pad_to_multiple(picture, stride)
    result: Tensor | None = None
    for top, bottom in rows:
        for left, end in columns:
            tile = _run(net, padded[:, top:bottom, left:end], device, on_tile)
            if result is None:
                result = torch.zeros(tile.shape[0], *padded.shape[1:])
            weight = _weights(top, bottom, padded.shape[1], overlap_px)[:, None] * _weights(
                left, end, padded.shape[2], overlap_px
            )
            result[:, top:bottom, left:end] += tile * weight
    assert result is not None
    return result[:, :height, :width]


def count_tiles(height: int, width: int, *, tile_px: int, overlap_px: int) -> int:
    """Return how many tiles a picture takes."""
    return len(_spans(height, tile_px, overlap_px)) * len(_spans(width, tile_px, overlap_px))


def check_tiles(tile_px: int, overlap_px: int, *, stride: int) -> None:
    """Raise ValueError if tiles of this size and overlap do not fit the network."""
    if overlap_px < 0 or overlap_px % stride:
        raise ValueError(f"overlap_px must be a multiple of {stride}, got {overlap_px}")
    least = max(2 * overlap_px, stride)
    if tile_px < least or tile_px % stride:
        raise ValueError(
            f"tile must be a multiple of {stride} px and at least {least} px (twice the overlap), "
            f"got {tile_px}"
        )


def _spans(length: int, tile_px: int, overlap_px: int) -> list[tuple[int, int]]:
    """Cut a length into tiles; the last may be shorter, never shorter than the overlap."""
    return list(_cut(length, tile_px, overlap_px))


def _cut(length: int, tile_px: int, overlap_px: int) -> Iterator[tuple[int, int]]:
    start = 0
    while length - start > tile_px:
        yield start, start + tile_px
        start += tile_px - overlap_px
    # An end beyond the picture is cut off by slicing, at the end of its continuation.
    yield start, start + tile_px


def _weights(start: int, end: int, length: int, overlap_px: int) -> Tensor:
    """Weights of a tile's pixels along one axis; those of all tiles add up to 1 everywhere."""
    end = min(end, length)
    weights = torch.ones(end - start)
    if overlap_px:
        place = (torch.arange(overlap_px) + 0.5) / overlap_px
        rise = torch.sin((place * 2 - 0.5).clamp(0, 1) * (math.pi / 2)).square()
        if start > 0:
            weights[:overlap_px] *= rise
        if end < length:
            weights[-overlap_px:] *= rise.flip(0)
    return weights


def _run(net: Network, tile: Tensor, device: torch.device, on_tile: Callable[[], object]) -> Tensor:
    # On MPS and CUDA the copy back waits for the tile, so `on_tile` tells the truth.
    done = net(tile[None].to(device)).float().cpu()[0]
    on_tile()
    return done
