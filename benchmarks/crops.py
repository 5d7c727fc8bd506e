"""From shards to crops on one core, ours and webdataset + Pillow; and how long sharding, verifying,
the first batch and going on from a saved place take, and how memory grows.

Work: crops of all photographs of a set, uint8, in batches; each photograph is read from a shard and
decoded once, and K crops are cut from it. Before anything is timed, every contender shows that each
crop is a part of the photograph that it says it is from, and that none is missing. Each contender
then runs alone in a process of its own, on one core, with one thread; its first pass is not
counted. The floor reads the bytes of the shards and does nothing with them.
"""

import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agedphoto.datasets import AgedPairs, open_index, write_shards
from agedphoto.datasets.cpu import CpuDecoder
from agedphoto.datasets.order import Order
from agedphoto.datasets.photos import find_photos, name_photos, read_photo
from agedphoto.datasets.pool import PhotoPool
from agedphoto.datasets.ranges import RangeReader
from agedphoto.datasets.supply import AHEAD_SHARE, Lookahead, PhotoSupply
from agedphoto.datasets.verify import verify_shards
from agedphoto.datasets.views import cut_crops
from agedphoto.textures import TextureBank

from .apart import run_apart
from .peers import load, why_absent
from .record import Recorder, Spread
from .settings import Settings
from .timing import Usage

Crop = tuple[str, int, int, np.ndarray]
"""Key of the photograph, top, left, pixels."""

CONTENDERS = (
    ("read only", "floor", "htj2k", 1),
    ("agedphoto", "ours", "htj2k", 1),
    ("agedphoto", "ours", "htj2k", 4),
    ("agedphoto", "ours", "htj2k", 16),
    ("agedphoto", "ours", "png", 16),
    ("webdataset + Pillow", "webdataset", "png", 1),
    ("webdataset + Pillow", "webdataset", "png", 4),
    ("webdataset + Pillow", "webdataset", "png", 16),
)
QUICK = (0, 3, 7)
"""Which of these --quick measures."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure; goes to processes of their own."""

    photos: Path
    shards: Path
    crop_px: int
    batch_size: int
    runs: int
    """Timed passes of each contender."""
    epochs: int
    """Passes over which the growth of memory is measured."""


def run(settings: Settings, photos: Path, work: Path, recorder: Recorder) -> None:
    """Shard, check, measure."""
    quick = settings.quick
    options = Options(
        photos=photos, shards=work, crop_px=64 if quick else 256, batch_size=4 if quick else 16,
        runs=2 if quick else 3, epochs=6 if quick else 30,
    )  # fmt: skip
    _shard(options, recorder)
    wanted = [CONTENDERS[number] for number in QUICK] if quick else list(CONTENDERS)
    if problem := why_absent("webdataset"):
        recorder.miss("crops on one core", "webdataset + Pillow", problem)
        wanted = [one for one in wanted if one[1] != "webdataset"]
    # Each alone in a process, unless time is short.
    for group in [wanted] if quick else [[one] for one in wanted]:
        title = ", ".join(f"{name}, {format}, K {K}" for name, _, format, K in group)
        try:
            found = run_apart(measure, options, [one[1:] for one in group])
        except Exception as error:
            recorder.fail("crops on one core", title, error)
            continue
        for (name, _, format, K), (seconds, num_photos) in zip(group, found, strict=True):
            spread = Spread.of_rates(num_photos * K, seconds)
            recorder.add(
                "crops on one core", name, "crops/s", spread,
                more={"photos_per_s": spread.median / K}, format=format, K=K,
            )  # fmt: skip
    _start_and_growth(options, recorder, here=quick)


def _shard(options: Options, recorder: Recorder) -> None:
    found = find_photos(options.photos)
    for format in ("htj2k", "png"):
        begun = time.perf_counter()
        write_shards(found, options.shards / format, root=options.photos, format=format)
        rate = len(found) / (time.perf_counter() - begun)
        index = open_index(options.shards / format)
        size = sum(shard.bytes for shard in index.shards)
        recorder.add(
            "shards", "sharding", "photos/s", Spread.of([rate]),
            more={"mb_in_per_s": rate * size / len(found) / 1e6}, format=format,
        )  # fmt: skip
        begun = time.perf_counter()
        faults = verify_shards(index).faults
        rate = len(found) / (time.perf_counter() - begun)
        if faults:
            raise RuntimeError(f"the shards are not as written: {faults[0]}")
        recorder.add(
            "shards", "verifying", "photos/s", Spread.of([rate]),
            more={"mb_in_per_s": rate * size / len(found) / 1e6}, format=format,
        )  # fmt: skip


