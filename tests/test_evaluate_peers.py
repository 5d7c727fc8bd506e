"""Several recipes at once, and denoisers beside the model: the same noise, the same scores."""

import dataclasses
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo_like
from skimage.restoration import denoise_nl_means

from agedphoto.cli import main
from agedphoto.datasets import read_photo
from agedphoto.evaluate_cases import Noise, luma_levels
from agedphoto.evaluate_peers import PEERS, Peer, find_peers
from agedphoto.evaluate_photos import find_subjects
from agedphoto.evaluate_run import evaluate, fitting_recipes, plan_cases
from agedphoto.evaluate_table import table
from agedphoto.synth import MODES, Ageing, Grain, Mode, Recipe, Sometimes
from agedphoto.train import ModelCard, UNet, net_config, save_model

CPU = torch.device("cpu")


def make_net(mode: Mode) -> UNet:
    """A small network, which returns its input."""
    shape = dataclasses.replace(
        net_config("tiny", mode), widths=(4, 6), blocks=1, middle_blocks=1, mask_head=False
    )
    return UNet(shape).eval()


@pytest.fixture
def make_model(tmp_path):
    """Return a function that writes the weights of a network that returns its input."""

    def make(mode: Mode = "grayscale") -> Path:
        path = tmp_path / f"{mode}.safetensors"
        save_model(path, make_net(mode), mode=mode, training={})
        return path

    return make


@pytest.fixture
def bm3d(monkeypatch):
    """A package of that name whose answer is black."""

    def black(noisy: np.ndarray, sigma: float) -> np.ndarray:
        asked.append((noisy, sigma))
        return np.zeros(noisy.shape)

    asked: list[tuple[np.ndarray, float]] = []
    package = types.ModuleType("bm3d")
    package.bm3d = package.bm3d_rgb = black  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bm3d", package)
    monkeypatch.setattr("agedphoto.evaluate_peers.metadata.version", lambda name: "4.0")
    return asked


def record(tmp_path: Path, *arguments: object) -> dict:
    path = tmp_path / "evaluation.json"
    assert main(["evaluate", *map(str, arguments), "--json", str(path)]) == 0
    return json.loads(path.read_text())


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("agedphoto: ")]
    return line


def test_several_recipes_are_measured_as_each_alone_and_identity_once(
    make_model, make_photos, tmp_path
):
    common = [make_photos([(64, 80), (50, 64)]), "--model", make_model()]
    together = record(tmp_path, *common, "--recipe", "film_35mm", "seed")
    film, seed = (record(tmp_path, *common, "--recipe", name) for name in ("film_35mm", "seed"))
    assert [measured["title"] for measured in together["measured"]] == [
        "recipe film_35mm", "recipe seed", "identity: clean in, clean out",
    ]  # fmt: skip
    assert together["measured"] == [film["measured"][0], *seed["measured"]]
    assert together["measured"][2] == film["measured"][1]


