"""Restore a batch: files are read and encoded on threads around the one that has the network.

A photograph that cannot be done is told of and stops none of the others; a full disk stops all.
Results are written at once or not at all, so whatever ends a batch, what is there is whole.
"""

import errno
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..datasets.ahead import map_ahead
from ..datasets.files import write_bytes
from ..datasets.photos import PIXEL_LIMIT
from .masks import read_masks
from .own_colors import has_own_colors
from .photos import Job
from .restorer import Restorer
from .scans import WRITTEN_AS, Page, encode_pages, read_pages

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""Errors that will meet the other photographs too."""
VISIBLE = 4 / 255
"""A pixel has changed if one of its channels has by more than this; less is not seen."""

_AHEAD_BYTES = 512 << 20
_STRIP_PX = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What became of a photograph."""

    job: Job
    seconds: float = 0.0
    """From the first byte read to the last one written, without waiting."""
    error: str = ""
    """Why it was not restored; empty if it was."""
    skipped: bool = False
    """Its result was there already."""
    pages: int = 0
    width: int = 0
    """In pixels, upright; of the first page."""
    height: int = 0
    changed_share: float = 0.0
    """Share of the pixels that have changed visibly."""
    colored: bool = False
    """Whether colours were added."""
    rounded: bool = False
    """Whether 16 bits were rounded to the 8 of the format that was asked for."""


@dataclass(slots=True)
class _Work:
    """A photograph on its way."""

    job: Job
    pages: list[Page]
    masks: list[Any]
    damages: list[Any]
    found: list[np.ndarray]
    """Masks of damage, one for each page, if they are wanted."""
    done: Restored