def measure(
    options: Options, contenders: list[tuple[str, str, int]]
) -> list[tuple[list[float], int]]:
    """Measure contenders on one core; for a process of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    return [_measure(options, *one) for one in contenders]


def _measure(options: Options, who: str, format: str, crops: int) -> tuple[list[float], int]:
    """Check one contender, then time it; return seconds of passes, and how many photos in each."""
    contender = {"floor": _floor, "ours": _ours, "webdataset": _webdataset}[who]
    passes = contender(options.shards / format, crops, options)
    first = list(next(passes))
    if who != "floor":
        _check(first, crops, options)
    del first
    seconds = []
    for _ in range(options.runs):
        begun = time.perf_counter()
        for _ in next(passes):
            pass
        seconds.append(time.perf_counter() - begun)
    return seconds, len(open_index(options.shards / format))


def _check(crops: list[list[Crop]], crops_per_photo: int, options: Options) -> None:
    """Stop unless every photograph gave its crops and each crop is a part of it."""
    paths = find_photos(options.photos)
    photos = dict(zip(name_photos(paths, options.photos), paths, strict=True))
    found: Counter[str] = Counter()
    by_photo: dict[str, list[Crop]] = {}
    for crop in (crop for batch in crops for crop in batch):
        found[crop[0]] += 1
        by_photo.setdefault(crop[0], []).append(crop)
    if found != Counter(dict.fromkeys(photos, crops_per_photo)):
        raise RuntimeError(f"not all crops are there: {found}")
    for key, some in by_photo.items():
        photo = read_photo(photos[key])
        S = options.crop_px
        for _, top, left, pixels in some:
            if not np.array_equal(photo[top : top + S, left : left + S], pixels):
                raise RuntimeError(f"a crop of {key} is not a part of it")


def _floor(shards: Path, crops: int, options: Options) -> Iterator[Iterator[int]]:
    """Read every photograph's bytes, in the order in which they lie."""
    index, reader = open_index(shards), RangeReader()
    while True:
        yield (len(index.read_bytes(sample, reader)) for sample in range(len(index)))


def _ours(shards: Path, crops: int, options: Options) -> Iterator[Iterator[list[Crop]]]:
    """The order, the supply and the pool of AgedPairs, without ageing."""
    index, S = open_index(shards), options.crop_px
    order = Order(
        num_photos=len(index),
        crops_per_photo=crops,
        global_batch=options.batch_size,
        pad_last=True,
    )
    sizes = index.decoded_bytes
    rng = np.random.default_rng(0)

    def one_pass(epoch: int) -> Iterator[list[Crop]]:
        # New for each pass: what is in the pool from the last one would not be decoded again.
        pool = PhotoPool(int(sizes.sum()), device=torch.device("cpu"))
        decoder = CpuDecoder(index, RangeReader(), num_threads=1)
        supply = PhotoSupply(
            decoder, pool, samples=np.arange(len(index)),
            photo_bytes=sizes, most_decoding=4, on_error="raise",
            max_bad=0,
        )  # fmt: skip
        lanes = order.epoch(epoch, first_lane=0, num_lanes=options.batch_size)
        plan = (lanes.batch(number) for number in range(order.num_batches))
        ahead = Lookahead(
            plan, photo_bytes=sizes, most_batches=64, most_bytes=int(AHEAD_SHARE * sizes.sum())
        )
        for _ in range(order.num_batches):
            step, wanted = ahead.next()
            supply.bring(step.photos.tolist(), wanted)
            numbers = step.photos[step.valid]
            top = rng.integers(0, index.height[numbers] - S + 1)
            left = rng.integers(0, index.width[numbers] - S + 1)
            out = torch.empty((len(numbers), S, S, 3), dtype=torch.uint8)
            cut_crops([pool[n] for n in numbers.tolist()], top.tolist(), left.tolist(), out)
            keys = index.keys[numbers].tolist()
            yield list(zip(keys, top.tolist(), left.tolist(), out.numpy(), strict=True))
            ahead.done()
        decoder.close()

    epoch = 0
    while True:
        yield one_pass(epoch)
        epoch += 1


