"""Pictures of any size through a network, in overlapping tiles that leave no seam.

Tiles lie on the grid of the network's coarsest level, so every pixel is computed as in one piece,
but for the borders of a tile, where the network cannot see on. Those are left out: neighbouring
tiles share `overlap_px`, of which three eighths at either end are thrown away, and the quarter in
the middle is blended by sin^2, cos^2 weights that add up to 1.

A row of tiles at a time: what is kept in memory is one strip of the picture, however large it is.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..train.unet import UNetConfig, pad_to_multiple

Network = Callable[[Tensor], Tensor]

THROWN_SHARE = 3 / 8
"""Of an overlap, at either end."""
REACH_SIGMAS = 3.1
"""How far from its border a tile is thrown away, in standard deviations of the network's reach. At
2.4 the shipped networks still have seams of three 8-bit steps, at 3.1 of a tenth of one."""


def overlap_px_for(config: UNetConfig) -> int:
    """Return what neighbouring tiles have to share for a network.

    What a pixel counts for its surroundings falls off as a Gaussian does: every convolution of
    3 x 3 in turn spreads it, by a variance of 2/3 of its stride squared (Luo et al., "Understanding
    the effective receptive field in deep convolutional neural networks", NIPS 2016).
    """
    variance, levels = 0.0, len(config.widths)
    for level in range(levels):
        # On the way down and up again, two in each block; the stem and the tail at the finest.
        blocks = config.middle_blocks if level == levels - 1 else 2 * config.blocks
        convolutions = 2 * blocks + 2 * (level == 0)
        variance += convolutions * (2 / 3) * (config.unshuffle * 2**level) ** 2
    wanted = REACH_SIGMAS * variance**0.5 / THROWN_SHARE
    return math.ceil(wanted / config.stride) * config.stride


class Strip(NamedTuple):
    """Some finished rows of a picture."""

    rows: slice
    """Which."""
    answer: Tensor
    """Float32 (D, h, W) on the CPU."""


@torch.no_grad()
def apply_tiled(
    net: Network,
    picture: Tensor,
    *,
    stride: int,
    tile_px: int,
    overlap_px: int,
    device: torch.device,
    at_once: int = 1,
    on_tile: Callable[[], object] = lambda: None,
) -> Tensor:
    """Apply `net` to a picture (C, H, W) tile by tile.

    Args:
        net: Maps (B, C, h, w) to (B, D, h, w) on `device`.
        picture: Float32, on the CPU; only the tiles under way go to the device.
        stride: Pixels to one of the network's coarsest level.
        tile_px: Side of a tile, a multiple of `stride`. A picture that fits into one tile is done
            in one piece.
        overlap_px: What neighbours share, a multiple of `stride`, at most half of `tile_px`.
        device: Where the network is.
        at_once: How many tiles of a row go through the network at a time, at most.
        on_tile: Called after each tile.

    Returns:
        Float32 (D, H, W) on the CPU.

    Raises:
        ValueError: If tile_px or overlap_px does not fit.
    """
    strips = tiled_strips(
        net,
        lambda top, bottom: picture[:, top:bottom],
        size=(picture.shape[1], picture.shape[2]),
        stride=stride,
        tile_px=tile_px,
        overlap_px=overlap_px,
        device=device,
        at_once=at_once,
        on_tile=on_tile,
    )
    return torch.cat([strip.answer for strip in strips], dim=1)


@torch.no_grad()
def tiled_strips(
    net: Network,
    read_rows: Callable[[int, int], Tensor],
    *,
    size: tuple[int, int],
    stride: int,
    tile_px: int,
    overlap_px: int,
    device: torch.device,
    at_once: int = 1,
    on_tile: Callable[[], object] = lambda: None,
) -> Iterator[Strip]:
    """Apply `net` to a picture that is read as it goes, and yield its rows from top to bottom.

    Args:
        net: As of `apply_tiled`.
        read_rows: Returns the rows from a first to before a last one: float32 (C, h, W), CPU. The
            rows that two rows of tiles share are read twice.
        size: Height and width of the picture.
        stride: As of `apply_tiled`.
        tile_px: As of `apply_tiled`.
        overlap_px: As of `apply_tiled`.
        device: As of `apply_tiled`.
        at_once: As of `apply_tiled`.
        on_tile: As of `apply_tiled`.

    Raises:
        ValueError: If tile_px or overlap_px does not fit.
    """
    check_tiles(tile_px, overlap_px, stride=stride)
    height, width = size
    rows, columns = _spans(height, tile_px, overlap_px), _spans(width, tile_px, overlap_px)
    if len(rows) == len(columns) == 1:
        (answer,) = _run(net, [read_rows(0, height)], device, on_tile)
        yield Strip(slice(0, height), answer)
        return
    # Continued to the grid here, for the last tiles to end where one piece would.
    full_height, full_width = height + -height % stride, width + -width % stride
    begun: Tensor | None = None  # what the tiles above have added to the rows shared with them
    for top, bottom in rows:
        bottom = min(bottom, full_height)
        strip = _read_to_grid(read_rows, top, bottom, height, stride)
        answer: Tensor | None = None
        across = _weights(top, bottom, full_height, overlap_px)[:, None]
        for group in _of_one_width(columns, full_width, at_once):
            tiles = _run(net, [strip[:, :, left:end] for left, end in group], device, on_tile)
            for (left, end), tile in zip(group, tiles, strict=True):
                if answer is None:
                    answer = torch.zeros(tile.shape[0], bottom - top, full_width)
                weight = across * _weights(left, end, full_width, overlap_px)
                answer[:, :, left:end] += tile * weight
        assert answer is not None
        if begun is not None:
            answer[:, : begun.shape[1]] += begun
        finished = bottom - top if bottom == full_height else bottom - top - overlap_px
        begun = answer[:, finished:].clone()
        yield Strip(
            slice(top, min(top + finished, height)),
            answer[:, : min(finished, height - top), :width],
        )


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


def _read_to_grid(
    read_rows: Callable[[int, int], Tensor], top: int, bottom: int, height: int, stride: int
) -> Tensor:
    """Return rows of the picture as continued to the grid, mirrored at its lower end."""
    if bottom <= height:
        # The width alone has to be continued: by as many rows as there are, or the mirror of the
        # lower end, which these rows do not touch.
        rows = read_rows(top, bottom)
        return pad_to_multiple(rows, stride)
    # From higher up, if this strip alone is too low to mirror as the whole picture is.
    start = max(0, min(top, height - 2 * stride) // stride * stride)
    return pad_to_multiple(read_rows(start, height), stride)[:, top - start :]


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


def _of_one_width(
    columns: list[tuple[int, int]], full_width: int, at_once: int
) -> Iterator[list[tuple[int, int]]]:
    """Group columns that can be one batch; the last one of a row may be narrower."""
    last_is_narrower = columns[-1][1] > full_width
    whole = columns[:-1] if last_is_narrower else columns
    for first in range(0, len(whole), at_once):
        yield whole[first : first + at_once]
    if last_is_narrower:
        yield columns[-1:]


def _weights(start: int, end: int, length: int, overlap_px: int) -> Tensor:
    """Weights of a tile's pixels along one axis; those of all tiles add up to 1 everywhere."""
    end = min(end, length)
    weights = torch.ones(end - start)
    if overlap_px:
        place = (torch.arange(overlap_px) + 0.5) / overlap_px
        blended = (place - THROWN_SHARE) / (1 - 2 * THROWN_SHARE)
        rise = torch.sin(blended.clamp(0, 1) * (math.pi / 2)).square()
        if start > 0:
            weights[:overlap_px] *= rise
        if end < length:
            weights[-overlap_px:] *= rise.flip(0)
    return weights


def _run(
    net: Network, tiles: list[Tensor], device: torch.device, on_tile: Callable[[], object]
) -> Tensor:
    # On MPS and CUDA the copy back waits for the tiles, so `on_tile` tells the truth.
    done = net(torch.stack(tiles).to(device)).float().cpu()
    for _ in tiles:
        on_tile()
    return done
