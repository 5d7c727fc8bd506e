"""`agedphoto evaluate`: the published protocol, the same bytes twice, honest about what failed."""

import dataclasses
import json
import math
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio

from agedphoto import evaluate_answer as answering
from agedphoto.age_photos import photo_key
from agedphoto.cli import main
from agedphoto.datasets import find_photos, read_photo, write_shards
from agedphoto.evaluate_answer import answer
from agedphoto.evaluate_cases import Aged, held_out_key, luma_levels
from agedphoto.evaluate_photos import find_subjects
from agedphoto.evaluate_run import plan_cases, training_recipe
from agedphoto.evaluate_scores import Errors, Row, mean, pooled
from agedphoto.synth import MODES, Dust, Grain, Grayscale, Mode, Recipe, find_recipe
from agedphoto.train import (
    ColorNet,
    ColorNetConfig,
    LabNet,
    ModelCard,
    UNet,
    net_config,
    save_model,
)

CPU = torch.device("cpu")
KODAK = Path(__file__).resolve().parents[2] / "shared" / "data" / "kodak"
NOISY = Recipe(name="noisy", defects=(Grayscale(), Grain(sigma=(0.05, 0.1)), Dust()))
COLORED = Recipe(name="colored", defects=(Grain(sigma=(0.05, 0.1)),))


def make_net(mode: Mode, *, mask_head: bool = False, change: float = 0.0) -> UNet | LabNet:
    """A small network; without `change` it returns its input."""
    torch.manual_seed(0)
    if mode == "lab":
        color = ColorNet(ColorNetConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), heads=2))
        return LabNet(color.eval(), None).eval()
    shape = dataclasses.replace(
        net_config("tiny", mode), widths=(4, 6), blocks=1, middle_blocks=1, mask_head=mask_head
    )
    net = UNet(shape)
    if change:
        torch.nn.init.normal_(net.tail.weight, 0, change)
    return net.eval()


@pytest.fixture
def make_model(tmp_path):
    """Return a function that writes the weights of a small network."""

    def make(mode: Mode = "grayscale", recipe: Recipe | None = NOISY, **options) -> Path:
        path = tmp_path / f"{mode}.safetensors"
        training = {} if recipe is None else {"pairs": {"recipe": recipe.to_dict()}}
        save_model(path, make_net(mode, **options), mode=mode, training=training)
        return path

    return make


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def record(tmp_path: Path, *arguments: object, status: int = 0) -> dict:
    path = tmp_path / "evaluation.json"
    assert run(*arguments, "--json", path) == status
    return json.loads(path.read_text())


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("agedphoto: ")]
    assert len(lines) == 1
    return lines[0]


def published_psnr(photo: np.ndarray, sigma: float) -> float:
    """KAIR's main_test_ffdnet.py with a denoiser that does nothing, written out."""
    clean = np.asarray(photo, np.uint8)
    np.random.seed(seed=0)
    noisy = np.float32(clean / 255.0) + np.random.normal(0, sigma / 255.0, clean.shape)
    answered = np.uint8((np.clip(noisy, 0, 1) * 255.0).round())
    error = np.mean((clean.astype(np.float64) - answered.astype(np.float64)) ** 2)
    return 20 * math.log10(255.0 / math.sqrt(error))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sigma", [15.0, 50.0])
def test_awgn_is_the_published_protocol(mode, sigma, make_model, make_photos, tmp_path):
    photos = make_photos([(40, 50), (33, 61)])
    done = record(tmp_path, photos, "--model", make_model(mode), "--awgn", sigma)
    (measured,) = done["measured"]
    assert measured["kind"] == "awgn"
    assert measured["sigma"] == sigma
    for row, path in zip(measured["rows"], sorted(photos.iterdir()), strict=True):
        photo = Image.open(path)
        seen = np.asarray(photo if mode == "color" else photo.convert("L"))
        # Pillow's luma is of fixed point: a few pixels are one level off.
        tolerance = 1e-4 if mode == "color" else 0.02
        assert row["psnr_db"] == pytest.approx(published_psnr(seen, sigma), abs=tolerance)
        assert row["aged_psnr_db"] == pytest.approx(row["psnr_db"], abs=1e-4)
        assert row["gain_db"] == pytest.approx(0, abs=1e-4)


