"""What a training would take is known before it starts."""

import math

import pytest
import torch
from nano import QUICK, WHOLE, nano_objective

from agedphoto import probe as module
from agedphoto.probe import check_memory, probe
from agedphoto.synth import Mode
from agedphoto.train import TrainConfig
from agedphoto.train.memory import training_bytes
from agedphoto.train.objectives import make_objective

pytestmark = pytest.mark.usefixtures("nano")
CPU = torch.device("cpu")


def check(batch_size: int, *, mode: Mode = "grayscale", name: str = "crop_px") -> None:
    objective = make_objective(mode=mode, preset="tiny", loss="mse", mask_weight=0.0)
    check_memory(
        objective.make_net, batch_size=batch_size, side_px=64, precision="fp32", device=CPU,
        name=name,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["grayscale", "lab"])
def test_a_batch_that_is_too_large_is_told_how_large_fits(monkeypatch, mode):
    monkeypatch.setattr(module, "available_bytes", lambda _: 2**28)
    with pytest.raises(
        ValueError,
        match=r"batch_size 5000 takes about [\d.]+ GiB of the 0.25 GiB "
        r"that are free on cpu; use at most \d+, and accumulate for more",
    ) as error:
        check(5000, mode=mode)  # fmt: skip
    fits = int(str(error.value).split("at most ")[1].split(",")[0])
    assert 1 <= fits < 5000
    check(fits, mode=mode)
    with pytest.raises(ValueError, match=f"use at most {fits}"):
        check(fits + 1, mode=mode)


def test_where_nothing_fits_a_smaller_network_or_picture_is_advised(monkeypatch):
    monkeypatch.setattr(module, "available_bytes", lambda _: 2**20)
    with pytest.raises(ValueError, match=r"use a smaller preset or long_side_px \(it is 64\)"):
        check(1, mode="lab", name="long_side_px")


@pytest.mark.parametrize("mode", ["grayscale", "lab"])
def test_the_estimate_is_of_these_pairs_at_the_pace_that_was_found(open_pairs, mode):
    whole = WHOLE if mode == "lab" else {}
    pairs = open_pairs(mode=mode, **whole)
    objective = nano_objective(mode)
    found = probe(pairs, TrainConfig(**QUICK, num_pairs=10**9), objective)
    side_px = 32 if mode == "lab" else 16
    assert found["pixels_an_epoch"] == 14 * 4 // 8 * 8 * side_px**2
    taken = sum(training_bytes(objective.make_net, batch_size=8, side_px=side_px, bf16=False))
    assert found["memory_gib"] == pytest.approx(taken / 2**30, abs=0.01)
    assert found["pairs_per_s"] > 1
    assert found["hours"] == pytest.approx(10**9 / found["pairs_per_s"] / 3600, rel=0.02)


def test_no_training_takes_longer_than_it_may(open_pairs):
    config = TrainConfig(**QUICK, num_pairs=10**12, max_minutes=3.0)
    assert probe(open_pairs(), config, nano_objective())["hours"] == pytest.approx(0.05)


def test_it_looks_at_some_steps_and_not_for_long(open_pairs, monkeypatch):
    """Thirty steps, or ten seconds; what compiles or warms up is not counted."""
    steps = []
    whole = module.Stepper.__call__

    def counted(self, *args, **options):
        steps.append(options["lr"])
        return whole(self, *args, **options)

    monkeypatch.setattr(module.Stepper, "__call__", counted)
    probe(open_pairs(crops_per_photo=40), TrainConfig(**QUICK), nano_objective())
    assert len(steps) == 32
    steps.clear()
    clock = iter(range(0, 10**6, 6))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    found = probe(open_pairs(crops_per_photo=40), TrainConfig(**QUICK), nano_objective())
    assert 4 <= len(steps) < 8
    assert math.isfinite(found["pairs_per_s"])
