"""Benchmarks run, at tiny size; what they measure is not tested."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_ageing_is_measured_beside_kornia_and_the_floor(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "ageing.py", "--device", "cpu"]
    command += ["--batch-size", "4", "--crop-px", "64", "--runs", "3", "--no-compile"]
    done = subprocess.run(
        [*command, "--out", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("ageing_*.json")
    record = json.loads(path.read_text())
    assert set(record["results"]) == {"copy floor", "agedphoto, eager", "Kornia chain, eager"}
    assert {"versions", "hardware", "commit", "seed", "schema"} <= set(record)
    for name, row in record["results"].items():
        lower, upper = row["quartiles_ms"]
        assert 0 < lower <= row["median_ms"] <= upper
        assert name in done.stdout
