"""How large a tile may be, by the memory that there is."""

import os
from contextlib import suppress

import torch

from ..train import UNetConfig

USED_SHARE = 0.5
"""Of the free memory; the rest is for the picture itself and for others."""

_UNKNOWN_BYTES = 2 << 30
"""Taken to be free where the system does not say."""


def tile_px_for(config: UNetConfig, device: torch.device) -> int:
    """Return the side of the largest tile that fits into the memory which is free now."""
    return int((USED_SHARE * free_bytes(device) / bytes_per_pixel(config)) ** 0.5)


def bytes_per_pixel(config: UNetConfig) -> float:
    """Return what a network needs for each pixel of a tile, in float32.

    At the finest level there are six feature maps at a time: the one kept for the way up, and of a
    block what comes in, its sum, two in between and the workspace of a convolution. Coarser levels
    are small beside it.
    """
    maps = 6 * config.widths[0] / config.unshuffle**2
    return 4 * (maps + 4 * (config.in_channels + config.out_channels))


def free_bytes(device: torch.device) -> int:
    """Return how much memory is free on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What the allocator keeps but does not use is free for us.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    with suppress(OSError, ValueError, AttributeError, KeyError):
        # Free and what the system would give up for it; pages alone leave out its caches.
        with open("/proc/meminfo") as file:  # noqa: PTH123 - no file of a user's
            facts = dict(line.split(":", 1) for line in file)
        return int(facts["MemAvailable"].split()[0]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _UNKNOWN_BYTES


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is about memory; the CPU's allocator raises a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
