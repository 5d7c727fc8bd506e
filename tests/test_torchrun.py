"""Several processes train as one, are stopped together, and go on after one of them was killed."""

import itertools
import json
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from launched import SCRIPT, Launched, about, log_of, run, torchrun

from agedphoto.datasets import find_photos, write_shards
from agedphoto.train import load_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

SETTINGS = [
    "--device", "cpu", "--crop-px", 32, "--crops-per-photo", 32, "--preset", "nano",
    "--precision", "fp32", "--lr", 3e-3, "--num-pairs", 80, "--warmup-pairs", 8, "--log-every", 4,
    "--validate-every", 20, "--no-tensorboard",
]  # fmt: skip
GLOBAL_BATCH = 4


@pytest.fixture
def shards(make_shards, make_photos) -> Path:
    shards = make_shards([(40, 48), (56, 44), (48, 48)])
    held = make_photos([(40, 40), (44, 40)], folder="held", seed=50)
    write_shards(find_photos(held), shards, split="valid")
    return shards


@pytest.fixture
def words(shards):
    """Return a function that makes the command line of a training on so many ranks."""

    def make(run: Path, num_ranks: int = 1, *, launch: tuple = (), **how: object) -> list[object]:
        launcher = torchrun(num_ranks, *launch) if num_ranks > 1 else []
        return [
            *launcher, SCRIPT, json.dumps(how), "train", "--shards", shards, "--out", run,
            "--batch-size", GLOBAL_BATCH // num_ranks, *SETTINGS,
        ]  # fmt: skip

    return make


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path / "model.safetensors")[0].state_dict()


def assert_same_result(one: Path, other: Path) -> None:
    """Bit for bit: the weights, and the log apart from times."""
    assert log_of(one) == log_of(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(second[name], weight), name


def keys_of_steps(folder: Path) -> list[list[int]]:
    """Return what all ranks together have trained on in each step."""
    ranks = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    ]
    return [sorted(itertools.chain(*step)) for step in zip(*ranks, strict=False)]


@pytest.mark.slow
def test_one_two_and_four_ranks_follow_the_same_curve(words, tmp_path):
    for ranks in (1, 2, 4):
        status, said = run(*words(tmp_path / str(ranks), ranks))
        assert status == 0, said
        assert said.count("all pairs seen") == 1
        assert "Warning" not in said
    alone = log_of(tmp_path / "1")
    assert [record["seen"] for record in alone] == list(range(4, 84, 4))
    measured = [record for record in alone if record["psnr_db"] is not None]
    assert [record["seen"] for record in measured] == [20, 40, 60, 80]
    for name in ("mse", "ssim", "mask_iou", "identity_psnr_db"):
        assert None not in [record[name] for record in measured]
    for ranks in (2, 4):
        assert log_of(tmp_path / str(ranks)) == about(alone)
        together, card = load_model(tmp_path / str(ranks) / "model.safetensors")
        for name, weight in weights(tmp_path / "1").items():
            assert (together.state_dict()[name] - weight).abs().max() < 2e-4, name
        assert card.training["implied"]["ranks"] == ranks
        assert card.training["implied"]["global_batch"] == GLOBAL_BATCH


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_training_goes_on_with_another_number_of_ranks_and_the_same_data(
    words, tmp_path, before, after
):
    """Killed at step 11 where each step leaves a checkpoint, with a line of the log half made."""
    every = ["--checkpoint-minutes", 0, "--log-every", 16]
    marker = tmp_path / "killed"
    folders = {name: tmp_path / f"keys-{name}" for name in ("straight", "before", "after")}
    for folder in folders.values():
        folder.mkdir()
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    status, said = run(*words(straight, record=str(folders["straight"])), *every)
    assert status == 0, said
    kill = {"rank": before - 1, "step": 11, "marker": str(marker)}
    status, _ = run(*words(broken, before, record=str(folders["before"]), kill=kill), *every)
    assert status != 0
    assert marker.exists()
    state = torch.load(max((broken / "checkpoints").glob("*.pt")), weights_only=True)
    assert state["steps"] in (9, 10)

    status, said = run(*words(broken, after, record=str(folders["after"])), *every)
    assert status == 0, said
    expected = keys_of_steps(folders["straight"])
    assert len(expected) == 20
    assert keys_of_steps(folders["before"]) == expected[:10]
    assert keys_of_steps(folders["after"]) == expected[state["steps"] :]
    assert log_of(broken) == about(log_of(straight))
    for name, weight in weights(straight).items():
        assert (weights(broken)[name] - weight).abs().max() < 2e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_started_again_and_goes_on_from_the_last_checkpoint(
    words, tmp_path, rank
):
    every = ["--checkpoint-minutes", 0]
    status, said = run(*words(tmp_path / "straight", 2), *every)
    assert status == 0, said
    kill = {"rank": rank, "step": 11, "marker": str(tmp_path / "killed")}
    command = words(tmp_path / "broken", 2, launch=("--max-restarts", 3), kill=kill)
    status, said = run(*command, *every)
    assert status == 0, said
    assert (tmp_path / "killed").exists()
    assert_same_result(tmp_path / "broken", tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_the_same_command_goes_on(words, tmp_path, ranks, number):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    status, said = run(*words(straight, ranks))
    assert status == 0, said
    with Launched(*words(broken, ranks, step_s=0.2)) as launched:
        launched.until(lambda: len(log_of(broken)) >= 6)
        launched.signal(number)
        begun = time.monotonic()
        status, said = launched.end()
        assert time.monotonic() - begun < 30
    assert status == 1, said
    assert f"stopped by {number.name} after" in said
    assert f"the same command goes on from there: {broken}" in said
    assert not (broken / "model.safetensors").exists()
    assert (broken / "curve.svg").exists()
    (checkpoint,) = (broken / "checkpoints").glob("*.pt")
    assert 24 <= int(checkpoint.stem) < 80

    status, said = run(*words(broken, ranks))
    assert status == 0, said
    assert_same_result(broken, straight)


@pytest.mark.slow
def test_two_processes_stop_together_when_the_time_is_up(words, tmp_path):
    command = [*words(tmp_path / "run", 2), "--num-pairs", 1000000000, "--max-minutes", 0.03]
    status, said = run(*command)
    assert status == 0, said
    assert said.count("time is up") == 1
    assert log_of(tmp_path / "run")[-1]["lr"] == pytest.approx(3e-5)


@pytest.mark.slow
def test_the_module_itself_runs_under_torchrun_and_one_process_writes(shards, tmp_path):
    status, said = run(
        *torchrun(2), "-m", "agedphoto", "train", "--shards", shards, "--out", tmp_path / "run",
        "--device", "cpu", "--crop-px", 32, "--preset", "tiny", "--batch-size", 2,
        "--num-pairs", 8, "--log-every", 4,
    )  # fmt: skip
    assert status == 0, said
    assert said.count("all pairs seen: 8 pairs") == 1
    assert [record["seen"] for record in log_of(tmp_path / "run")] == [4, 8]
    status, said = run(
        *torchrun(2), "-m", "agedphoto", "train", "--shards", shards, "--out", tmp_path / "run",
        "--device", "cpu", "--crop-px", 32, "--preset", "tiny", "--batch-size", 2,
        "--num-pairs", 8, "--log-every", 4,
    )  # fmt: skip
    assert status == 0, said
    assert said.count("nothing to do") == 1