def test_noise_left_as_it_is_has_the_psnr_of_its_sigma(make_model, tmp_path):
    Image.new("RGB", (256, 256), (128, 128, 128)).save(tmp_path / "gray.png")
    done = record(tmp_path, tmp_path / "gray.png", "--model", make_model(), "--awgn", 25)
    expected = 20 * math.log10(255 / 25)
    assert expected == pytest.approx(20.17, abs=0.005)
    assert done["measured"][0]["mean"]["psnr_db"] == pytest.approx(expected, abs=0.1)


def test_noise_reaches_the_network_unclipped():
    photo = np.full((64, 64, 3), 255, np.uint8)
    (case,) = plan_cases(mode="grayscale", device=CPU, sigmas=[25])
    given = case.make("white", photo)
    beyond = given.aged[given.aged > 1] - 1
    assert 0.45 < len(beyond) / given.aged.numel() < 0.55
    # Nor rounded to 8 bits.
    assert (given.aged * 255 - (given.aged * 255).round()).abs().max() > 0.4

    class Halves(UNet):
        def forward(self, aged, *, with_mask=False):
            return aged / 2

    halved = answer(
        Halves(net_config("tiny", "grayscale")), given.aged, mode="grayscale", device=CPU
    )
    # Had it been clipped first, nothing would be above a half.
    assert (halved.picture > 128).mean() > 0.4


def test_the_process_s_own_generator_is_left_alone(make_photos):
    photo = read_photo(next(make_photos([(20, 20)]).iterdir()))
    (case,) = plan_cases(mode="color", device=CPU, sigmas=[25])
    np.random.seed(3)
    torch.testing.assert_close(case.make("a", photo).aged, case.make("b", photo).aged)
    assert np.random.random() == np.random.RandomState(3).random()


@pytest.mark.skipif(not KODAK.is_dir(), reason="needs ../shared/data")
def test_kodak_has_the_known_noise(make_model, tmp_path):
    photos = sorted(KODAK.iterdir())[:4]
    done = record(tmp_path, *photos, "--model", make_model(), "--awgn", 25)
    assert done["measured"][0]["mean"]["psnr_db"] == pytest.approx(20.3, abs=0.2)


def test_two_runs_give_the_same_bytes(make_model, make_photos, tmp_path):
    photos, model = make_photos([(70, 90), (64, 64)]), make_model(change=0.05)
    written = []
    for name in ("one.json", "two.json"):
        arguments = [photos, "--model", model, "--recipe", "seed", "--awgn", 15, 25]
        assert run(*arguments, "--json", tmp_path / name) == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_the_seed_decides_how_photos_age(make_model, make_photos, tmp_path):
    photos, model = make_photos([(64, 64)]), make_model()
    scores = [
        record(tmp_path, photos, "--model", model, "--seed", seed)["measured"][0]["mean"]["psnr_db"]
        for seed in (0, 1, 0)
    ]
    assert scores[0] == scores[2] != scores[1]


def test_folder_zip_and_shards_give_the_same_rows(make_model, make_photos, tmp_path):
    photos, model = make_photos([(60, 70), (50, 64)]), make_model("color", COLORED)
    make_photos([(64, 48)], folder="photos/below", seed=7)
    write_shards(find_photos(photos), tmp_path / "shards", root=photos, split="valid")
    write_shards(find_photos(photos)[:1], tmp_path / "shards", root=photos, split="train")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in find_photos(photos):
            archive.write(path, path.relative_to(photos))
    done = [
        record(
            tmp_path, tmp_path / source, "--model", model, "--awgn", 25, "--recipe", "heavy_wear"
        )
        for source in ("photos", "photos.zip", "shards")
    ]
    names = [row["photo"] for row in done[0]["measured"][0]["rows"]]
    assert names == ["0000", "0001", "below-0000"]
    assert done[0]["measured"] == done[1]["measured"] == done[2]["measured"]
    only = record(tmp_path, tmp_path / "shards", "--model", model, "--awgn", 25, "--split", "train")
    assert [row["photo"] for row in only["measured"][0]["rows"]] == ["0000"]


def test_a_photo_ages_alike_alone_and_among_others(make_model, make_photos, tmp_path):
    photos, model = make_photos([(60, 70), (50, 64)]), make_model()
    alone = record(tmp_path, photos / "0001.png", "--model", model)
    among = record(tmp_path, photos, "--model", model)
    assert alone["measured"][0]["rows"][0] == among["measured"][0]["rows"][1]


