"""How fast shards become pairs on the device: the ladder of loaders on the same photos, and ours on
more and more processes; then crops on one core, sharding, starting, and the growth of memory.

Each loader runs alone in a process of its own, with as many workers or threads as there are cores.
From opening it to its first batch is a figure of its own; then batches are counted in windows.
Before that it shows that it does the same work: its aged pictures differ from the clean ones by the
same mean and spread. Photos are decoded all the time, but where `all in the pool` says otherwise;
how many crops came of a decode is counted where the loader tells.

For scaling, cores are dealt out evenly: with W processes each has the same number of cores for any
W, so an efficiency below 100 % is what they take from each other.
"""

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from agedphoto.datasets.codecs import Format

from . import crops
from .apart import barrier, processes, run_apart, run_in
from .ladder import Loader, Place, Rung, convert, rungs
from .made_up import enough_photos, make_photos, make_shards
from .record import Record, Recorder, Spread
from .settings import Settings, cores_for
from .timing import Usage, gpu_gib, wait

MADE_SIZE, SMALL_SIZE = (1356, 2040), (256, 384)
MADE_PHOTOS = 48
PHOTOS_A_PLACE = 12
"""Photos for each place of a batch. The pool holds four and a half: few are there from the epoch
before, and nearly each is decoded again."""
SLACK = 0.03
"""How far means and spreads of what loaders do may be apart, in units of full scale."""
CHECKED_BATCHES = 4


def run(settings: Settings, recorder: Recorder) -> Record:
    """Climb the ladder, then scale."""
    with tempfile.TemporaryDirectory() as temporary:
        photos, place = prepare(settings, Path(temporary))
        recorder.settings = describe(settings, place)
        ladder(settings, place, recorder)
        scaling(settings, place, recorder)
        crops.run(settings, photos, Path(temporary) / "crops", recorder)
    return recorder.finish()


def prepare(
    settings: Settings, folder: Path, *, batch_size: int | None = None
) -> tuple[Path, Place]:
    """Write the shards of each format, with enough photos that not all of them fit into a pool."""
    if batch_size is None:
        batch_size = 4 if settings.quick else 64 if settings.large else 8
    count = (PHOTOS_A_PLACE // 2 if settings.quick else PHOTOS_A_PLACE) * batch_size
    photos = settings.photos
    if photos is None:
        size = SMALL_SIZE if settings.quick else MADE_SIZE
        photos = make_photos(folder / "made-up", min(count, MADE_PHOTOS), size)
    photos = enough_photos(photos, folder / "photos", count)
    formats: tuple[Format, ...] = ("png", "htj2k")
    if settings.large or not settings.quick:
        formats += ("jpeg",)
    shards = {
        # Workers of others each want a shard of their own.
        format: make_shards(photos, folder / format, format, least_shards=2 * settings.cores)
        for format in formats
    }
    return photos, Place(
        shards=shards, device=str(settings.device), batch_size=batch_size,
        crop_px=64 if settings.quick else 256, threads=settings.cores,
    )  # fmt: skip


def describe(settings: Settings, place: Place) -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "photos": "given" if settings.photos else "made up",
        "batch_size": place.batch_size, "crop_px": place.crop_px, "workers": place.threads,
    }  # fmt: skip


def ladder(settings: Settings, place: Place, recorder: Recorder) -> None:
    """Measure every rung that can be had."""
    windows, window_s = (3, 0.2) if settings.quick else (7, 3.0)
    first: dict[str, float] | None = None
    for rung in rungs(settings, place):
        title = f"{rung.name}, {rung.format}, K {rung.K}"
        if rung.why_not:
            recorder.miss("ladder", title, rung.why_not)
            continue
        if settings.quick and rung.kind == "torchvision":
            recorder.miss(
                "ladder", title, "left out by --quick", command=settings.command("loader")
            )
            continue
        try:
            # A process that forks workers should have no threads of others.
            here = settings.quick and rung.kind in ("ours", "dali reader")
            found: dict[str, Any] = run_apart(measure, rung, place, windows, window_s, here=here)
            change: dict[str, float] = found["change"]
            first = first or change
            check_same(change, first)
        except Exception as error:
            recorder.fail("ladder", title, error)
            continue
        recorder.add(
            "ladder", rung.name, "pairs/s", Spread.of(found["rates"]), more=found["more"],
            format=rung.format, K=rung.K,
        )  # fmt: skip