def restore_photos(
    restorer: Restorer,
    jobs: Iterable[Job],
    *,
    coloring: Restorer | None = None,
    strength: float = 1.0,
    saturation: float = 1.0,
    temperature: float | None = None,
    tile: int | Literal["auto"] = "auto",
    quality: int = 95,
    may_round: bool = False,
    skip_existing: bool = False,
    num_threads: int = 1,
    pixel_limit: int = PIXEL_LIMIT,
    show: Callable[[Job, np.ndarray, np.ndarray], object] = lambda *_: None,
    on_tile: Callable[[], object] = lambda: None,
) -> Iterator[Restored]:
    """Restore photographs in order; one that cannot be done stops none of the others.

    Args:
        restorer: For photographs that are not to have colours added.
        jobs: Of `plan_jobs`.
        coloring: Gives colours to photographs that have none of their own; None leaves them gray.
        strength: 0 leaves photographs as they are, 1 restores fully.
        saturation: Of added colours; 0 is gray.
        temperature: Of added colours; lower is more vivid. None is the default.
        tile: Side in pixels of the tiles that large photographs are done in.
        quality: Of JPEG and other lossy formats, 1 to 100.
        may_round: Whether 16 bits become 8 where the format of the result holds no more; else such
            a photograph is an error.
        skip_existing: Results that are there stay.
        num_threads: Threads that read and encode; 1 is none beside the caller's, and least memory.
        pixel_limit: Photographs with more pixels are an error.
        show: Told the first page before and after.
        on_tile: Called after each tile.

    Raises:
        ValueError: If strength, tile or another option does not fit; nothing was done then.
        OSError: If the disk is full; no half-written file stays.
    """
    for one in (restorer, coloring):
        if one is not None:
            one.check(strength=strength, tile=tile)
    _check(quality, saturation, temperature, num_threads)
    steer = {} if saturation == 1 else {"saturation": saturation}
    steer |= {} if temperature is None else {"temperature": temperature}

    def read(job: Job) -> _Work:
        work = _Work(job, [], [], [], [], Restored(job=job))
        with _telling(work):
            if skip_existing and job.target.exists():
                work.done = replace(work.done, skipped=True)
            else:
                _read(work, pixel_limit)
        return work

    def answer(work: _Work) -> None:
        first, shares, pages = work.pages[0].pixels, [], []
        for number, page in enumerate(work.pages):
            adds_colors = coloring is not None and not has_own_colors(page.pixels)
            options: dict[str, Any] = {"strength": strength, "tile": tile, "on_tile": on_tile}
            options |= steer if adds_colors else {}
            options |= {"mask": work.masks[number]} if work.masks else {}
            options |= {"damage": work.damages[number]} if work.damages else {}
            options |= {"return_mask": True} if work.job.mask_target else {}
            chosen = coloring if coloring is not None and adds_colors else restorer
            result = chosen(page.pixels, **options)
            if work.job.mask_target:
                result, mask = result
                work.found.append(mask)
            result = _keep_gray(result, page, chosen)
            shares.append(changed_share(page.pixels, result))
            adds_colors = adds_colors and strength > 0
            work.done = replace(work.done, colored=work.done.colored or adds_colors)
            pages.append(_with_pixels(page, result, adds_colors))
        work.done = replace(work.done, changed_share=float(np.mean(shares)))
        work.pages = pages
        show(work.job, first, pages[0].pixels)

    def write(work: _Work) -> Restored:
        with _telling(work):
            _write(work, quality, may_round)
        return work.done

    if num_threads == 1:
        for job in jobs:
            work = read(job)
            if not (work.done.skipped or work.done.error):
                with _telling(work):
                    answer(work)
                if not work.done.error:
                    write(work)
            yield work.done
        return
    threads = ThreadPoolExecutor(num_threads, "restore")
    try:
        waiting: deque[Future[Restored]] = deque()
        for work in map_ahead(
            threads, read, jobs, ahead=num_threads, weigh=_bytes, ahead_bytes=_AHEAD_BYTES
        ):
            if not (work.done.skipped or work.done.error):
                with _telling(work):
                    answer(work)
            if work.done.skipped or work.done.error:
                done: Future[Restored] = Future()
                done.set_result(work.done)
                waiting.append(done)
            else:
                waiting.append(threads.submit(write, work))
            del work
            while waiting and (len(waiting) > num_threads or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # What is being written is finished; nothing else is begun.
        threads.shutdown(wait=True, cancel_futures=True)


def changed_share(before: np.ndarray, after: np.ndarray) -> float:
    """Return which share of the pixels has changed visibly.

    Args:
        before: (H, W) or (H, W, 3), uint8 or uint16.
        after: As large and deep; gray may have become colour.
    """
    H, W = before.shape[:2]
    limit = int(VISIBLE * np.iinfo(before.dtype).max)
    rows = max(1, _STRIP_PX // W)
    changed = 0
    for top in range(0, H, rows):
        one = np.atleast_3d(before[top : top + rows]).astype(np.int32)
        change = np.abs(one - np.atleast_3d(after[top : top + rows]))
        changed += int((change.max(2) > limit).sum())
    return changed / (H * W)


def _check(quality: int, saturation: float, temperature: float | None, num_threads: int) -> None:
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    if not 0 <= saturation <= 4:
        raise ValueError(f"saturation must be 0 to 4, got {saturation}")
    if temperature is not None and not 0 < temperature <= 4:
        raise ValueError(f"temperature must be above 0 and at most 4, got {temperature}")
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}")


@contextmanager
def _telling(work: _Work) -> Iterator[None]:
    """Count the seconds of the block; what stops it, but for a full disk, is told of."""
    begun = time.perf_counter()
    error = ""
    name = str(work.job.source)
    try:
        yield
    except ValueError as reason:
        error = str(reason)
    except OSError as reason:
        if reason.errno in DISK_IS_FULL:
            raise
        error = f"{reason.strerror or reason}: {reason.filename or work.job.target}"
    except (MemoryError, RuntimeError) as reason:
        # Such as a network that does not fit into memory at this size; the next may.
        error = f"{type(reason).__name__}: {reason}"
    if error and not error.startswith(name):
        error = f"{name}: {error}"
    seconds = work.done.seconds + time.perf_counter() - begun
    work.done = replace(work.done, seconds=seconds, error=error)
    if error:
        work.pages, work.masks, work.damages, work.found = [], [], [], []


def _read(work: _Work, pixel_limit: int) -> None:
    work.pages = read_pages(work.job.source, pixel_limit=pixel_limit)
    sizes = [(page.pixels.shape[0], page.pixels.shape[1]) for page in work.pages]
    if work.job.mask is not None:
        work.masks = read_masks(work.job.mask, sizes)
    if work.job.damage is not None:
        work.damages = read_masks(work.job.damage, sizes)
    height, width = sizes[0]
    work.done = replace(work.done, pages=len(sizes), height=height, width=width)


def _bytes(work: _Work) -> int:
    """Return what a photograph that waits takes."""
    return sum(page.pixels.nbytes for page in work.pages)


def _keep_gray(pixels: np.ndarray, page: Page, restorer: Restorer) -> np.ndarray:
    """Return a gray photograph gray, if colours were not what its network is for."""
    if page.pixels.ndim == 3 or pixels.ndim == 2 or restorer.mode != "color":
        return pixels
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return (luma + 0.5).astype(pixels.dtype)


def _with_pixels(page: Page, pixels: np.ndarray, adds_colors: bool) -> Page:
    """Return a page with other pixels; those with colours added are sRGB."""
    holds = pixels.ndim == page.pixels.ndim and not adds_colors
    return replace(page, pixels=pixels, icc_profile=page.icc_profile if holds else None)


def _write(work: _Work, quality: int, may_round: bool) -> None:
    """Encode and write the result, and before it its mask."""
    job, pages = work.job, work.pages
    format = WRITTEN_AS[job.target.suffix.lower()]
    try:
        data = encode_pages(pages, format, quality=quality)
    except ValueError:
        deep = any(page.pixels.dtype == np.uint16 for page in pages)
        if not (may_round and deep):
            raise
        pages = [_rounded(page) for page in pages]
        data = encode_pages(pages, format, quality=quality)
        work.done = replace(work.done, rounded=True)
    if job.mask_target is not None:
        several = len(work.found) > 1
        path = job.mask_target.with_suffix(".tif") if several else job.mask_target
        masks = [_mask_page(mask) for mask in work.found]
        write_bytes(path, encode_pages(masks, "TIFF" if several else "PNG"))
    write_bytes(job.target, data)


def _rounded(page: Page) -> Page:
    """Return a page in 8 bits."""

    def to_8_bits(values: np.ndarray) -> np.ndarray:
        if values.dtype != np.uint16:
            return values
        # 257 = 65535 / 255.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)

    alpha = None if page.alpha is None else to_8_bits(page.alpha)
    return replace(page, pixels=to_8_bits(page.pixels), alpha=alpha)


def _mask_page(mask: np.ndarray) -> Page:
    pixels = mask if mask.ndim == 2 else mask[:, :, 0]
    if pixels.dtype.kind == "f":
        pixels = (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return Page(pixels=pixels)
