"""Time, processor time and memory of what runs: the device idle at both ends of a timed run."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from .peers import why_absent

WARM_UP = 3


def time_runs(
    run: Callable[[], Any],
    device: torch.device,
    *,
    runs: int,
    budget_s: float = float("inf"),
    launches: int = 1,
    warm_up: int = WARM_UP,
) -> list[float]:
    """Return the seconds of each of so many runs, after some that are not counted.

    Args:
        run: What to time.
        device: What it runs on.
        runs: How many; at least two are timed however long they take.
        budget_s: When to stop, if that comes sooner.
        launches: Runs between two waits, where one takes less time than waiting for it.
        warm_up: Runs that are not counted; one, where it takes more than the budget.
    """
    begun = time.perf_counter()
    for _ in range(warm_up):
        run()
        if time.perf_counter() - begun > budget_s:
            break
    begun, seconds = time.perf_counter(), []
    while len(seconds) < runs and (len(seconds) < 2 or time.perf_counter() - begun < budget_s):
        seconds.append(seconds_of(run, launches, device) / launches)
    return seconds


def seconds_of(run: Callable[[], Any], times: int, device: torch.device) -> float:
    """Time so many runs together, from one idle device to the next."""
    wait(device)
    begun = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return time.perf_counter() - begun


def wait(device: torch.device) -> None:
    """Return when the device is idle."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a process and those it started take."""

    cpu_s: float
    """Processor time so far."""
    rss_mib: float
    """Memory; what several of them share is counted once where the system tells."""

    @classmethod
    def now(cls) -> "Usage | None":
        """Look; None without psutil."""
        if why_absent("psutil"):
            return None
        import psutil

        own = psutil.Process()
        cpu_s = memory = 0.0
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.Error):
                times = process.cpu_times()
                cpu_s += times.user + times.system
                full = process.memory_full_info()
                memory += getattr(full, "pss", full.rss)
        # Those that have ended meanwhile.
        ended = own.cpu_times()
        cpu_s += getattr(ended, "children_user", 0.0) + getattr(ended, "children_system", 0.0)
        return cls(cpu_s=cpu_s, rss_mib=memory / 2**20)


def gpu_gib(device: torch.device) -> float | None:
    """Memory of a GPU that is taken, by whomever: libraries allocate beside PyTorch."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**30