def test_a_photo_that_is_named_twice_counts_once(make_photos):
    photos = make_photos([(20, 20), (20, 20)])
    found = find_subjects([str(photos), str(photos / "0001.png")])
    assert [subject.name for subject in found] == ["0000", "0001"]


def test_photos_of_one_name_in_two_folders_are_two(make_photos):
    one, two = make_photos([(20, 20)]), make_photos([(24, 20)], folder="others")
    found = find_subjects([str(one), str(two)])
    assert [subject.name for subject in found] == ["0000", "0000_2"]
    assert [subject.read().shape[0] for subject in found] == [20, 24]


def test_scores_of_a_recipe_are_those_of_the_pictures(make_model, make_photos, tmp_path):
    """Computed another way: from the aged picture itself, with skimage and boolean arrays."""
    photos = make_photos([(80, 96)])
    model = make_model(change=0.05)
    done = record(tmp_path, photos, "--model", model)
    photo = read_photo(photos / "0000.png")
    case = next(
        case for case in plan_cases(mode="grayscale", device=CPU, recipes=[NOISY])
        if isinstance(case, Aged)
    )  # fmt: skip
    given = case.make("0000", photo)
    assert given.mask is not None
    with torch.no_grad():
        restored = make_net("grayscale", change=0.05)(given.aged[None])[0, 0].clamp(0, 1).numpy()
    restored, clean = np.rint(restored * 255), luma_levels(photo).astype(float)
    aged = given.aged_levels.astype(float)
    (row,) = done["measured"][0]["rows"]

    def psnr(picture: np.ndarray, where: np.ndarray) -> float:
        return peak_signal_noise_ratio(clean[where], picture[where], data_range=255)

    everywhere = np.ones_like(given.mask)
    for name, picture, where in (
        ("psnr_db", restored, everywhere),
        ("aged_psnr_db", aged, everywhere),
        ("inside_psnr_db", restored, given.mask),
        ("aged_inside_psnr_db", aged, given.mask),
        ("outside_psnr_db", restored, ~given.mask),
        ("aged_outside_psnr_db", aged, ~given.mask),
    ):
        assert row[name] == pytest.approx(psnr(picture, where), abs=1e-9), name
    assert row["hidden_share"] == pytest.approx(given.mask.mean())
    assert row["gain_db"] == pytest.approx(row["psnr_db"] - row["aged_psnr_db"])
    assert row["mse"] == pytest.approx(10 ** (-row["psnr_db"] / 10))
    assert "mask_iou" not in row


def test_evaluation_never_ages_as_training_does():
    keys = {int(held_out_key(seed, name)) for seed in (0, 1) for name in ("a", "b")}
    assert len(keys) == 4
    assert keys.isdisjoint({int(photo_key(0, "a")), int(photo_key(0, "b"))})


def test_the_mask_is_judged_where_the_network_has_a_head(make_model, make_photos, tmp_path):
    photos = make_photos([(80, 96), (70, 70)])
    done = record(tmp_path, photos, "--model", make_model(mask_head=True))
    aged, identity = done["measured"]
    # An untrained head finds nothing.
    assert {row["mask_iou"] for row in aged["rows"]} == {0.0}
    assert aged["pooled"]["mask_iou"] == 0.0
    assert all("mask_iou" not in row for row in identity["rows"])


def test_a_mask_that_is_found_has_an_iou_of_one(make_photos):
    class Sees(UNet):
        def forward(self, aged, *, with_mask=False) -> Any:
            hidden = (aged - 0.5).abs() < 0.1
            return (aged, hidden.float() * 2 - 1) if with_mask else aged

    net = Sees(dataclasses.replace(net_config("tiny", "grayscale"), mask_head=True))
    aged = torch.rand(1, 60, 70)
    done = answer(net, aged, mode="grayscale", device=CPU)
    assert done.hidden is not None
    torch.testing.assert_close(done.hidden[0] > 0, (aged - 0.5).abs() < 0.1)
    torch.testing.assert_close(
        torch.from_numpy(done.picture), (aged[0] * 255).round().to(torch.uint8)
    )


