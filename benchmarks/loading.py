"""How fast photographs become crops: shards to batches on one core, ours and webdataset + Pillow.

Work: 256 px crops of all photographs of a set, uint8, in batches; each photograph is read from a
shard and decoded once, and K crops are cut from it. Before anything is timed, every contender shows
that each crop is a part of the photograph that it says it is from, and that none is missing. Each
contender then runs alone in a process of its own, on one core, with one thread; its first pass is
not counted. The floor reads the bytes of the shards and does nothing with them.

Beside it, with all cores: how long sharding, verifying, the first batch and going on from a saved
place take, and how memory grows.

    python benchmarks/loading.py PHOTOS --out benchmarks/results
"""

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
import tyro

from agedphoto.datasets import AgedPairs, open_index, write_shards
from agedphoto.datasets.cpu import CpuDecoder
from agedphoto.datasets.files import write_json
from agedphoto.datasets.order import Order
from agedphoto.datasets.photos import find_photos, name_photos, read_photo
from agedphoto.datasets.pool import PhotoPool
from agedphoto.datasets.ranges import RangeReader
from agedphoto.datasets.supply import AHEAD_SHARE, Lookahead, PhotoSupply
from agedphoto.datasets.verify import verify_shards
from agedphoto.datasets.views import cut_crops
from agedphoto.machine import hardware, versions
from agedphoto.textures import TextureBank

Crop = tuple[str, int, int, np.ndarray]
"""Key of the photograph, top, left, pixels."""

