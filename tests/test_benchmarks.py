"""Benchmarks run, at tiny size; what they measure is not tested."""

import json
import math
import runpy
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


@pytest.mark.slow
def test_training_is_measured_with_the_loader_and_without(tmp_path, make_photos, make_shards):
    held_out = make_photos([(40, 56)] * 2, folder="held-out", seed=9)
    command = [sys.executable, ROOT / "benchmarks" / "training.py", "--device", "cpu"]
    command += ["--shards", make_shards([(70, 90)] * 4), "--presets", "tiny", "--batch-size", "4"]
    command += ["--crop-px", "32", "--long-side-px", "32", "--runs", "2", "--window-s", "0.1"]
    command += ["--kodak-seconds", "2", "--kodak", held_out, "--kodak-preset", "tiny"]
    command += ["--kodak-crop-px", "32"]
    done = subprocess.run(
        [*map(str, command), "--out", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("training_*.json")
    record = json.loads(path.read_text())
    assert {"versions", "hardware", "commit", "seed", "schema"} <= set(record)
    # A GPU is not spoken of where there is none.
    assert "not measured: a GPU: it needs a CUDA device" in done.stdout
    assert not [row for row in record["results"] if "failed" in row]

    rows = [row for row in record["results"] if row["as_trained"]]
    assert [row["mode"] for row in rows] == ["grayscale", "lab"]
    for row in record["results"]:
        lower, upper = row["resident"]["quartiles"]
        assert 0 < lower <= row["resident"]["pairs_per_s"] <= upper
        assert row["way"] in done.stdout
        rate = record["matrix_flops_per_s"][row["way"].split(",")[0]]
        assert row["mfu"] == pytest.approx(1e12 * row["tflops_per_s"] / rate)
    for row in rows:
        assert 0 <= row["wait_share"]["median"] < 1
        for what in ("loader", "loader_alone"):
            assert row[what]["pairs_per_s"] > 0
        assert row["utilisation"]["median"] > 0

    (kodak,) = record["kodak"]
    assert kodak["seconds"] >= 2
    assert kodak["measured_on_photos"] == 2
    # What noise of that sigma does to a picture, but for what is clipped.
    for sigma, scores in kodak["by_sigma"].items():
        noise = -20 * math.log10(float(sigma) / 255)
        assert noise - 0.2 < scores["noisy_psnr_db"] < noise + 2
        assert scores["psnr_db"] > 0


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [({"runs": 1}, "runs must be at least 2"), ({"kodak_seconds": (5.0,)}, "give --kodak")],
)
def test_what_training_cannot_be_measured_with_is_refused_at_once(wrong, complaint):
    make_options = runpy.run_path(str(ROOT / "benchmarks" / "training.py"))["Options"]
    with pytest.raises(ValueError, match=complaint):
        make_options(**wrong)
