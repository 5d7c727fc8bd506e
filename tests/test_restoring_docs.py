"""The examples of docs/restoring.md do what they say, on tiny photographs and a CPU."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import photo_like
from PIL import Image

from agedphoto.cli import main
from agedphoto.train import UNet, UNetConfig, save_model

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "restoring.md").read_text()
LINES = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder with the photos and the model that the page takes for granted."""
    for name in (
        "old-photos/portrait.jpg",
        "archive/box 1/a.png",
        "archive/b.webp",
        "portrait.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        # Gray, as such photographs are, and stored in three channels, as scanners do.
        Image.fromarray(photo_like(120, 90, seed=1)).convert("L").convert("RGB").save(
            tmp_path / name
        )
    (tmp_path / "scans").mkdir()
    deep = photo_like(60, 70, seed=2).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "scans" / "deep.tif", deep)
    marked = np.zeros((120, 90), np.uint8)
    marked[50:53] = 255
    Image.fromarray(marked).save(tmp_path / "marked.png")
    net = UNet(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1, mask_head=True))
    save_model(tmp_path / "runs/mine/model.safetensors", net, mode="grayscale", training={})
    return tmp_path


def test_the_commands_restore(home, capsys):
    results = [
        {"portrait_restored.jpg"},
        {"deep_restored.tif", "before_after-001.jpg"},
        {"portrait_restored.jpg"},
        {"portrait_restored.jpg"},
        {"portrait_restored.jpg"},
        {"b_restored.webp", "box 1/a_restored.png"},
    ]
    commands = [line for line in LINES if not line.startswith("torchrun")]
    for number, (line, expected) in enumerate(zip(commands, results, strict=True)):
        words = shlex.split(line)
        assert words[:2] == ["agedphoto", "restore"]
        words[words.index("--out") + 1] = f"out{number}"
        with chdir(home):
            assert main([*words[1:], "--device", "cpu"]) == 0, capsys.readouterr().err
            written = {
                path.relative_to(f"out{number}").as_posix()
                for path in Path(f"out{number}").rglob("*.*")
            }
        assert written == expected
    gray, coloured = (
        np.asarray(Image.open(home / f"out{number}" / "portrait_restored.jpg").convert("RGB"))
        for number in (0, 2)
    )
    assert int((coloured.max(2) - coloured.min(2)).max()) > int((gray.max(2) - gray.min(2)).max())
    assert tifffile.imread(home / "out1" / "deep_restored.tif").dtype == np.uint16
    lines = (home / "done.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["source"]).name for line in lines] == ["b.webp", "a.png"]


@pytest.mark.slow
def test_the_ranks_restore(home):
    (line,) = (line for line in LINES if line.startswith("torchrun"))
    words = shlex.split(line.replace("--nproc-per-node 8", "--nproc-per-node 2 --standalone"))
    launch = [sys.executable, "-m", "torch.distributed.run", *words[1:], "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(launch, cwd=home, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert "2 of 2 photos restored: restored" in done.stdout


def test_the_python_does_what_it_says(home):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names: dict = {}
    with chdir(home):
        exec(code, names)
    assert isinstance(names["first"], Image.Image)
    assert names["second"].dtype == np.uint8
    before, after = np.asarray(names["photo"]), np.asarray(names["repaired"])
    changed = (before != after).any(2).any(1)
    assert changed[100:104].any()
    assert not changed[:100].any()
    assert not changed[104:].any()
    assert names["mask"].mode == "L"
