"""How much memory is free, on the host or on a device."""

import os
from pathlib import Path

import torch


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
    """What a container may still take (cgroup v2)."""
    group = Path("/sys/fs/cgroup")
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
