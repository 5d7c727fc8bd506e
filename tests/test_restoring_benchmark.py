"""The benchmark of restoring runs, at tiny size; what it measures is not tested."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "restoring.py"


@pytest.mark.slow
def test_restoring_is_measured_beside_hard_cut_tiles_and_one_piece(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--device", "cpu", "--out", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("restoring_*.json")
    record = json.loads(path.read_text())
    assert {"versions", "hardware", "commit", "seed", "schema", "weights"} <= set(record)
    small, large = 0.02, 0.05
    assert [(row["way"], row["megapixels"]) for row in record["results"]] == [
        ("agedphoto", small), ("hard-cut tiles", small), ("whole", small),
        ("agedphoto", large), ("hard-cut tiles", large),
    ]  # fmt: skip
    for row in record["results"]:
        lower, upper = row["quartiles_s"]
        assert 0 < lower <= row["seconds"] <= upper
        assert row["megapixels_per_s"] > 0
        assert row["gpu_gib"] is None
    [seams] = record["seams"]
    assert 0 <= seams["agedphoto"]["mean"] <= seams["agedphoto"]["largest"]
    assert seams["hard-cut tiles"]["largest"] > 0
    assert "not measured: a GPU: it needs a CUDA device" in done.stdout


def test_hard_cut_tiles_of_a_network_that_sees_no_farther_than_their_margin_are_exact():
    tiles = runpy.run_path(str(SCRIPT), run_name="benchmark")["hard_cut_tiles"]
    picture = torch.rand(1, 70, 53, generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")

    def net(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(x, 5, stride=1, padding=2)

    assert torch.equal(tiles(net, picture, tile_px=32, device=cpu), net(picture[None])[0])