def _webdataset(shards: Path, crops: int, options: Options) -> Iterator[Iterator[list[Crop]]]:
    """As people do: decode with Pillow, cut, shuffle, batch."""
    wds = load("webdataset")
    S = options.crop_px
    rng = np.random.default_rng(0)
    tars = [str(path) for path in sorted(shards.glob("*.tar"))]

    def cut(samples: Iterator[dict[str, Any]]) -> Iterator[Crop]:
        for sample in samples:
            photo = np.asarray(sample["png"])
            for _ in range(crops):
                top = int(rng.integers(0, photo.shape[0] - S + 1))
                left = int(rng.integers(0, photo.shape[1] - S + 1))
                yield sample["__key__"], top, left, photo[top : top + S, left : left + S].copy()

    def one_pass() -> Iterator[list[Crop]]:
        dataset = wds.WebDataset(tars, shardshuffle=False, empty_check=False)
        stream = iter(
            wds.DataPipeline(dataset.decode("pilrgb"), cut, wds.shuffle(64, rng=random.Random(0)))
        )
        while batch := list(islice(stream, options.batch_size)):
            yield batch

    while True:
        yield one_pass()


def _start_and_growth(options: Options, recorder: Recorder, *, here: bool) -> None:
    """Time the first batch and going on from the middle; watch the memory of a process."""
    starts, resumes = run_apart(measure_starts, options, here=here)
    for name, seconds in (
        ("opening shards to the first batch", starts),
        ("opening shards to the batch after a saved place", resumes),
    ):
        recorder.add("start and growth", name, "s", Spread.of(seconds), higher_is_better=False)
    if problem := why_absent("psutil"):
        recorder.miss("start and growth", "growth of memory", problem)
        return
    growth, resident = run_apart(measure_growth, options, here=here)
    recorder.add(
        "start and growth", "growth of memory", "MiB/epoch", Spread.of([growth]),
        higher_is_better=False, more={"rss_mib": resident}, epochs=options.epochs,
    )  # fmt: skip


def _pairs_settings(options: Options) -> dict[str, Any]:
    return {
        "crop_px": options.crop_px, "batch_size": options.batch_size, "device": "cpu",
        "textures": TextureBank.synthesize(16), "rank": 0, "world_size": 1, "crops_per_photo": 8,
    }  # fmt: skip


def measure_starts(options: Options) -> tuple[list[float], list[float]]:
    """Return seconds from opening to the first batch, and to the batch after a saved place."""
    settings, shards = _pairs_settings(options), options.shards / "htj2k"

    def first_batch(state: dict[str, Any] | None = None) -> float:
        begun = time.perf_counter()
        with AgedPairs(shards, **settings) as pairs:
            if state:
                pairs.load_state_dict(state)
            next(iter(pairs))
            return time.perf_counter() - begun

    with AgedPairs(shards, **settings) as pairs:
        for _ in islice(pairs, max(1, len(pairs) // 2)):
            pass
        state = pairs.state_dict()
    return [first_batch() for _ in range(3)], [first_batch(state) for _ in range(3)]


def measure_growth(options: Options) -> tuple[float, float]:
    """Return MiB an epoch, and at last; photographs are decoded all the time."""
    index = open_index(options.shards / "htj2k")
    settings: dict[str, Any] = _pairs_settings(options) | {
        "crops_per_photo": 1, "mix_photos": 1, "batch_size": min(4, len(index)), "crop_px": 64
    }  # fmt: skip
    sizes = np.sort(index.decoded_bytes)[::-1]
    pool_bytes = int(sizes[: 3 * settings["batch_size"]].sum())
    resident = []
    with AgedPairs(
        options.shards / "htj2k", **settings, prefetch_batches=2, pool_bytes=pool_bytes
    ) as pairs:
        for _ in range(options.epochs):
            for _ in pairs:
                pass
            usage = Usage.now()
            assert usage
            resident.append(usage.rss_mib)
    settled = resident[len(resident) // 3 :]
    slope = float(np.polyfit(range(len(settled)), settled, 1)[0])
    return slope, statistics.median(settled[-3:])