def test_a_clean_photo_left_alone_is_perfect_and_finite(make_model, make_photos, tmp_path):
    done = record(tmp_path, make_photos([(40, 50)]), "--model", make_model())
    identity = done["measured"][-1]
    assert identity["kind"] == "identity"
    assert identity["mean"]["psnr_db"] == pytest.approx(168.13, abs=0.01)
    assert identity["mean"]["ssim"] == pytest.approx(1)
    assert "gain_db" not in identity["mean"]


@pytest.mark.parametrize("mode", ["rgb", "lab", "color"])
def test_colors_are_judged_beside_gray_and_the_truth(mode, make_model, make_photos, tmp_path):
    photos = make_photos([(64, 80)])
    done = record(tmp_path, photos, "--model", make_model(mode, COLORED))
    ab = rgb2lab(read_photo(photos / "0000.png"))[:, :, 1:]
    gray = 20 * math.log10(255 / math.sqrt(np.square(ab).mean()))
    aged, clean = (measured["rows"][0] for measured in done["measured"])
    for row in (aged, clean):
        assert row["gray_ab_psnr_db"] == pytest.approx(gray, abs=0.01)
        assert row["ab_gain_db"] == pytest.approx(row["ab_psnr_db"] - row["gray_ab_psnr_db"])
        assert row["clean_colorfulness"] > 20
    if mode == "rgb":
        # It has not learned anything: gray in, gray out.
        assert clean["colorfulness"] == pytest.approx(0, abs=1e-3)
        assert clean["ab_gain_db"] == pytest.approx(0, abs=0.01)
    if mode == "color":
        assert clean["colorfulness"] == clean["clean_colorfulness"]
        assert clean["ab_psnr_db"] > 100


def test_a_gray_answer_has_no_colors(make_model, make_photos, tmp_path):
    done = record(tmp_path, make_photos([(40, 50)]), "--model", make_model())
    assert all("colorfulness" not in measured["mean"] for measured in done["measured"])


def test_mode_lab_gives_the_restored_luma_its_colors(monkeypatch):
    asked = []

    def colorize(net, luma):
        asked.append(luma)
        return torch.tensor([12.0, -20.0]).expand(1, 48, 56, 2).permute(0, 3, 1, 2)

    monkeypatch.setattr(answering, "colorize", colorize)
    luma_net = make_net("grayscale", change=0.05)
    assert isinstance(luma_net, UNet)
    lab_net = make_net("lab")
    assert isinstance(lab_net, LabNet)
    net = LabNet(lab_net.color, luma_net).eval()
    aged = 0.3 + 0.4 * torch.rand(1, 48, 56)
    done = answer(net, aged, mode="lab", device=CPU)
    with torch.no_grad():
        restored = luma_net(aged[None]).clamp(0, 1)
    torch.testing.assert_close(asked[0], restored)
    np.testing.assert_array_equal(done.picture, np.rint(restored[0, 0].numpy() * 255))
    gray = restored[0].expand(3, -1, -1).permute(1, 2, 0).double().numpy()
    lab = rgb2lab(gray)
    lab[:, :, 1:] = 12.0, -20.0
    assert done.colors is not None
    assert np.abs(done.colors - lab2rgb(lab) * 255).max() < 0.75
    plain = answer(net, aged, mode="lab", device=CPU, colors=False)
    assert plain.colors is None
    assert len(asked) == 1


def test_whole_photos_go_through_in_tiles_without_a_seam(monkeypatch):
    monkeypatch.setattr(answering, "AUTO_TILE_PX", {"cpu": 64})
    tiles = []
    net = make_net("grayscale", change=0.02, mask_head=True)
    aged = torch.rand(1, 150, 200)
    done = answer(net, aged, mode="grayscale", device=CPU, on_tile=lambda: tiles.append(1))
    assert len(tiles) > 4
    assert isinstance(net, UNet)
    with torch.no_grad():
        whole = net(aged[None])[0, 0].clamp(0, 1).numpy()
    assert np.abs(done.picture - np.rint(whole * 255)).max() <= 1


def test_the_middle_is_cut_out_on_request(make_model, make_photos, tmp_path):
    photos = make_photos([(60, 90)])
    photo = np.asarray(Image.open(photos / "0000.png"))
    Image.fromarray(photo[14:46, 29:61]).save(tmp_path / "0000.png")
    model = make_model()
    cut = record(tmp_path, photos, "--model", model, "--crop-px", 32, "--awgn", 25)
    alone = record(tmp_path, tmp_path / "0000.png", "--model", model, "--awgn", 25)
    assert cut["measured"] == alone["measured"]
    assert cut["photos"]["crop_px"] == 32


