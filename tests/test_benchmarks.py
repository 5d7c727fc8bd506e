"""Benchmarks run, at tiny size; what they measure is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agedphoto.synth import RECIPES

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_ageing_is_measured_beside_kornia_and_the_floor(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "ageing.py", "--device", "cpu"]
    command += ["--batch-size", "4", "--crop-px", "64", "--runs", "3", "--no-compile"]
    done = subprocess.run(
        [*command, "--out", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("ageing_*.json")
    record = json.loads(path.read_text())
    assert {name.split(",")[0] for name in record["recipes"]} == set(RECIPES)
    assert record["kernel"] is None
    assert "fused kernel: not measured, it needs a CUDA device" in done.stdout
    assert set(record["results"]) == {"copy floor", "agedphoto, eager", "Kornia chain, eager"}
    assert {"versions", "hardware", "commit", "seed", "schema"} <= set(record)
    for name, row in record["results"].items():
        lower, upper = row["quartiles_ms"]
        assert 0 < lower <= row["median_ms"] <= upper
        assert name in done.stdout


@pytest.mark.slow
def test_loading_is_measured_beside_webdataset_and_the_floor(tmp_path, make_photos):
    photos = make_photos([(70, 90)] * 6)
    command = [sys.executable, ROOT / "benchmarks" / "loading.py", photos, "--out", tmp_path]
    command += ["--crop-px", "64", "--batch-size", "4", "--runs", "2", "--epochs", "6"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("loading_*.json")
    record = json.loads(path.read_text())
    assert {"versions", "hardware", "commit", "seed", "schema"} <= set(record)
    assert {row["name"].split()[0] for row in record["loading"]} == {
        "read", "agedphoto,", "webdataset"
    }  # fmt: skip
    for row in record["loading"]:
        assert row["quartiles_s"][0] <= row["seconds"] <= row["quartiles_s"][1]
        assert row["name"] in done.stdout
    assert record["first_batch_s"] > 0
    assert record["resume_s"] > 0
    assert record["sharding"]["photos"] == 6
