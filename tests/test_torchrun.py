"""Two processes train as one with the same global batch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agedphoto.datasets import find_photos, write_shards
from agedphoto.train import load_model

SETTINGS = [
    "--device", "cpu", "--crop-px", "32", "--crops-per-photo", "8", "--preset", "tiny",
    "--precision", "fp32", "--num-pairs", "32", "--warmup-pairs", "0", "--log-every", "8",
    "--validate-every", "16",
]  # fmt: skip


@pytest.fixture
def shards(make_shards, make_photos) -> Path:
    shards = make_shards([(40, 48), (56, 44), (48, 48)])
    write_shards(find_photos(make_photos([(40, 40)], folder="held")), shards, split="valid")
    return shards


def start(launcher: list[str], *arguments: object, timeout_s: float = 100) -> tuple[int, str]:
    """Run in a session of its own, which ends as a whole; return status and what was said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(
        [sys.executable, *launcher, "-m", "agedphoto", "train", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=environment,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=timeout_s)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, said


def torchrun(num_ranks: int) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]


def curve(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in ("seen", "loss", "psnr_db", "lr")} for line in lines]


@pytest.mark.slow
def test_two_processes_train_as_one_and_one_of_them_writes(shards, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    status, said = start([], "--shards", shards, "--out", one, "--batch-size", 4, *SETTINGS)
    assert status == 0, said
    status, said = start(
        torchrun(2), "--shards", shards, "--out", two, "--batch-size", 2, *SETTINGS
    )
    assert status == 0, said
    assert said.count("all pairs seen") == 1
    assert "Warning" not in said

    assert [line["seen"] for line in curve(two)] == [8, 16, 24, 32]
    for alone, together in zip(curve(one), curve(two), strict=True):
        assert together == {
            name: value if value is None else pytest.approx(value, rel=1e-4)
            for name, value in alone.items()
        }
    alone, together = (load_model(run / "model.safetensors") for run in (one, two))
    for name, weight in alone[0].state_dict().items():
        assert (together[0].state_dict()[name] - weight).abs().max() < 2e-4, name
    assert together[1].training["implied"]["ranks"] == 2
    assert together[1].training["pairs"] == alone[1].training["pairs"]


@pytest.mark.slow
def test_two_processes_stop_together_when_the_time_is_up(shards, tmp_path):
    run = tmp_path / "run"
    timed = [*SETTINGS, "--num-pairs", "1000000000", "--max-minutes", "0.03"]
    status, said = start(torchrun(2), "--shards", shards, "--out", run, "--batch-size", 2, *timed)
    assert status == 0, said
    assert said.count("time is up") == 1
    assert curve(run)[-1]["lr"] == pytest.approx(1e-5)