def test_all_recipes_beside_a_file_of_ones_own(make_model, make_photos, tmp_path):
    own = tmp_path / "own.json"
    own.write_text(Recipe(name="own", defects=(Grain(sigma=(0.1, 0.1)),)).to_json())
    photos, model = make_photos([(40, 50)]), make_model("color")
    done = record(tmp_path, photos, "--model", model, "--recipe", own, "all")
    assert [measured["title"] for measured in done["measured"][:-1]] == [
        "recipe own", "recipe faded_print", "recipe mixed_wear_in_color",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_all_are_the_recipes_that_a_network_of_the_mode_could_restore(mode, textures):
    """Judged by what they do: with the noise apart, a colour photo is still one."""
    names = [recipe.name for recipe in fitting_recipes(mode)]
    assert "tones" not in names
    if mode != "color":
        assert {"seed", "awgn", "film_35mm", "newspaper", "mixed_wear", "faded_print"} <= set(names)
        return
    photo = np.zeros((1, 3, 64, 64), np.uint8)
    photo[:, 0, :, :32], photo[:, 2, :, 32:] = 220, 220
    for recipe in fitting_recipes(mode):
        ageing = Ageing(recipe, mode="color", textures=textures, augment=False)
        aged = ageing(torch.from_numpy(photo).expand(16, -1, -1, -1)).aged
        red, _, blue = aged.mean((2, 3)).unbind(1)
        left, right = aged[..., :32].mean((2, 3)), aged[..., 32:].mean((2, 3))
        assert ((left[:, 0] - right[:, 0]) > 0.2 * (red + blue)).all(), recipe.name
        assert ((right[:, 2] - left[:, 2]) > 0.2 * (red + blue)).all(), recipe.name


def test_a_recipe_that_takes_colors_away_at_times_does_not_fit_mode_color():
    names = {recipe.name for recipe in fitting_recipes("color")}
    heavy = next(recipe for recipe in fitting_recipes("rgb") if recipe.name == "heavy_wear")
    assert isinstance(heavy.defects[0], Sometimes)
    assert "heavy_wear" not in names


def test_non_local_means_sees_the_same_noise_and_is_scored_alike(make_model, make_photos, tmp_path):
    """Computed another way: its own noise, and the PSNR written out."""
    photos = make_photos([(48, 56)])
    done = record(tmp_path, photos, "--model", make_model(), "--awgn", 25, 50, "--beside", "nlm")
    clean = luma_levels(read_photo(photos / "0000.png"))
    for measured in done["measured"]:
        sigma = measured["sigma"] / 255
        np.random.seed(0)
        noisy = (clean / 255 + np.random.normal(0, sigma, clean.shape)).astype(np.float32)
        answered = denoise_nl_means(
            noisy, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, preserve_range=True
        )
        error = np.mean((np.rint(answered.clip(0, 1) * 255) - clean) ** 2)
        (peer,) = measured["beside"]
        (row,) = peer["rows"]
        assert row["psnr_db"] == pytest.approx(20 * math.log10(255 / math.sqrt(error)), abs=0.01)
        assert row["aged_psnr_db"] == measured["rows"][0]["aged_psnr_db"]
        assert row["gain_db"] == pytest.approx(row["psnr_db"] - row["aged_psnr_db"])
        assert peer["mean"]["psnr_db"] == row["psnr_db"]
        assert peer["name"] == "nlm"
        assert "told sigma" in peer["about"]


@pytest.mark.parametrize("mode", ["rgb", "color"])
def test_a_denoiser_answers_what_the_mode_is_judged_by(mode, make_model, make_photos, tmp_path):
    photos, model = make_photos([(48, 56)]), make_model(mode)
    done = record(tmp_path, photos, "--model", model, "--awgn", 25, "--beside", "nlm")
    (peer,) = done["measured"][0]["beside"]
    assert 2 < peer["mean"]["gain_db"] < 20
    assert ("colorfulness" in peer["mean"]) == (mode == "color")


def test_without_beside_the_json_is_what_it_was(make_model, make_photos, tmp_path):
    photos, model = make_photos([(40, 50)]), make_model()
    alone = record(tmp_path, photos, "--model", model, "--awgn", 25)
    assert set(alone["measured"][0]) == {
        "kind", "title", "protocol", "sigma", "mean", "pooled", "rows",
    }  # fmt: skip
    among = record(tmp_path, photos, "--model", model, "--awgn", 25, "--beside", "nlm")
    del among["measured"][0]["beside"]
    assert among == alone


def test_denoisers_stand_below_the_model_in_the_table(make_model, make_photos, capsys, bm3d):
    photos = make_photos([(40, 50)])
    common = [photos, "--model", make_model(), "--awgn", 25, "--beside", "nlm", "--beside", "bm3d"]
    assert main(["evaluate", *map(str, common), "--rows"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = lines.index("awgn, sigma 25 of 255") + 3
    assert [line.split("  ")[0] for line in lines[head : head + 9]] == [
        "0000", "mean", "pooled", "0000, nlm", "mean, nlm", "pooled, nlm",
        "0000, bm3d", "mean, bm3d", "pooled, bm3d",
    ]  # fmt: skip
    assert [line.split(":")[0] for line in lines[head + 9 : head + 11]] == ["nlm", "bm3d"]


def test_bm3d_is_given_unclipped_noise_and_the_true_sigma(make_model, make_photos, tmp_path, bm3d):
    photos = make_photos([(40, 50)])
    done = record(tmp_path, photos, "--model", make_model(), "--awgn", 50, "--beside", "bm3d")
    ((noisy, sigma),) = bm3d
    assert sigma == 50 / 255
    given = Noise(sigma=50.0, mode="grayscale").make("0000", read_photo(photos / "0000.png"))
    np.testing.assert_array_equal(noisy, given.aged[0].numpy())
    assert noisy.max() > 1
    clean = luma_levels(read_photo(photos / "0000.png"))
    (peer,) = done["measured"][0]["beside"]
    # Its answer is black.
    assert peer["mean"]["mse"] == pytest.approx(np.square(clean / 255).mean())


def test_a_missing_bm3d_is_one_error_with_the_command_and_the_licence(
    make_model, make_photos, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    common = [make_photos([(40, 50)]), "--model", make_model(), "--awgn", 25]
    said = mistake(capsys, *common, "--beside", "bm3d")
    assert "pip install bm3d" in said
    assert "noncommercial use only" in said


def test_bm3d_is_no_dependency_and_no_extra():
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    assert "bm3d" not in text


def test_bm3d_itself_beats_non_local_means_where_it_is_installed():
    pytest.importorskip("bm3d", exc_type=ImportError)
    given = Noise(sigma=25.0, mode="grayscale").make("", photo_like(64, 64, seed=0))
    errors = {
        peer.name: np.square(
            peer.answer(given, sigma=25.0, mode="grayscale").picture.astype(float) - given.clean
        ).mean()
        for peer in find_peers(PEERS)
    }
    assert errors["bm3d"] < errors["nlm"] < 25**2 / 3


def test_a_photo_that_a_denoiser_cannot_take_is_named_and_the_rest_measured(make_photos):
    def denoise(noisy: np.ndarray, sigma: float) -> np.ndarray:
        if noisy.shape[0] == 40:
            raise RuntimeError("too small")
        return noisy

    photos = make_photos([(40, 50), (44, 50)])
    told: list[str] = []
    done = evaluate(
        make_net("grayscale"),
        ModelCard(mode="grayscale", net={}, training={}, sha256="0" * 64),
        find_subjects([str(photos)]),
        plan_cases(mode="grayscale", device=CPU, sigmas=[25]),
        device=CPU,
        model="",
        peers=[Peer(name="picky", about="nothing", denoise=denoise)],
        warn=told.append,
    )
    assert told == ["0000: picky cannot denoise it: too small"]
    (measured,) = done["measured"]
    assert [row["photo"] for row in measured["rows"]] == ["0001"]
    assert [row["photo"] for row in measured["beside"][0]["rows"]] == ["0001"]
    assert "picky: nothing" in list(table(done))


def test_mistakes_of_several_names_are_one_line(make_model, make_photos, capsys):
    common = [make_photos([(40, 50)]), "--model", make_model()]
    for arguments, said in (
        (["--recipe", "seed", "daguerreotype"], "unknown recipe 'daguerreotype'"),
        (["--recipe", "seed", "seed"], "recipe names 'seed' twice"),
        (["--recipe", "all", "awgn"], "recipe names 'awgn' twice"),
        (["--beside", "nlm"], "beside nlm needs noise of a known sigma; give --awgn"),
        (["--awgn", "25", "--beside", "wiener"], "there are: nlm, bm3d"),
        (["--awgn", "25", "--beside", "nlm", "--beside", "nlm"], "names a denoiser twice"),
    ):
        assert said in mistake(capsys, *common, *arguments)
