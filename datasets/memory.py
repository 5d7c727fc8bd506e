"""How much memory is free, on the host or on a device."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int


def choose_pool_bytes(
    wanted: int | Literal["auto"],
    *,
    photo_bytes: Int[np.ndarray, " N"],
    in_use: int,
    place: torch.device,
    sharing: int,
) -> int:
    """Settle the size of a pool of photos: what is wanted, but no more than all photos need.

    Args:
        wanted: Bytes, or "auto" for half of what is free.
        photo_bytes: Size of each photo.
        in_use: How many photos, the largest at worst, must fit at the same time.
        place: Where the pool is to be.
        sharing: Processes that take from the same memory.

    Raises:
        ValueError: If that is too little for the photos in use.
    """
    num = len(photo_bytes)
    least = int(np.partition(photo_bytes, max(0, num - in_use))[max(0, num - in_use) :].sum())
    everything = int(photo_bytes.sum())
    if wanted != "auto":
        if wanted < least:
            raise ValueError(
                f"pool_bytes is {wanted:,}, but photos in use need up to {least:,}; use at least "
                "that, or a smaller batch_size or mix_photos"
            )
        return min(everything, wanted)
    free = available_bytes(place) // sharing
    if free // 2 < least:
        raise ValueError(
            f"not enough memory on {place}: {free:,} bytes are free for this rank, half of them "
            f"are for the pool, and photos in use need up to {least:,}; use a smaller batch_size "
            "or mix_photos"
        )
    return min(everything, free // 2)


def available_bytes(device: torch.device) -> int:
    """Return the bytes that a new buffer on `device` could take without anything being evicted."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return _available_host_bytes()


def _available_host_bytes() -> int:
    limits = [_meminfo_available(), _cgroup_available()]
    known = [limit for limit in limits if limit is not None]
    if known:
        return min(known)
    if not hasattr(os, "sysconf"):
        # Windows does not tell: a cautious guess.
        return 4 * 2**30
    # macOS and others: half of what is built in.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _meminfo_available() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_available() -> int | None:
    """What this process may still take (cgroup v2): the least of its group and those above it."""
    top, own = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    lines = own.read_text().splitlines() if own.exists() else []
    path = next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")
    parts = [part for part in path.split("/") if part]
    groups = [top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    known = [free for group in groups if (free := _group_available(group)) is not None]
    return min(known, default=None)


def _group_available(group: Path) -> int | None:
    limit, used, details = (group / f"memory.{name}" for name in ("max", "current", "stat"))
    if not (limit.exists() and used.exists() and details.exists()):
        return None
    text = limit.read_text().strip()
    if text == "max":
        return None
    # Cached files count as used, but make room when asked: shards just read are no reason to fail.
    stat = dict(line.split() for line in details.read_text().splitlines())
    cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
    return max(0, int(text) - int(used.read_text()) + cached)
