"""The weights that come with agedphoto are made by one command, of the photographs that it says."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from agedphoto.restore import find_model
from agedphoto.train import LabNet

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"weights_{name}", ROOT / f"weights/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make() -> ModuleType:
    return load("make")


@pytest.fixture
def data(make, tmp_path, monkeypatch) -> Path:
    """Folders as they are expected, of small photographs, two of them held out."""
    root, generator = tmp_path / "data", np.random.default_rng(0)
    names = {
        "photos": ["a.jpg", "b.jpg", "c.jpg", "pypi_samples_astronaut.jpg", "notes.txt"],
        "photos_more": ["a.jpg", "d.jpg"],
        "div2k_like/DIV2K_train_HR": ["0001.png"],
        "div2k_like/DIV2K_valid_HR": ["0801.png"],
    }
    for folder, files in names.items():
        (root / folder).mkdir(parents=True)
        for name in files:
            if name.endswith("txt"):
                (root / folder / name).write_text("not a photograph")
                continue
            soft = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
            soft.resize((96, 80), Image.Resampling.BICUBIC).save(root / folder / name)
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("b.jpg\n")
    monkeypatch.setattr(make, "HELD_OUT", held_out)
    return root


def test_the_list_of_held_out_photographs_has_forty(make):
    names = make.HELD_OUT.read_text().split()
    assert len(names) == len(set(names)) == 40
    assert names == sorted(names)


def test_the_zoo_says_the_commands_that_are_run(make):
    zoo = " ".join((ROOT / "MODEL_ZOO.md").read_text().replace("\\\n", " ").split())
    for name, command in make.COMMANDS.items():
        assert (
            f"agedphoto train --shards runs/weights/shards --out runs/weights/{name} {command}"
            in zoo
        )


def test_held_out_photographs_are_validated_on_and_examples_neither(make, data):
    splits = make.gather(data)
    assert set(splits["train"]) == {"a.jpg", "c.jpg", "more_a.jpg", "more_d.jpg", "0001.png"}
    assert set(splits["valid"]) == {"b.jpg", "0801.png"}
    assert splits["train"]["more_a.jpg"] == data / "photos_more" / "a.jpg"


def test_what_is_missing_is_named(make, data):
    (data / "photos" / "b.jpg").unlink()
    with pytest.raises(ValueError, match=r"data lacks b\.jpg, which is held out"):
        make.gather(data)
    with pytest.raises(ValueError, match=r"no such folder: .*elsewhere"):
        make.gather(data / "elsewhere")
    with pytest.raises(ValueError, match="unknown model 'sepia'; there are: grayscale, lab"):
        make.main(make.Options(data=data, only=("sepia",)))


@pytest.mark.slow
def test_one_command_makes_all_and_going_on_changes_nothing(make, data, tmp_path, monkeypatch):
    package = tmp_path / "restore"
    package.mkdir()
    monkeypatch.setattr(make, "SHIPPED", package)
    short = "--preset tiny --num-pairs 4 --batch-size 2 --no-tensorboard --device cpu"
    commands = {name: f"{short} --mode {name} --crop-px 32" for name in ("grayscale", "color")}
    monkeypatch.setattr(
        make, "COMMANDS", {**commands, "lab": f"{short} --mode lab --long-side-px 64"}
    )
    options = make.Options(data=data, out=tmp_path / "runs", only=("grayscale", "lab", "color"))
    assert make.main(options) == 0
    files = {path.name: path.read_bytes() for path in package.iterdir()}
    assert set(files) == {
        "grayscale.safetensors", "lab.safetensors", "color.safetensors", "SHA256SUMS",
    }  # fmt: skip
    checked = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=package, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr

    net, _ = find_model(package / "lab.safetensors")
    alone, _ = find_model(package / "grayscale.safetensors")
    assert isinstance(net, LabNet)
    assert net.luminance is not None
    for packed, weight in zip(net.luminance.parameters(), alone.parameters(), strict=True):
        assert torch.equal(packed, weight)

    assert make.main(options) == 0
    assert {path.name: path.read_bytes() for path in package.iterdir()} == files


def test_rounding_is_undone_to_numbers_that_round_to_the_same():
    rounding, generator = load("rounding"), torch.Generator().manual_seed(0)
    special = torch.tensor([0.0, 1.0, -2.0, 0.5, 2.0**-14, -(2.0**-15), 2.0**-24, 1023.5])
    stored = torch.cat([torch.randn(4096, generator=generator).half().float(), special])
    moved = rounding.unrounded(stored, generator)
    assert torch.equal(moved.half().float(), stored)
    assert (moved != stored).float().mean() > 0.99
    # As far apart as rounding can bring them: half of a step of one in a thousand.
    apart = ((moved - stored) / stored)[:4096].abs()
    assert 2.0**-12.5 < apart.max() <= 2.0**-11


def test_rounding_is_measured_on_the_stored_models(tmp_path, capsys):
    photo = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    rounding = load("rounding")
    assert rounding.main(rounding.Options(photos=tmp_path, draws=2, device="cpu")) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "`" in line]
    assert [row[1].strip() for row in rows] == ["`color`", "`grayscale`", "`lab`", "`rgb`"]
    for row in rows:
        assert 0 < float(row[5]) <= float(row[4]) < 0.2
