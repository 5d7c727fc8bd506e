"""How long training waits for each loader, by comparing throughputs (as DS-Analyzer does, Mohan et
al., VLDB 2021): on a batch that is there already, with no loader, and with batches of the loader.

Utilisation is the second rate over the first: what decoding takes from the GPU or
from the cores that train counts against the loader, which a clock around `next` alone would not
see. `cold` is the same from the second batch after opening on, when little is in a pool or a cache
yet. Waits are what a step waited in `next`, of all steps of the windows.

The curve is ours over K, the crops that are taken of a decoded photo: with K large enough any
decoder keeps up. Aims: 99 % with all photos in the pool, 98 % decoding 2K photos without loss at
K = 16 on one GPU.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agedphoto.datasets.dali import dali_problem

from .apart import run_apart
from .ladder import Loader, Place, Rung, convert, rungs
from .loader import prepare
from .record import Recorder, Spread
from .settings import Settings
from .steps import find_objective, make_stepper, step, usual_way
from .timing import seconds_of

CURVE = (1, 2, 4, 8, 16, 32, 64)
QUICK_CURVE = (1, 16)
WARM_UP_STEPS = 3
CLOCK_LOOKS = 8
"""In a window with a loader: one that is slow is given no more time than one that is fast."""


def run(settings: Settings, recorder: Recorder) -> None:
    """Train with every loader of the ladder, then with ours over K."""
    preset = "base" if settings.large else "tiny"
    runs, window_s = (2, 0.2) if settings.quick else (7, 3.0) if settings.large else (5, 1.5)
    with tempfile.TemporaryDirectory() as temporary:
        batch_size = 128 if settings.large else None
        _, place = prepare(settings, Path(temporary), batch_size=batch_size)
        if not settings.large:
            # A CPU trains so slowly on more that any loader keeps up.
            place = replace(place, crop_px=32 if settings.quick else 64)
        _ladder(settings, place, preset, runs, window_s, recorder)
        _curve(settings, place, preset, runs, window_s, recorder)


def _ladder(
    settings: Settings, place: Place, preset: str, runs: int, window_s: float, recorder: Recorder
) -> None:
    for rung in rungs(settings, place):
        title = f"{rung.name}, {rung.format}, K {rung.K}"
        if rung.why_not:
            recorder.miss("waiting", title, rung.why_not)
            continue
        if settings.quick and (rung.kind, rung.format, rung.decoder) != ("ours", "htj2k", "cpu"):
            recorder.miss(
                "waiting", title, "left out by --quick", command=settings.command("train")
            )
            continue
        try:
            found = run_apart(
                measure, rung, place, preset, [rung.K], runs, window_s, here=settings.quick
            )[rung.K]
        except Exception as error:
            recorder.fail("waiting", title, error)
            continue
        recorder.add(
            "waiting", rung.name, "% used", Spread.of(found["used"]), more=found["more"],
            format=rung.format, K=rung.K,
        )  # fmt: skip


def _curve(
    settings: Settings, place: Place, preset: str, runs: int, window_s: float, recorder: Recorder
) -> None:
    """Of each way to decode over K: what should be bought, cores or a GPU that decodes."""
    table = "utilisation over K"
    dali = dali_problem(settings.device) if settings.large else "it needs a CUDA device"
    for name, format, decoder, why_not in (
        ("HTJ2K on CPU threads", "htj2k", "cpu", None),
        ("HTJ2K on the GPU", "htj2k", "dali", dali),
        ("JPEG on the GPU's engine", "jpeg", "dali", dali),
        ("PNG on CPU threads", "png", "cpu", None),
    ):
        if why_not:
            recorder.miss(table, name, why_not, command=settings.command("train"))
            continue
        if settings.quick and format != "htj2k":
            recorder.miss(table, name, "left out by --quick", command=settings.command("train"))
            continue
        counts = QUICK_CURVE if settings.quick else CURVE
        rung = Rung(name=name, kind="ours", format=format, K=1, decoder=decoder)  # type: ignore[arg-type]
        try:
            found = run_apart(
                measure, rung, place, preset, counts, runs, window_s, here=settings.quick
            )
        except Exception as error:
            recorder.fail(table, name, error)
            continue
        for K, one in found.items():
            recorder.add(
                table, name, "% used", Spread.of(one["used"]), more=one["more"], format=format, K=K
            )


def measure(
    rung: Rung, place: Place, preset: str, counts: Sequence[int], runs: int, window_s: float
) -> dict[int, dict[str, Any]]:
    """Train on one batch and then with a loader, for each K; for a process of its own."""
    convert(rung, place)
    device = torch.device(place.device)
    # None of the others has masks.
    objective = find_objective("grayscale", preset, place.crop_px, mask_weight=0.0)
    _, stepper = make_stepper(objective, usual_way(device), device)
    found = {}
    for K in counts:
        loader = Loader(replace(rung, K=K), place)
        batch = next(loader.batches)
        loader.close()
        train = partial(step, stepper, batch)
        for _ in range(WARM_UP_STEPS):
            train()
        found[K] = _one(replace(rung, K=K), train, stepper, place, device, runs, window_s)
    return found


def _one(
    rung: Rung,
    train: Any,
    stepper: Any,
    place: Place,
    device: torch.device,
    runs: int,
    window_s: float,
) -> dict[str, Any]:
    num_steps = max(2, math.ceil(window_s / (seconds_of(train, 2, device) / 2)))
    # With no loader there: one that makes batches ahead would keep cores from training meanwhile.
    resident = [num_steps / seconds_of(train, num_steps, device) for _ in range(runs)]
    loader = Loader(rung, place)
    next(loader.batches)
    waits: list[float] = []

    def train_on_next() -> None:
        begun = time.perf_counter()
        batch = next(loader.batches)
        waits.append(time.perf_counter() - begun)
        step(stepper, batch)

    def loaded_rate() -> float:
        """Train for as long, however few steps that are; return steps a second."""
        taken, count = 0.0, 0
        while taken < window_s and count < num_steps:
            # A few at a time: on a GPU each look at the clock waits for all of them.
            few = min(max(2, num_steps // CLOCK_LOOKS), num_steps - count)
            taken += seconds_of(train_on_next, few, device)
            count += few
        return count / taken

    cold = loaded_rate()
    # What was made ahead since is used up.
    decoded = loader.decoded()
    loaded_rate()
    while rung.resident and decoded != loader.decoded():
        # The pool that is to hold all photos is still filling.
        decoded = loader.decoded()
        loaded_rate()
    waits.clear()
    decoded = loader.decoded()
    loaded = [loaded_rate() for _ in range(runs)]
    now_decoded = loader.decoded()
    loader.close()
    middle = statistics.median(resident)
    used = [100 * one / middle for one in loaded]
    p50, p99 = np.percentile(waits, [50, 99]).tolist()
    more = {
        "resident_per_s": place.batch_size * middle,
        "loader_per_s": place.batch_size * statistics.median(loaded),
        "utilisation_cold": cold / middle,
        "wait_p50_ms": 1e3 * p50,
        "wait_p99_ms": 1e3 * p99,
    }
    if decoded is not None and now_decoded is not None and now_decoded > decoded:
        more["crops_per_decode"] = len(waits) * place.batch_size / (now_decoded - decoded)
    return {"used": used, "more": more}
