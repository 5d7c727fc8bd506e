"""A training that is broken off, whenever and however, goes on as if nothing had been."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import log_of
from safetensors.torch import load_file

from agedphoto.datasets import AgedPairs, Batch, find_photos, write_shards
from agedphoto.train import PRESETS, TrainConfig, UNetConfig, train
from agedphoto.train.step import Stepper

BROKEN_OFF = Path(__file__).with_name("broken_off.py")
ALWAYS = {
    "preset": "nano", "precision": "fp32", "warmup_pairs": 6, "num_pairs": 40, "log_every": 4,
    "validate_every": 8, "checkpoint_minutes": 0, "tensorboard": False, "lr": 3e-3,
    "ema_half_life": 8,
}  # fmt: skip
WAYS = ["any time", "save", "line", "before a rename", "after a rename", "removal"]


@pytest.fixture
def shards(make_shards, make_photos) -> Path:
    shards = make_shards([(40, 48), (56, 44), (48, 48)])
    held = make_photos([(40, 40), (44, 40)], folder="held", seed=50)
    write_shards(find_photos(held), shards, split="valid")
    return shards


def broken_off(shards: Path, out: Path, **told: Any) -> dict[str, Any]:
    """Train once straight and once with interruptions; return what has happened."""
    told = {
        "shards": str(shards), "out": str(out), "mode": "grayscale", "pairs": {"crop_px": 32},
        "validated": False, "ways": WAYS, "kills": 12, "seed": 0,
    } | told  # fmt: skip
    told["config"] = ALWAYS | told.get("config", {})
    done = subprocess.run(
        [sys.executable, BROKEN_OFF, json.dumps(told)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def checkpoints(run: Path) -> list[dict[str, Any]]:
    return [
        torch.load(path, weights_only=True) for path in sorted((run / "checkpoints").glob("*.pt"))
    ]


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Compare nested data, tensors bit for bit, but for the time that it took."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name in one:
            if name != "seconds":
                assert_same(one[name], other[name], f"{place}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, place
        assert torch.equal(one, other), place
    else:
        assert one == other, place


def assert_same_training(one: Path, other: Path) -> None:
    """Compare weights, the state of the optimiser and all else that goes on, and the log."""
    for name in ("model.safetensors", "checkpoints/best.safetensors"):
        assert (one / name).exists() == (other / name).exists()
        if (one / name).exists():
            assert_same(load_file(one / name), load_file(other / name), name)
    assert log_of(one) == log_of(other)
    assert len(checkpoints(one)) == len(checkpoints(other)) == 2
    assert_same(checkpoints(one), checkpoints(other))
    assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()
    assert not list(other.rglob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")
@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"validated": True, "seed": 1}, id="validated"),
        pytest.param({"validated": True, "seed": 2, "config": {"tensorboard": True}}, id="board"),
        pytest.param(
            {
                "mode": "lab",
                "pairs": {"view": "whole", "long_side_px": 32},
                "validated": True,
                "seed": 3,
            },
            id="lab",
        ),
        pytest.param({"config": {"accumulate": 2}, "seed": 4}, id="accumulated"),
        pytest.param(
            {
                "validated": True,
                "config": {
                    "schedule": "plateau", "plateau_pairs": 8, "min_delta": 0.5, "patience": 1000,
                    "loss": "l1", "keep": "last",
                },
                "seed": 5,
            },
            id="plateau",
        ),
    ],
)  # fmt: skip
def test_killed_in_every_way_and_begun_again_it_ends_bit_for_bit_the_same(shards, tmp_path, told):
    happened = broken_off(shards, tmp_path, **told)
    assert_same_training(tmp_path / "straight", tmp_path / "broken")
    assert sum(happened["killed"].values()) >= 5
    assert happened["hidden"] > 0
    straight = log_of(tmp_path / "straight")
    assert straight[-1]["seen"] == 40
    if told.get("config", {}).get("schedule") == "plateau":
        assert straight[-1]["lr"] < 0.5 * max(record["lr"] for record in straight)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and fork")
def test_killed_while_every_checkpoint_is_written_it_goes_on_from_the_one_before(shards, tmp_path):
    """And what was half-written is taken away."""
    happened = broken_off(shards, tmp_path, ways=["save"], kills=8, seed=6)
    assert happened["killed"]["save"] >= 4
    assert happened["hidden"] == happened["killed"]["save"]
    assert_same_training(tmp_path / "straight", tmp_path / "broken")


@pytest.fixture
def make_pairs(shards, textures):
    """Return a function that opens small pairs."""
    opened = []

    def make(**options: Any) -> AgedPairs:
        settings = {
            "recipe": "seed", "crop_px": 32, "batch_size": 2, "crops_per_photo": 12,
            "device": "cpu", "textures": textures, "rank": 0, "world_size": 1,
        } | options  # fmt: skip
        opened.append(AgedPairs(shards, **settings))
        return opened[-1]

    yield make
    for pairs in opened:
        pairs.close()


@pytest.fixture(autouse=True)
def nano(monkeypatch):
    monkeypatch.setitem(PRESETS, "nano", UNetConfig(widths=(8, 12), blocks=1, middle_blocks=1))


@pytest.fixture
def trained_keys(monkeypatch) -> list[list[int]]:
    """Return a list of what is trained on, step by step."""
    steps: list[list[int]] = []
    whole = Stepper.__call__

    def step(self: Stepper, batches: list[Batch], **options: float) -> None:
        whole(self, batches, **options)
        steps.append([int(key) for batch in batches for key in batch.keys])

    monkeypatch.setattr(Stepper, "__call__", step)
    return steps


def test_a_training_that_failed_goes_on_with_the_pairs_it_has_not_seen(
    make_pairs, tmp_path, monkeypatch, trained_keys
):
    """It fails at every other step, after the step; it goes on before it."""
    config = TrainConfig(**ALWAYS)
    train(make_pairs(), tmp_path / "straight", config)
    straight = trained_keys.copy()
    assert len(straight) == 20
    trained_keys.clear()
    step, fails = Stepper.__call__, 0

    def failing(self: Stepper, batches: list[Batch], **options: float) -> None:
        nonlocal fails
        step(self, batches, **options)
        if len(trained_keys) % 2 == 0 and fails < 9:
            fails += 1
            raise RuntimeError("in the middle")

    monkeypatch.setattr(Stepper, "__call__", failing)
    for _ in range(9):
        with pytest.raises(RuntimeError, match="in the middle"):
            train(make_pairs(), tmp_path / "broken", config)
    train(make_pairs(), tmp_path / "broken", config)
    # The first step of the training after each failure repeats the one that was lost.
    again = [keys for number, keys in enumerate(trained_keys) if number % 2 == 0 or number >= 18]
    assert again == straight
    assert_same_training(tmp_path / "straight", tmp_path / "broken")


def test_another_seed_of_the_pairs_ends_with_other_weights(make_pairs, tmp_path):
    """The comparisons above can fail."""
    for seed in (0, 1):
        train(make_pairs(seed=seed), tmp_path / str(seed), TrainConfig(**ALWAYS))
    with pytest.raises(AssertionError):
        assert_same_training(tmp_path / "0", tmp_path / "1")
