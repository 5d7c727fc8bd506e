"""The quality clock: how many seconds of training it takes on this device to reach a PSNR, so that
speed is never bought with quality.

Blind gray denoising, trained by the trainer itself on recipe `awgn` with its own schedule: each
number of seconds is a training of its own, whose learning rate comes down in time. Compiling is
done beforehand and not counted. Then the photos of `--held-out`, which the shards must not hold, by
the protocol that denoisers publish (docs/evaluating.md): noise of sigma 15, 25 and 50, not clipped,
numpy's generator with seed 0 for each photo, the answer rounded to 8 bits, mean PSNR of the photos.
"""

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

from agedphoto.datasets import AgedPairs
from agedphoto.evaluate_photos import Subject, find_subjects
from agedphoto.evaluate_run import evaluate, plan_cases
from agedphoto.train import TrainConfig, load_model, train

from .made_up import make_photo, make_photos, make_shards
from .record import Record, Recorder, Spread
from .settings import Settings

SIGMAS = (15, 25, 50)
LEVELS_DB = {15: (29, 30, 31, 32), 25: (26, 27, 28, 29), 50: (23, 24, 25, 26)}
"""What doing nothing does not reach; the best known are at about 31.9, 29.5 and 26.6 on BSD68."""


def run(settings: Settings, recorder: Recorder) -> Record:
    """Train for each number of seconds, and look."""
    if not settings.quick and not (settings.shards and settings.held_out):
        recorder.miss(
            "clock", "seconds to a PSNR",
            "it needs shards to train on and a folder of other photos to measure on",
            command="agedphoto bench quality --shards SHARDS --held-out FOLDER",
        )  # fmt: skip
        return recorder.finish()
    preset = "large" if settings.large and not settings.quick else "tiny"
    batch_size = 4 if settings.quick else 128 if settings.large else 32
    crop_px = 32 if settings.quick else 128 if settings.large else 64
    budgets = settings.budgets_s or ((1.0, 2.0) if settings.quick else (15.0, 75.0, 300.0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = settings.shards or make_shards(
            make_photos(folder / "photos", 6, (96, 128)), folder / "shards"
        )
        subjects = (
            find_subjects([str(settings.held_out)])
            if settings.held_out
            else [Subject(name=f"made-up-{n}", read=lambda n=n: make_photo(n, (48, 64)))
                  for n in (100, 101)]
        )  # fmt: skip
        recorder.settings = {
            "preset": preset, "batch_size": batch_size, "crop_px": crop_px, "recipe": "awgn",
            "measured_on_photos": len(subjects),
            "photos": "given" if settings.held_out else "made up",
        }  # fmt: skip
        with AgedPairs(
            shards, recipe="awgn", crop_px=crop_px, batch_size=batch_size,
            device=settings.device, rank=0, world_size=1,
        ) as pairs:  # fmt: skip
            if settings.large:
                # What is compiled once is found again: the seconds are those of training.
                train(pairs, folder / "compiled", _config(preset, None))
            found = [
                _train(seconds, preset, pairs, subjects, folder, settings, recorder)
                for seconds in sorted(budgets)
            ]
    _levels(found, recorder)
    return recorder.finish()


def _train(
    seconds: float,
    preset: str,
    pairs: AgedPairs,
    subjects: list[Subject],
    folder: Path,
    settings: Settings,
    recorder: Recorder,
) -> dict[int, tuple[float, float]]:
    """Train for so long; return seconds and dB for each sigma."""
    pairs.set_epoch(0)
    run_folder = folder / f"{seconds:g}"
    result = train(pairs, run_folder, _config(preset, seconds))
    net, card = load_model(run_folder / "model.safetensors", device=settings.device)
    cases = plan_cases(
        mode=card.mode, device=settings.device, sigmas=[float(sigma) for sigma in SIGMAS]
    )
    record = evaluate(net, card, subjects, cases, device=settings.device)
    found = {}
    for case in record["measured"]:
        sigma, mean = int(case["sigma"]), case["mean"]["psnr_db"]
        of_photos = Spread.of([row["psnr_db"] for row in case["rows"]])
        recorder.add(
            "clock", f"sigma {sigma}", "dB",
            # The mean is what papers print; quartiles are of the photos.
            Spread(
                median=mean, lower=min(of_photos.lower, mean), upper=max(of_photos.upper, mean)
            ),
            more={
                "to_noisy_db": mean - case["mean"]["aged_psnr_db"],
                "seen_pairs": result.seen_pairs,
                "seconds": result.seconds,
            },
            budget_s=seconds,
        )  # fmt: skip
        found[sigma] = (result.seconds, mean)
    return found


def _config(preset: str, seconds: float | None) -> TrainConfig:
    """Return the trainer's defaults for so many seconds; for one step if None."""
    common: dict[str, Any] = {
        "preset": preset, "mask_weight": 0.0, "tensorboard": False, "checkpoint_minutes": 1e6,
        "log_every": 100_000,
    }  # fmt: skip
    if seconds is None:
        return TrainConfig(**common, num_pairs=1)
    return TrainConfig(**common, num_pairs=10**9, max_minutes=seconds / 60)


def _levels(found: list[dict[int, tuple[float, float]]], recorder: Recorder) -> None:
    """Say when each level was reached; between two trainings along the logarithm of time."""
    for sigma, levels in LEVELS_DB.items():
        curve = [one[sigma] for one in found if sigma in one]
        for level in levels:
            name = f"sigma {sigma}, {level} dB"
            seconds = reached(curve, level)
            if seconds is None:
                longest = max((s for s, _ in curve), default=0.0)
                recorder.miss("seconds to reach", name, f"not reached in {longest:.0f} s")
            else:
                recorder.add(
                    "seconds to reach", name, "s", Spread.of([seconds]), higher_is_better=False
                )


def reached(curve: list[tuple[float, float]], level: float) -> float | None:
    """Return the seconds at which a curve of (seconds, dB) comes to a level; None if it does not.

    Before the first point nothing is known: it is then that point's.
    """
    if curve and curve[0][1] >= level:
        return curve[0][0]
    for (before_s, before), (after_s, after) in itertools.pairwise(curve):
        if before < level <= after:
            share = (level - before) / (after - before)
            return math.exp(math.log(before_s) + share * math.log(after_s / before_s))
    return None
