"""What a benchmark is told: the device, how large, and what to measure on."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from agedphoto.datasets import find_photos, open_index
from agedphoto.datasets.workers import num_cores
from agedphoto.evaluate_photos import find_subjects
from agedphoto.restore import find_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The same for all benchmarks."""

    device: torch.device
    quick: bool = False
    """Small sizes and few runs, to see that it works."""
    photos: Path | None = None
    """Folder of photos to decode and load; some are made up if None."""
    shards: str | None = None
    """Shards to train on; some are made up if None."""
    model: str | None = None
    """Model to restore with."""
    held_out: Path | None = None
    """Folder of photos for the quality clock."""
    budgets_s: tuple[float, ...] = ()
    """Seconds of training at which the quality clock looks."""
    cores: int = field(default_factory=num_cores)

    @property
    def large(self) -> bool:
        """Whether the device is one for large batches."""
        return self.device.type == "cuda"

    def command(self, what: str) -> str:
        """Return the command that measures `what` in full, on a machine that can."""
        return f"agedphoto bench {what}"


def check_sources(settings: Settings) -> None:
    """Open what was named, before minutes go by.

    Raises:
        ValueError: If something is not there, or is something else.
        OSError: If it cannot be read.
    """
    if settings.photos:
        find_photos(settings.photos)
    if settings.shards:
        open_index(settings.shards, split="train")
    if settings.held_out:
        find_subjects([str(settings.held_out)])
    if settings.model:
        find_model(settings.model)
    for seconds in settings.budgets_s:
        if not 0 < seconds < float("inf"):
            raise ValueError(f"budgets_s must be seconds above 0, got {seconds}")


def cores_for(count: int) -> list[set[int]] | None:
    """Return disjoint sets of this process's cores, one for each of `count`; None if it cannot."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    mine = sorted(os.sched_getaffinity(0))
    each = len(mine) // count
    if not each:
        return None
    return [set(mine[number * each : (number + 1) * each]) for number in range(count)]