def scaling(settings: Settings, place: Place, recorder: Recorder) -> None:
    """Measure ours on 1, 2, 4 ... processes, each with a core or more of its own."""
    counts = [count for count in (1, 2, 4, 8, 16) if count <= settings.cores]
    if settings.device.type != "cpu":
        recorder.miss("scaling", "processes on one GPU", "they would share it; see train for ranks")
        return
    if len(counts) < 2:
        recorder.miss("scaling", "several processes", "there is one core")
        return
    rung = Rung(name="agedphoto, CPU threads", kind="ours", format="htj2k", K=16)
    window_s = 0.5 if settings.quick else 6.0
    alone: float | None = None
    with processes(counts[-1]) as pool:
        for count in counts:
            try:
                rates = _together(pool, rung, place, count, counts[-1], 3, window_s)
            except Exception as error:
                recorder.fail("scaling", f"{count} processes", error)
                break
            spread = Spread.of(rates)
            alone = alone or spread.median
            recorder.add(
                "scaling", rung.name, "pairs/s", spread,
                more={"efficiency": spread.median / (alone * count)}, processes=count,
            )  # fmt: skip


def measure(rung: Rung, place: Place, windows: int, window_s: float) -> dict[str, Any]:
    """Open a loader and count its batches; for a process of its own."""
    convert(rung, place)
    device = torch.device(place.device)
    begun, before_gpu = time.perf_counter(), gpu_gib(device)
    loader = Loader(rung, place)
    batch = next(loader.batches)
    wait(device)
    first_batch_s = time.perf_counter() - begun
    changes = [batch, *(next(loader.batches) for _ in range(CHECKED_BATCHES - 1))]
    change = torch.cat([(one.aged.float() - one.clean.float()).flatten() for one in changes])
    del changes
    # What was made ahead while nobody asked must not count.
    _rate(loader, place, min(window_s, 1.0))
    decoded, usage, started = loader.decoded(), Usage.now(), time.perf_counter()
    rates, pairs = [], 0
    for _ in range(windows):
        rate, count = _rate(loader, place, window_s)
        rates.append(rate)
        pairs += count
    used, taken, now_decoded = Usage.now(), time.perf_counter() - started, loader.decoded()
    after_gpu = gpu_gib(device)
    more: dict[str, Any] = {"first_batch_s": first_batch_s}
    if usage and used:
        more |= {"cpu_cores": (used.cpu_s - usage.cpu_s) / taken, "rss_mib": used.rss_mib}
    if before_gpu is not None and after_gpu is not None:
        more["gpu_gib"] = after_gpu - before_gpu
    if decoded is not None and now_decoded is not None and now_decoded > decoded:
        more["crops_per_decode"] = pairs / (now_decoded - decoded)
    loader.close()
    found = {"mean": change.mean().item(), "spread": change.std().item()}
    return {"rates": rates, "more": more, "change": found}


def check_same(found: dict[str, float], first: dict[str, float]) -> None:
    """Raise RuntimeError unless a loader ages as the first one did."""
    for what, value in found.items():
        if not abs(value - first[what]) < SLACK:
            raise RuntimeError(
                f"not the same work: {what} of the change is {value:.3f}, not {first[what]:.3f}"
            )


def _together(
    pool: ProcessPoolExecutor,
    rung: Rung,
    place: Place,
    count: int,
    most: int,
    windows: int,
    window_s: float,
) -> list[float]:
    """Return the rate of all of `count` processes together, window by window."""
    sets = cores_for(most)
    manager, start = barrier(count)
    try:
        found = run_in(
            pool,
            measure_together,
            [
                (rung, place, rank, count, sets[rank] if sets else None, start, windows, window_s)
                for rank in range(count)
            ],
        )
    finally:
        manager.shutdown()
    return [sum(rates) for rates in zip(*found, strict=True)]


def measure_together(
    rung: Rung,
    place: Place,
    rank: int,
    count: int,
    cores: set[int] | None,
    start: Any,
    windows: int,
    window_s: float,
) -> list[float]:
    """Count the batches of one of several loaders at work; for a process of its own."""
    if cores is not None:
        os.sched_setaffinity(0, cores)
    threads = len(cores) if cores else 1
    torch.set_num_threads(threads)
    own = Place(
        shards=place.shards, device=place.device, batch_size=max(1, place.batch_size // 2),
        crop_px=place.crop_px, threads=threads, rank=rank, world_size=count,
    )  # fmt: skip
    loader = Loader(rung, own)
    next(loader.batches)
    rates = []
    for _ in range(windows):
        start.wait(timeout=300)
        rates.append(_rate(loader, own, window_s)[0])
    # Who is done must not leave its cores to others that still count.
    start.wait(timeout=300)
    loader.close()
    return rates


def _rate(loader: Loader, place: Place, window_s: float) -> tuple[float, int]:
    """Return pairs a second, and pairs, of a window."""
    wait(loader.device)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < window_s:
        next(loader.batches)
        count += place.batch_size
    wait(loader.device)
    return count / (time.perf_counter() - begun), count
