"""Masks that people painted: one for a photograph, or a folder with the names of many."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from ..datasets.photos import find_photos
from .photos import Job
from .scans import read_pages


def pair_masks(
    jobs: Sequence[Job], masks: Path, inputs: Sequence[Path], *, use: Literal["mask", "damage"]
) -> list[Job]:
    """Give each photograph its mask.

    Args:
        jobs: The photographs.
        masks: The mask of the one photograph; or a folder, whose tree is that of the photographs,
            of masks called `{stem}` or `{stem}_mask`, or as `--save-mask` calls them.
        inputs: What was searched for the photographs.
        use: What white means: with `mask`, restore only here, and each photograph needs one; with
            `damage`, nothing is left here, and most photographs have none.

    Raises:
        ValueError: If there is one mask and several photographs, a mask that is needed is missing,
            two fit one photograph, or none fits any.
    """
    if not masks.is_dir():
        if not masks.exists():
            raise ValueError(f"no such file or folder: {masks}")
        if len(jobs) != 1:
            raise ValueError(
                f"{use} {masks} is one file, and there are {len(jobs)} photographs; give a folder "
                "of masks with the names of the photographs"
            )
        return [replace(jobs[0], **{use: masks})]
    roots = [root for root in inputs if root.is_dir()]
    by_name: dict[Path, list[Path]] = {}
    for path in find_photos(masks):
        by_name.setdefault(path.relative_to(masks).with_suffix(""), []).append(path)
    paired = []
    for job in jobs:
        root = next((root for root in roots if job.source.is_relative_to(root)), None)
        below = job.source.parent.relative_to(root) if root else Path()
        names = {job.source.stem, f"{job.source.stem}_mask", f"{job.target.stem}_mask"}
        fitting = [path for name in sorted(names) for path in by_name.get(below / name, ())]
        if len(fitting) > 1:
            raise ValueError(
                f"{fitting[0]} and {fitting[1]} would both be the {use} of {job.source}; leave one"
            )
        if not fitting and use == "mask":
            raise ValueError(
                f"there is no mask for {job.source} in {masks}; add {below / job.source.stem}.png, "
                "white where to restore"
            )
        paired.append(replace(job, **{use: fitting[0]}) if fitting else job)
    if all(getattr(job, use) is None for job in paired):
        raise ValueError(f"no picture in {masks} has the name of one of the photographs")
    return paired


def read_masks(path: Path, sizes: Sequence[tuple[int, int]]) -> list[UInt8[np.ndarray, "H W"]]:
    """Read the mask of each page of a photograph; one mask alone is that of every page.

    Args:
        path: A picture; of colours the mean counts.
        sizes: Height and width of each page.

    Returns:
        From 0, black, to 255, white.

    Raises:
        ValueError: If it cannot be read, or its pages or their sizes are not those of the
            photograph; the message begins with its name.
    """
    masks = [_gray(page.pixels) for page in read_pages(path)]
    if len(masks) == 1:
        masks *= len(sizes)
    if len(masks) != len(sizes):
        raise ValueError(f"{path}: has {len(masks)} pages, but the photograph {len(sizes)}")
    for mask, (height, width) in zip(masks, sizes, strict=True):
        if mask.shape != (height, width):
            raise ValueError(
                f"{path}: is {mask.shape[1]} x {mask.shape[0]} px, but the photograph "
                f"{width} x {height} px; a mask needs the same size"
            )
    return masks


def _gray(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return pixels if pixels.ndim == 2 else pixels.mean(2).round().astype(np.uint8)
