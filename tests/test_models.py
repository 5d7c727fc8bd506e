"""Models are found by name, file or folder; those that come with agedphoto do what is said."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut, chelsea, coffee

from agedphoto.restore import Restorer, find_model, models, shipped_models
from agedphoto.restore.models import CHECKSUMS
from agedphoto.synth import MODES, Ageing, sample_keys
from agedphoto.train import ColorNet, ColorNetConfig, LabNet, UNet, UNetConfig, save_model
from agedphoto.training import HELD_OUT_EPOCH

NANO = UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1)
NANO_COLOR = ColorNetConfig(widths=(4, 8, 8, 8), blocks=(0, 0, 0, 0), attention_blocks=1, heads=2)
PHOTOS = {"astronaut": astronaut, "chelsea": chelsea, "coffee": coffee}
"""None of them was trained on."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as a training leaves it."""
    net = LabNet(ColorNet(NANO_COLOR), UNet(NANO))
    save_model(tmp_path / "run" / "model.safetensors", net, mode="lab", training={})
    return tmp_path / "run"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch) -> Path:
    """A package that comes with one model, called `run`."""
    folder = tmp_path / "package"
    save_model(folder / "run.safetensors", UNet(NANO), mode="grayscale", training={})
    digest = hashlib.sha256((folder / "run.safetensors").read_bytes()).hexdigest()
    (folder / CHECKSUMS).write_text(f"{digest}  run.safetensors\n")
    monkeypatch.setattr(models, "FOLDER", folder)
    return folder


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("which", ["", "model.safetensors", "renamed.weights"])
def test_a_model_is_found_by_file_or_by_folder(run, kind, which):
    if which == "renamed.weights":
        (run / "model.safetensors").rename(run / which)
    net, card = find_model(kind(run / which))
    assert card.mode == "lab"
    assert isinstance(net, LabNet)


def test_a_name_means_the_model_that_comes_with_the_package(run, shipped, monkeypatch):
    monkeypatch.chdir(run.parent)
    assert Restorer.from_pretrained("run", device="cpu").mode == "grayscale"
    assert Restorer.from_pretrained("./run", device="cpu").mode == "lab"
    assert Restorer.from_pretrained(Path("run"), device="cpu").mode == "lab"


def test_a_model_that_is_not_what_it_was_is_refused(shipped):
    path = shipped / "run.safetensors"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"run\.safetensors is not the model that came with aged"):
        find_model("run")
    path.write_bytes(sound)
    find_model("run")
    (shipped / CHECKSUMS).unlink()
    with pytest.raises(ValueError, match=r"does not know the model run\.safetensors; install"):
        find_model("run")


def test_an_unknown_name_lists_what_there_is(shipped):
    with pytest.raises(ValueError, match="unknown model 'sepia'; there are: run, or give the path"):
        find_model("sepia")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, r"no such model: .*model\.safetensors"),
        (lambda folder: folder / "no.safetensors", r"no such model: .*no\.safetensors"),
        (lambda folder: folder / "text.txt", "not a readable safetensors file"),
        (lambda folder: "", "no such model"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, monkeypatch, make: Callable, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(ValueError, match=message):
        find_model(make(tmp_path))


def test_a_wrong_device_is_found_before_the_model_is_read():
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        Restorer.from_pretrained("no such model", device="gpu")


# ---------------------------------------------------------------- those that come with agedphoto


def test_there_is_one_for_every_mode():
    assert {find_model(name)[1].mode for name in shipped_models()} == set(MODES)
    assert shipped_models().keys() == set(MODES)


@pytest.mark.parametrize("name", MODES)
def test_checksums_are_as_sha256sum_writes_them(name):
    path = shipped_models()[name]
    lines = (path.parent / CHECKSUMS).read_text().splitlines()
    assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" in lines
    assert len(lines) == len(MODES)


@pytest.mark.parametrize("name", MODES)
def test_they_are_small_and_say_how_they_were_trained(name):
    path = shipped_models()[name]
    assert path.stat().st_size < 16e6
    net, card = find_model(name)
    assert net.num_parameters <= 8e6
    told = json.dumps(card.training)
    assert {"train", "pairs", "outcome"} <= card.training.keys()
    assert "/" not in told.replace("crops/s", ""), "a path of the machine it was trained on"


@pytest.mark.parametrize("name", MODES)
def test_stored_as_halves_they_compute_in_full(name):
    assert {weight.dtype for weight in find_model(name)[0].parameters()} == {torch.float32}


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("name", ["grayscale", "color", "rgb"])
def test_in_tiles_they_answer_as_in_one_piece(name, photo):
    picture = aged(PHOTOS[photo]()[:300, :448], "heavy_wear" if photo == "coffee" else "awgn")
    restorer = Restorer.from_pretrained(name, device="cpu")
    tile = restorer._on_grid(0)
    assert tile < 300 < restorer.check()
    tiled, whole = restorer(picture, tile=tile), restorer(picture)
    assert restorer.count_tiles(*picture.shape[:2], tile=tile) > 4
    assert np.abs(tiled - whole).max() <= 1 / 255


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(("recipe", "gain_db"), [("seed", 5.5), ("awgn", 5.0), ("mixed_wear", 1.0)])
def test_grayscale_restores(recipe, gain_db, photo):
    clean = PHOTOS[photo]()[:300, :448]
    worn = aged(clean, recipe)
    restored = Restorer.from_pretrained("grayscale", device="cpu")(worn)
    assert psnr(restored, luma(clean)) > psnr(worn, luma(clean)) + gain_db


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("name", ["grayscale", "color"])
def test_they_leave_good_photos_alone(name, photo):
    picture = PHOTOS[photo]().astype(np.float32) / 255
    restored = Restorer.from_pretrained(name, device="cpu")(picture)
    assert psnr(restored, picture) >= 36


@pytest.mark.parametrize("name", ["lab", "rgb"])
def test_they_give_colours_and_keep_the_picture(name):
    picture = luma(astronaut())
    coloured = Restorer.from_pretrained(name, device="cpu")(picture)
    assert coloured.shape == (*picture.shape, 3)
    assert psnr(coloured @ LUMA, picture) > 30
    spread = float((coloured.max(2) - coloured.min(2)).mean())
    assert spread > (0.05 if name == "lab" else 0.01)


LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def luma(photo: np.ndarray) -> np.ndarray:
    """Rec. 601 luma in [0, 1]."""
    return (photo @ LUMA / 255).astype(np.float32)


def aged(photo: np.ndarray, recipe: str) -> np.ndarray:
    """The luma of an aged photo, by a key that no training draws."""
    ageing = Ageing(recipe, mode="grayscale", seed=0, augment=False)
    zero = torch.zeros(1, dtype=torch.int64)
    keys = sample_keys(0, HELD_OUT_EPOCH, zero + len(recipe), zero)
    done, _, _ = ageing(torch.from_numpy(photo.transpose(2, 0, 1)[None].copy()), keys=keys)
    return done[0, 0].numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(a.astype(np.float64) - b).mean()))
