"""How fast networks train: a step on a batch that is there already, the same step with the real
loader, and the loader alone; then with each loader of the ladder, and on several ranks.

A step is the trainer's own: forward, backward, gradient norm, fused AdamW, averaged weights. Every
preset is measured in the ways that it can be computed, on a resident batch; every way is first
shown to learn alike. In the way that training takes by itself, windows on the resident batch, with
the loader, and of the loader alone take turns; utilisation is the loader's rate over the resident
batch's, window by window. A rate is pairs over seconds of a window that begins and ends with the
device idle. MFU is counted floating-point operations of forward and backward over the rate of a
large matrix product, measured here.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from agedphoto.datasets import AgedPairs, Batch
from agedphoto.synth import Mode
from agedphoto.train import PRESETS
from agedphoto.train.objectives import Objective
from agedphoto.train.precision import bf16_is_fast
from agedphoto.training import DEFAULT_RECIPE

from . import ranks, waiting
from .made_up import make_photos, make_shards
from .record import Record, Recorder, Spread
from .settings import Settings
from .steps import Way, find_objective, flops_a_pair, make_stepper, step, usual_way, ways
from .timing import seconds_of

WARM_UP_STEPS = 3
WARM_UP_BATCHES = 500
"""Of the loader at most; an epoch of a small set fills the pool."""
PREFETCH_BATCHES = 64
"""So far ahead photos are decoded; what was decoded during other windows is not to be counted."""
SAME_LOSS = 0.1
"""How far the loss may differ after the first steps, as a share."""
MADE_PHOTOS, MADE_SIZE = 16, (512, 768)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of it."""

    presets: tuple[str, ...]
    modes: tuple[Mode, ...]
    crop_px: int
    long_side_px: int
    batch_size: int
    runs: int
    """Windows of each kind."""
    window_s: float


def sizes_for(settings: Settings) -> Sizes:
    """Return the sizes that suit the device."""
    if settings.quick:
        return Sizes(
            presets=("tiny",), modes=("grayscale", "lab"), crop_px=32, long_side_px=32,
            batch_size=4, runs=2, window_s=0.1,
        )  # fmt: skip
    large = settings.large
    return Sizes(
        presets=tuple(PRESETS), modes=("grayscale", "lab"), crop_px=256 if large else 64,
        long_side_px=192 if large else 64, batch_size=128 if large else 16,
        runs=9 if large else 5, window_s=2.0,
    )  # fmt: skip