def test_without_options_it_is_the_recipe_of_the_training(
    make_model, make_photos, tmp_path, capsys
):
    photos = make_photos([(40, 50)])
    done = record(tmp_path, photos, "--model", make_model())
    assert [measured["kind"] for measured in done["measured"]] == ["recipe", "identity"]
    assert Recipe.from_dict(done["measured"][0]["recipe"]) == NOISY
    assert "noisy is what the model was trained on" in capsys.readouterr().out
    done = record(tmp_path, photos, "--model", make_model(recipe=None))
    assert [measured["kind"] for measured in done["measured"]] == ["identity"]
    assert "the model names none" in capsys.readouterr().out


def test_a_recipe_named_by_a_card_is_found():
    card = ModelCard(mode="grayscale", net={}, training={"pairs": {"recipe": "film_35mm"}})
    assert training_recipe(card) == find_recipe("film_35mm")


def test_textures_are_held_out_unless_others_are_wanted(make_model, make_photos, tmp_path):
    photos, model = make_photos([(64, 64)]), make_model()
    common = [photos, "--model", model, "--recipe", "seed"]
    held_out, pack = record(tmp_path, *common), record(tmp_path, *common, "--textures", "pack")
    assert held_out["measured"][0]["textures"] == "held-out"
    assert pack["measured"][0]["textures"] == "pack"
    assert held_out["measured"][0]["mean"] != pack["measured"][0]["mean"]


def test_the_json_says_what_it_is(make_model, make_photos, tmp_path):
    photos, model = make_photos([(40, 50), (10, 40)]), make_model()
    done = record(tmp_path, photos, "--model", model, "--awgn", 15, 25)
    assert done["schema"] == "agedphoto-evaluate-1"
    assert done["model"]["mode"] == "grayscale"
    assert len(done["model"]["sha256"]) == 64
    assert done["photos"] == {"measured": 2, "of": 2, "crop_px": None}
    assert {"agedphoto", "torch", "numpy"} <= set(done["versions"])
    assert done["device"]["device"] == "cpu"
    assert [measured["sigma"] for measured in done["measured"]] == [15, 25]
    assert "numpy.random.seed(0)" in done["measured"][0]["protocol"]
    large, small = done["measured"][0]["rows"]
    assert (large["height"], large["width"]) == (40, 50)
    # Too small for SSIM: nothing there, and the mean is of those that have it.
    assert small["ssim"] is None
    assert done["measured"][0]["mean"]["ssim"] == large["ssim"]


def row(psnr_db: float, pixels: int, part: int = 0, whole: int = 0) -> Row:
    errors = {"": Errors(255**2 * 10 ** (-psnr_db / 10) * pixels, pixels)}
    return Row(
        photo="", height=1, width=pixels, errors=errors, ratios={"mask_iou": (part, whole)},
        numbers={"ssim": None},
    )  # fmt: skip


def test_pooled_is_the_score_of_all_pixels_and_the_mean_is_of_photos():
    rows = [row(20, 100, 1, 4), row(40, 300, 3, 4), row(30, 100)]
    assert mean(rows)["psnr_db"] == pytest.approx(30)
    error = (100 * 1e-2 + 300 * 1e-4 + 100 * 1e-3) / 500
    assert pooled(rows)["psnr_db"] == pytest.approx(-10 * math.log10(error))
    assert pooled(rows)["mse"] == pytest.approx(error)
    assert mean(rows)["mask_iou"] == pytest.approx(0.5)
    assert pooled(rows)["mask_iou"] == pytest.approx(0.5)
    assert mean(rows)["ssim"] is None


