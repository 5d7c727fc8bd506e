"""The examples of docs/ageing.md do what they say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from agedphoto.synth.defects import DEFECTS
from agedphoto.synth.recipes import RECIPES

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "ageing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.slow
def test_the_python_runs(tmp_path):
    assert len(blocks("python")) == 3
    for block in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-c", block],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    assert (tmp_path / "uncle_bob.json").is_file()


@pytest.mark.slow
def test_the_commands_run(make_photos, make_shards, tmp_path):
    make_photos([(80, 96), (70, 90)])
    (tmp_path / "data").mkdir()
    make_shards([(80, 96), (70, 90)], name="data/mine")
    (block,) = blocks("bash")
    for line in block.splitlines():
        words = shlex.split(line.split("  #")[0])
        words[0] = str(Path(sys.executable).with_name("agedphoto"))
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert len(list((tmp_path / "aged").glob("*_aged.png"))) == 2
    assert len(list((tmp_path / "again").glob("*.json"))) == 2
    assert list((tmp_path / "defects").iterdir())
    assert len(list((tmp_path / "pairs" / "clean").iterdir())) == 8


def test_every_recipe_and_every_defect_is_named():
    for name in RECIPES:
        assert f"| `{name}` |" in TEXT
    for kind in DEFECTS.values():
        assert f"`{kind.__name__}`" in TEXT