def run(settings: Settings, recorder: Recorder) -> Record:
    """Measure presets and ways; then how long each loader is waited for; then ranks."""
    sizes, device = sizes_for(settings), settings.device
    recorder.settings = {
        "crop_px": sizes.crop_px, "long_side_px": sizes.long_side_px,
        "batch_size": sizes.batch_size, "runs": sizes.runs, "window_s": sizes.window_s,
        "shards": "given" if settings.shards else "made up",
    }  # fmt: skip
    if device.type != "cuda":
        recorder.miss(
            "presets", "a GPU", "it needs a CUDA device", command=settings.command("train")
        )
    if not bf16_is_fast(device):
        recorder.miss("presets", "bf16", f"{device} does not do it in hardware")
    matrix = _matrix_rates(sizes, device, recorder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = settings.shards or make_shards(
            make_photos(folder / "photos", MADE_PHOTOS, MADE_SIZE), folder / "shards"
        )
        for mode in sizes.modes:
            with _open(shards, mode, sizes, device) as pairs:
                stream = _endless(pairs)
                _fill(pairs, stream)
                for preset in sizes.presets:
                    _measure(preset, pairs, stream, matrix, sizes, recorder)
    waiting.run(settings, recorder)
    ranks.run(settings, recorder)
    return recorder.finish()


def _measure(
    preset: str,
    pairs: AgedPairs,
    stream: Iterator[Batch],
    matrix: dict[str, float],
    sizes: Sizes,
    recorder: Recorder,
) -> None:
    device, mode = pairs.device, pairs.ageing.mode
    objective = find_objective(mode, preset, pairs.side_px)
    batch = next(stream)
    flops = flops_a_pair(objective, batch)
    first_loss: float | None = None
    usual = usual_way(device)
    for way in ways(device):
        try:
            # Small networks would otherwise be found compiled, large ones share their memory.
            torch.compiler.reset()
            _forget_peak(device)
            first_loss = _way(
                way, objective, pairs, batch, stream if way == usual else None, flops, matrix,
                first_loss, sizes, recorder, mode=mode, preset=preset,
            )  # fmt: skip
        except RuntimeError as error:
            # A preset too large for this device must not take the others' figures with it.
            recorder.fail("presets", f"{mode}, {preset}, {way.name}", error)


def _way(
    way: Way,
    objective: Objective,
    pairs: AgedPairs,
    batch: Batch,
    stream: Iterator[Batch] | None,
    flops: float,
    matrix: dict[str, float],
    first_loss: float | None,
    sizes: Sizes,
    recorder: Recorder,
    **by: Any,
) -> float:
    """Measure one way, with the loader if there is a stream; return the loss after the warm-up."""
    device = pairs.device
    _, stepper = make_stepper(objective, way, device)
    train = partial(step, stepper, batch)
    for _ in range(WARM_UP_STEPS):
        train()
    loss = stepper.tally()["loss"]
    if first_loss is not None and not abs(loss - first_loss) < SAME_LOSS * first_loss:
        raise RuntimeError(f"not the same work: the loss is {loss:g}, not {first_loss:g}")
    num_steps = max(2, math.ceil(sizes.window_s / seconds_of(train, 2, device) * 2))
    count = num_steps * pairs.batch_size
    more: dict[str, Any] = {}
    if stream is None:
        resident = [seconds_of(train, num_steps, device) for _ in range(sizes.runs)]
    else:
        resident, found = _windows(train, num_steps, stepper, pairs, stream, sizes)
        more |= found
    rate = count / statistics.median(resident)
    more["steps_per_s"] = rate / pairs.batch_size
    if way.precision in matrix:
        more["mfu"] = flops * rate / matrix[way.precision]
    if device.type == "cuda":
        more["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    recorder.add("presets", way.name, "pairs/s", Spread.of_rates(count, resident), more=more, **by)
    return loss if first_loss is None else first_loss


def _windows(
    train: Any,
    num_steps: int,
    stepper: Any,
    pairs: AgedPairs,
    stream: Iterator[Batch],
    sizes: Sizes,
) -> tuple[list[float], dict[str, Any]]:
    """Time windows of three kinds in turn; return the resident ones, and what the others tell."""
    device, waited = pairs.device, 0.0

    def train_on_next() -> None:
        nonlocal waited
        begun = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - begun
        step(stepper, batch)

    # Where not all photos fit into the pool, some were decoded during the other windows.
    settling = PREFETCH_BATCHES if pairs.stats()["pool_photos"] < pairs.num_photos else 2
    resident, loaded, alone, shares = [], [], [], []
    for _ in range(sizes.runs):
        resident.append(seconds_of(train, num_steps, device))
        seconds_of(train_on_next, settling, device)
        waited = 0.0
        loaded.append(seconds_of(train_on_next, num_steps, device))
        shares.append(waited / loaded[-1])
        seconds_of(lambda: next(stream), settling, device)
        alone.append(seconds_of(lambda: next(stream), num_steps, device))
    count = num_steps * pairs.batch_size
    used = [without / with_it for without, with_it in zip(resident, loaded, strict=True)]
    return resident, {
        "loader_per_s": count / statistics.median(loaded),
        "loader_alone_per_s": count / statistics.median(alone),
        "utilisation": statistics.median(used),
        "wait_share": statistics.median(shares),
    }


def _matrix_rates(sizes: Sizes, device: torch.device, recorder: Recorder) -> dict[str, float]:
    """Return floating-point operations a second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 2048
    if recorder.quick:
        n = 512
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype is torch.bfloat16 and not bf16_is_fast(device):
            continue
        a = torch.randn(n, n, device=device, generator=_generator(device)).to(dtype)
        multiply = partial(torch.matmul, a, a, out=torch.empty_like(a))
        seconds_of(multiply, 3, device)
        repeats = max(1, math.ceil(0.2 / seconds_of(multiply, 1, device)))
        seconds = [seconds_of(multiply, repeats, device) / repeats for _ in range(sizes.runs)]
        spread = Spread.of_rates(2 * n**3 / 1e12, seconds)
        recorder.add("matrix product", f"{n} x {n}", "TFLOP/s", spread, precision=name)
        rates[name] = 1e12 * spread.median
    return rates


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def _open(shards: str, mode: Mode, sizes: Sizes, device: torch.device) -> AgedPairs:
    side_px: dict[str, Any] = (
        {"view": "whole", "long_side_px": sizes.long_side_px}
        if mode == "lab"
        else {"crop_px": sizes.crop_px}
    )
    return AgedPairs(
        shards,
        recipe=DEFAULT_RECIPE[mode],
        mode=mode,
        batch_size=sizes.batch_size,
        crops_per_photo=16,
        prefetch_batches=PREFETCH_BATCHES,
        seed=0,
        device=device,
        rank=0,
        world_size=1,
        **side_px,
    )


def _endless(pairs: AgedPairs) -> Iterator[Batch]:
    while True:
        yield from pairs


def _fill(pairs: AgedPairs, stream: Iterator[Batch]) -> None:
    """Go through an epoch, so that what fits into the pool is there."""
    for _ in islice(stream, min(len(pairs), WARM_UP_BATCHES)):
        pass


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