CONTENDERS = (
    ("read only", "floor", "htj2k", 1),
    ("agedphoto, HTJ2K", "ours", "htj2k", 1),
    ("agedphoto, HTJ2K", "ours", "htj2k", 4),
    ("agedphoto, HTJ2K", "ours", "htj2k", 16),
    ("agedphoto, PNG", "ours", "png", 16),
    ("webdataset + Pillow, PNG", "webdataset", "png", 1),
    ("webdataset + Pillow, PNG", "webdataset", "png", 4),
    ("webdataset + Pillow, PNG", "webdataset", "png", 16),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    photos: tyro.conf.Positional[Path]
    """Folder of photographs, such as DIV2K_train_HR."""
    crop_px: int = 256
    """Side of the crops."""
    batch_size: int = 16
    """Crops of a batch."""
    runs: int = 3
    """Timed passes of each contender."""
    epochs: int = 30
    """Passes over which the growth of memory is measured."""
    out: Path | None = None
    """Folder for the results as JSON."""
    shards: Path | None = None
    """Folder to keep the shards in; a temporary one if not given."""
    only: tuple[Literal["floor", "ours", "webdataset"], str, int] | None = None
    """One contender: who, format, K. Used by this script itself."""


def main(options: Options) -> None:
    """Shard, check, measure, print, and write."""
    if options.only:
        print(json.dumps(_measure(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = options.shards or Path(temporary)
        record = {"sharding": _shard(options.photos, work)}
        rows = []
        for name, who, format, crops in CONTENDERS:
            measured = _alone(options, work, who, format, crops)
            rows.append({"name": name, "crops_per_photo": crops, **measured})
            print(
                f"{name:<26} K {crops:>2}  {measured['crops_per_s']:>9,.0f} crops/s a core, "
                f"{measured['photos_per_s']:>7,.1f} photos/s",
                flush=True,
            )
        record |= {"loading": rows, **_start_and_growth(options, work / "htj2k")}
    ours = next(r for r in rows if r["name"] == "agedphoto, HTJ2K" and r["crops_per_photo"] == 16)
    usual = next(r for r in rows if r["name"].startswith("webdataset"))
    record["ratio_k16_to_webdataset_k1"] = ours["crops_per_s"] / usual["crops_per_s"]
    print(f"ours at K 16 / webdataset + Pillow at K 1: {record['ratio_k16_to_webdataset_k1']:.1f}")
    for name in ("first_batch_s", "resume_s", "resident_mib_an_epoch"):
        print(f"{name}: {record[name]:.3f}")
    if options.out:
        _write(options, record)


def _shard(photos: Path, work: Path) -> dict[str, Any]:
    found = find_photos(photos)
    rates: dict[str, Any] = {"photos": len(found)}
    for format in ("htj2k", "png"):
        begun = time.perf_counter()
        write_shards(found, work / format, root=photos, format=format)
        rates[f"shard_{format}_photos_per_s"] = len(found) / (time.perf_counter() - begun)
        begun = time.perf_counter()
        faults = verify_shards(open_index(work / format)).faults
        rates[f"verify_{format}_photos_per_s"] = len(found) / (time.perf_counter() - begun)
        if faults:
            raise SystemExit(f"the shards are not as written: {faults[0]}")
        rates[f"{format}_bytes"] = sum(s.bytes for s in open_index(work / format).shards)
    for name, value in rates.items():
        print(f"{name}: {value:,.1f}", flush=True)
    return rates


def _alone(options: Options, work: Path, who: str, format: str, crops: int) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    command = [sys.executable, __file__, str(options.photos), "--shards", str(work)]
    command += ["--crop-px", str(options.crop_px), "--batch-size", str(options.batch_size)]
    command += ["--runs", str(options.runs), "--only", who, format, str(crops)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{who} {format} K={crops} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(options: Options) -> dict[str, Any]:
    """Check one contender, then time it."""
    assert options.only
    assert options.shards
    who, format, crops = options.only
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    contender = {"floor": _floor, "ours": _ours, "webdataset": _webdataset}[who]
    passes = contender(options.shards / format, crops, options)
    num_photos = len(open_index(options.shards / format))
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
    lower, median, upper = np.percentile(seconds, [25, 50, 75])
    return {
        "crops_per_s": num_photos * crops / median,
        "photos_per_s": num_photos / median,
        "quartiles_s": [lower, upper],
        "seconds": median,
    }


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
        raise SystemExit(f"not all crops are there: {found}")
    for key, some in by_photo.items():
        photo = read_photo(photos[key])
        S = options.crop_px
        for _, top, left, pixels in some:
            if not np.array_equal(photo[top : top + S, left : left + S], pixels):
                raise SystemExit(f"a crop of {key} is not a part of it")


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
    from webdataset import DataPipeline, WebDataset, shuffle  # type: ignore[attr-defined]

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
        dataset = WebDataset(tars, shardshuffle=False, empty_check=False)
        stream = iter(DataPipeline(dataset.decode("pilrgb"), cut, shuffle(64)))
        while batch := list(islice(stream, options.batch_size)):
            yield batch

    while True:
        yield one_pass()


def _start_and_growth(options: Options, shards: Path) -> dict[str, float]:
    """Time the first batch and going on from the middle; watch the memory of the process."""
    textures = TextureBank.synthesize(16)
    settings: dict[str, Any] = {
        "crop_px": options.crop_px, "batch_size": options.batch_size, "device": "cpu",
        "textures": textures, "rank": 0, "world_size": 1, "crops_per_photo": 8,
    }  # fmt: skip

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
    starts = statistics.median(first_batch() for _ in range(3))
    resumes = statistics.median(first_batch(state) for _ in range(3))
    process, resident = psutil.Process(), []
    num = len(open_index(shards))
    settings |= {"crops_per_photo": 1, "mix_photos": 1, "batch_size": min(4, num), "crop_px": 64}
    sizes = np.sort(open_index(shards).decoded_bytes)[::-1]
    # As small as it may be, so that photographs are decoded all the time.
    pool_bytes = int(sizes[: 3 * settings["batch_size"]].sum())
    with AgedPairs(shards, **settings, prefetch_batches=2, pool_bytes=pool_bytes) as pairs:
        for _ in range(options.epochs):
            for _ in pairs:
                pass
            resident.append(process.memory_info().rss / 2**20)
        decoded = pairs.stats()["photos_decoded"]
    settled = resident[len(resident) // 3 :]
    return {
        "first_batch_s": starts,
        "resume_s": resumes,
        "resident_mib_an_epoch": float(np.polyfit(range(len(settled)), settled, 1)[0]),
        "resident_mib": settled[-1],
        "epochs": options.epochs,
        "photos_decoded_meanwhile": decoded,
    }


def _write(options: Options, record: dict[str, Any]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=False,
    ).stdout.strip()  # fmt: skip
    device = torch.device("cpu")
    about = {
        "schema": 1,
        "what": "loading",
        "crop_px": options.crop_px,
        "batch_size": options.batch_size,
        "runs": options.runs,
        "seed": 0,
        "hardware": hardware(device),
        "versions": versions(),
        "commit": commit or None,
    }
    assert options.out
    name = "-".join(about["hardware"]["name"].lower().split()[:2])
    path = options.out / f"loading_{name}_{datetime.date.today()}.json"
    write_json(path, about | record)
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Options))