def test_the_table_has_numbers_under_their_headings(make_model, make_photos, capsys):
    photos = make_photos([(40, 50), (44, 40)])
    assert run(photos, "--model", make_model("color", COLORED, change=0.02), "--rows") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 2 photos measured" in lines[0]
    head = lines.index("recipe colored") + 1
    assert [line.split()[0] for line in lines[head + 2 : head + 6]] == [
        "0000", "0001", "mean", "pooled",
    ]  # fmt: skip
    headings, *rows = [
        {found.end() for found in re.finditer(r"\S+( \S+)*", line)}
        for line in lines[head + 1 : head + 6]
    ]
    assert len(headings) > 12
    # The first is the photo's name, which is flush left.
    assert all({end for end in ends if end > 8} <= headings for ends in rows)
    assert len(rows[0]) == len(headings) + 1
    assert run(photos, "--model", make_model("color", COLORED)) == 0
    assert "0001" not in capsys.readouterr().out


def test_an_unreadable_photo_is_named_and_the_rest_measured(
    make_model, make_photos, tmp_path, capsys
):
    photos = make_photos([(40, 50)] * 3)
    (photos / "0001.png").write_bytes((photos / "0001.png").read_bytes()[:200])
    done = record(tmp_path, photos, "--model", make_model(), "--awgn", 25, status=1)
    captured = capsys.readouterr()
    assert "agedphoto: not measured: " in captured.err
    assert str(photos / "0001.png") in captured.err
    assert "2 of 3 photos measured" in captured.out
    assert [row["photo"] for row in done["measured"][0]["rows"]] == ["0000", "0002"]
    assert [one["photo"] for one in done["not_measured"]] == ["0001"]


def test_a_diverged_network_gives_no_numbers(make_photos, tmp_path, capsys):
    net = make_net("grayscale", change=0.05)
    assert isinstance(net, UNet)
    with torch.no_grad():
        net.tail.weight.fill_(torch.nan)
    save_model(tmp_path / "net.safetensors", net, mode="grayscale", training={})
    photos = make_photos([(40, 50)])
    done = record(tmp_path, photos, "--model", tmp_path / "net.safetensors", status=1)
    assert "0000: the network's answer is not finite" in capsys.readouterr().err
    assert done["measured"] == []


def test_mistakes_are_one_line_and_start_nothing(
    make_model, make_photos, make_shards, tmp_path, capsys
):
    photos, model = make_photos([(40, 50)]), make_model()
    shards = make_shards([(40, 50)])
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ([photos, "--model", "rembrandt"], "unknown model 'rembrandt'"),
        ([tmp_path / "gone", "--model", model], f"no such file or folder: {tmp_path / 'gone'}"),
        ([tmp_path / "empty", "--model", model], "no photographs in"),
        ([shards, "--model", model], "no split 'valid'"),
        ([photos, "--model", model, "--recipe", "daguerreotype"], "unknown recipe 'daguerreotype'"),
        ([photos, "--model", model, "--awgn", "0"], "awgn must be above 0"),
        ([photos, "--model", model, "--awgn", "nan"], "awgn must be above 0"),
        ([photos, "--model", model, "--awgn", "25", "25"], "names a sigma twice"),
        ([photos, "--model", model, "--crop-px", "8"], "crop_px must be at least 16"),
        ([photos, "--model", model, "--seed", "-1"], "seed must be"),
        ([photos, "--model", model, "--device", "abacus"], "use auto, cpu, cuda"),
        ([photos, "--model", model, "--json", tmp_path], "json must be a file"),
        (
            [photos, "--model", model, "--recipe", "seed", "--textures", tmp_path / "none"],
            "unknown textures",
        ),
    ):
        assert said in mistake(capsys, *arguments)


def test_no_photos_at_all_are_a_mistake(make_model, capsys):
    assert "no photographs given" in mistake(capsys, "--model", make_model())


def test_the_command_line_does_not_import_torchmetrics():
    code = "import sys, agedphoto, agedphoto.cli; print('torchmetrics' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"


def test_every_example_of_its_page_does_what_it_says(
    make_photos, make_shards, make_model, tmp_path, monkeypatch
):
    page = Path(__file__).resolve().parents[1] / "docs" / "evaluating.md"
    commands = [
        line
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(commands) == 7
    make_photos([(64, 80), (50, 40)], folder="kodak")
    make_shards([(64, 80)], name="data/mine", split="valid")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    make_model().rename(tmp_path / "runs" / "mine" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
    named = set(re.findall(r"^\| `(\w+)`", page.read_text(), flags=re.MULTILINE))
    done = json.loads((tmp_path / "evaluation.json").read_text())
    values = {name for measured in done["measured"] for name in measured["mean"]}
    assert values <= named
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    exec(code, {})
