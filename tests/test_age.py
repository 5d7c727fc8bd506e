"""`agedphoto age`: photos age by the seed and their names, in tiles as in one piece, replayable."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image, ImageCms

from agedphoto import age_photos as age_photos_module
from agedphoto.age import Age
from agedphoto.age_params import Drawn, plain_params
from agedphoto.age_photos import age_photos, photo_key, plan_ageing
from agedphoto.age_recipe import read_recipe
from agedphoto.age_settled import settle
from agedphoto.age_tiles import age_tiled, spans
from agedphoto.synth import (
    RECIPES,
    Ageing,
    AnyOrder,
    Defect,
    Grain,
    Grayscale,
    Mode,
    Recipe,
    Sometimes,
    Texture,
    find_recipe,
)
from agedphoto.synth.scene import Scene, per_pixel
from agedphoto.synth.toning import Toning
from agedphoto.synth.vignette import Vignette
from agedphoto.textures import TextureBank
from tests.conftest import photo_like

CPU = torch.device("cpu")
COLOR = Recipe(name="color", defects=(Grain(sigma=(0.02, 0.1)), Texture(alpha=(0.3, 0.9))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift(Defect):
    """Shows at each pixel what lies 21 px to the left and above."""

    far_px: int = 21

    def sample(self, scene: Scene) -> dict[str, torch.Tensor]:
        return {"gain": 0.5 + 0.5 * scene.uniform(1)[:, 0]}

    def apply(self, x, params, scene):
        padded = torch.nn.functional.pad(x, (self.far_px, 0, self.far_px, 0), mode="replicate")
        return padded[..., : x.shape[2], : x.shape[3]] * per_pixel(params["gain"]), None

    def reach_px(self, size: tuple[int, int]) -> int:
        return self.far_px


@pytest.fixture(autouse=True)
def _few_textures(monkeypatch, textures):
    """The verbs draw from a small bank."""
    monkeypatch.setattr(Ageing, "textures_on", lambda self, device: textures.to(device))


def run(*arguments: object) -> int:
    """Run the verb as the command line does; its mistakes raise ValueError."""
    return tyro.cli(Age, args=[str(argument) for argument in arguments]).run()


def age(source: Path, out: Path, recipe: Recipe = COLOR, **options) -> list[str]:
    """Age with a recipe; return the errors."""
    names = ("suffix", "save_mask", "save_params", "replay")
    planned = {name: options.pop(name) for name in names if name in options}
    jobs = plan_ageing([source], out, **planned)
    done = age_photos(jobs, recipe=recipe, device=CPU, **options)
    return [one.error for one in done if one.error]


def save_json(recipe: Recipe, path: Path) -> Path:
    path.write_text(recipe.to_json())
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---------------------------------------------------------------- tiles


@pytest.mark.parametrize("length", [1, 15, 64, 65, 200])
@pytest.mark.parametrize("halo", [0, 16, 48])
def test_tiles_cover_every_pixel_once_on_the_grid_of_jpeg(length, halo):
    seen = np.zeros(length, int)
    for span in spans(length, 64, halo):
        seen[span.start : span.end] += 1
        assert span.window_start % 16 == 0
        assert span.window_end % 16 == 0 or span.window_end == length
        assert span.window_start == max(0, span.start - halo)
        assert span.window_end == min(length, span.end + halo)
    assert (seen == 1).all()


@pytest.mark.parametrize(
    "recipe", [*RECIPES, COLOR, Recipe(name="far", defects=(Shift(), Grain()))]
)
@pytest.mark.parametrize("size", [(150, 210), (1, 90), (70, 1)])
def test_a_picture_ages_in_tiles_as_in_one_piece(textures, recipe, size):
    ageing = Ageing(recipe, textures=textures, augment=False)
    for seed in range(2):
        keys = photo_key(seed, "a.jpg")
        picture = photo_like(*size, seed=seed)
        params = ageing.sample(keys, size=size)
        tiled = age_tiled(ageing, picture, params, keys=keys, tile_px=64)
        whole = ageing.apply(torch.from_numpy(picture).permute(2, 0, 1)[None], params, keys=keys)
        levels = (whole.aged[0].permute(1, 2, 0).numpy() * 255.0).round()
        difference = np.abs(np.atleast_3d(tiled.aged).astype(float) - levels).max(2)
        # Where a threshold falls may depend on the last bit.
        assert (difference <= 1).mean() >= 0.999
        assert (tiled.mask == whole.mask[0, 0].numpy()).mean() >= 0.999


def test_no_tile_is_wrong_when_the_halo_is_as_wide_as_the_recipe_reaches(textures):
    recipe = Recipe(name="far", defects=(Shift(far_px=40), Shift(far_px=9)))
    ageing = Ageing(recipe, textures=textures, augment=False)
    picture, keys = photo_like(200, 170, seed=3), photo_key(0, "a")
    params = ageing.sample(keys, size=(200, 170))
    pieces = [age_tiled(ageing, picture, params, keys=keys, tile_px=px) for px in (16, 64, 1024)]
    assert np.array_equal(pieces[0].aged, pieces[2].aged)
    assert np.array_equal(pieces[1].aged, pieces[2].aged)


def test_a_tile_off_the_grid_is_refused(textures):
    ageing = Ageing("seed", textures=textures, augment=False)
    keys = photo_key(0, "a")
    with pytest.raises(ValueError, match="multiple of 16, got 100"):
        age_tiled(
            ageing, photo_like(20, 20, seed=0), ageing.sample(keys, size=(20, 20)), keys=keys,
            tile_px=100,
        )  # fmt: skip


def test_gray_results_have_one_channel_and_coloured_ones_three(textures):
    picture, keys = photo_like(80, 90, seed=0), photo_key(0, "a")
    cases: list[tuple[str | Recipe, Mode, tuple[int, ...]]] = [
        ("seed", "color", (80, 90)), (COLOR, "color", (80, 90, 3)),
        (COLOR, "grayscale", (80, 90)),
    ]  # fmt: skip
    for recipe, mode, shape in cases:
        ageing = Ageing(recipe, mode=mode, textures=textures, augment=False)
        params = ageing.sample(keys, size=(80, 90))
        assert age_tiled(ageing, picture, params, keys=keys, tile_px=64).aged.shape == shape


def test_one_pixel_of_colour_in_any_tile_is_enough(textures):
    recipe = Recipe(name="none", defects=(Grain(sigma=(0.0, 0.0)),))
    ageing = Ageing(recipe, textures=textures, augment=False)
    picture, keys = np.full((100, 100, 3), 90, np.uint8), photo_key(0, "a")
    params = ageing.sample(keys, size=(100, 100))
    assert age_tiled(ageing, picture, params, keys=keys, tile_px=64).aged.ndim == 2
    picture[5, 5, 1] += 1
    assert np.array_equal(age_tiled(ageing, picture, params, keys=keys, tile_px=64).aged, picture)


MIXED = Recipe(
    name="mixed",
    defects=(
        Sometimes(what=Grayscale(), p=0.7),
        Sometimes(what=Toning(), p=0.4),
        Grain(sigma=(0.05, 0.1)),
        AnyOrder(defects=(Shift(far_px=3), Sometimes(what=Texture()), Grain(sigma=(0.1, 0.1)))),
        Sometimes(what=AnyOrder(defects=(Vignette(), Texture())), p=0.5),
    ),
)
"""Colour comes and goes, and the grain after it has as many channels."""


@pytest.mark.parametrize("recipe", [*RECIPES, MIXED])
def test_what_happens_to_one_photo_is_the_same_without_what_does_not(textures, recipe):
    ageing = Ageing(recipe, textures=textures, augment=False)
    x = torch.from_numpy(photo_like(40, 56, seed=0)).permute(2, 0, 1)[None]
    for seed in range(6 if recipe is not MIXED else 24):
        keys = photo_key(seed, "a")
        params = ageing.sample(keys, size=(40, 56))
        settled = settle(ageing.recipe, params)
        assert settled.reach_px((40, 56)) <= ageing.recipe.reach_px((40, 56))
        alone = Ageing(settled, textures=textures, augment=False)
        whole, short = (one.apply(x, params, keys=keys) for one in (ageing, alone))
        torch.testing.assert_close(short.aged, whole.aged, rtol=0, atol=1e-6)
        assert torch.equal(whole.mask, short.mask)


def test_what_does_not_happen_is_not_computed_and_needs_no_halo(textures):
    rare = Recipe(name="rare", defects=(Sometimes(what=Shift(far_px=50), p=0.0), Grain()))
    ageing = Ageing(rare, textures=textures, augment=False)
    params = ageing.sample(photo_key(0, "a"), size=(40, 56))
    assert ageing.recipe.reach_px((40, 56)) == 50
    assert settle(rare, params).reach_px((40, 56)) == 0
    with pytest.raises(NotImplementedError):
        settle(rare, params).defects[0].sample(ageing._scenes(photo_key(0, "a"), (4, 4))[0])


# ---------------------------------------------------------------- keys


def test_a_photo_ages_alike_alone_among_others_and_after_others_came(make_photos, tmp_path):
    photos = make_photos([(40, 50)] * 3)
    assert age(photos, tmp_path / "all") == []
    assert age(photos / "0001.png", tmp_path / "alone") == []
    make_photos([(30, 30)], folder="photos/0000-before")
    shutil.copy(photos / "0002.png", photos / "00-first.png")
    assert age(photos, tmp_path / "more") == []
    every = contents(tmp_path / "all")
    assert contents(tmp_path / "alone") == {"0001_aged.png": every["0001_aged.png"]}
    more = contents(tmp_path / "more")
    assert {name: more[name] for name in every} == every
    assert set(more) - set(every) == {"00-first_aged.png", "0000-before/0000_aged.png"}


def test_the_same_photo_under_another_name_or_seed_ages_otherwise(make_photos, tmp_path):
    photos = make_photos([(40, 50)])
    shutil.copy(photos / "0000.png", photos / "copy.png")
    (photos / "below").mkdir()
    shutil.copy(photos / "0000.png", photos / "below" / "0000.png")
    assert age(photos, tmp_path / "out") == age(photos, tmp_path / "other", seed=1) == []
    made = [*contents(tmp_path / "out").values(), *contents(tmp_path / "other").values()]
    assert len(set(made)) == 6


def test_a_key_does_not_depend_on_how_a_system_writes_an_umlaut():
    assert photo_key(3, "Gr\u00fc\u00dfe.jpg") == photo_key(3, "Gru\u0308\u00dfe.jpg")
    assert photo_key(3, "a/b.jpg") != photo_key(3, "b.jpg")
    assert photo_key(3, "a.jpg") != photo_key(4, "a.jpg")


# ---------------------------------------------------------------- files


def test_a_result_is_what_ageing_makes_of_the_photo(make_photos, textures, tmp_path):
    photos = make_photos([(60, 44)])
    assert age(photos, tmp_path / "out", save_mask=True) == []
    ageing = Ageing(COLOR, textures=textures, augment=False)
    x = torch.from_numpy(pixels(photos / "0000.png").copy()).permute(2, 0, 1)[None]
    aged, _, mask = ageing(x, photo_key(0, "0000.png"))
    expected = (aged[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(pixels(tmp_path / "out" / "0000_aged.png"), expected)
    saved = pixels(tmp_path / "out" / "0000_aged_mask.png")
    assert saved.dtype == np.uint8
    assert np.array_equal(saved, mask[0, 0].numpy() * np.uint8(255))
    assert 0 < mask.float().mean() < 1


def test_names_and_tree_are_kept_and_originals_untouched(make_photos, tmp_path):
    photos = make_photos([(30, 40)] * 2)
    make_photos([(30, 40)], folder="photos/1950/x")
    Image.fromarray(photo_like(30, 40, seed=9)).save(photos / "1950" / "b.JPG")
    Image.fromarray(photo_like(30, 40, seed=9)).save(photos / "c.gif")
    before = contents(photos)
    assert run(photos, "--out", tmp_path / "out", "--save-mask", "--save-params") == 0
    assert contents(photos) == before
    stems = {"0000": ".png", "0001": ".png", "1950/x/0000": ".png", "1950/b": ".JPG", "c": ".png"}
    assert set(contents(tmp_path / "out")) == {
        f"{stem}_aged{end}"
        for stem, suffix in stems.items()
        for end in (suffix, "_mask.png", ".json")
    }
    assert pixels(tmp_path / "out" / "1950" / "b_aged.JPG").shape == (30, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_age_upright(tmp_path, orientation):
    picture = photo_like(24, 40, seed=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Kodak"
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in" / "a.png", exif=exif)
    still = Recipe(name="still", defects=(Grain(sigma=(0.0, 0.0)),))
    assert age(tmp_path / "in", tmp_path / "out", still) == []
    turned = [
        picture, picture[:, ::-1], picture[::-1, ::-1], picture[::-1], picture.transpose(1, 0, 2),
        np.rot90(picture, -1), picture[::-1, ::-1].transpose(1, 0, 2), np.rot90(picture),
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "a_aged.png") as image:
        assert np.array_equal(np.asarray(image), turned[orientation - 1])
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Kodak"


@pytest.mark.parametrize("extension", ["bmp", "jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("recipe", ["seed", "color"])
def test_gray_results_are_saved_as_gray_in_every_format(tmp_path, extension, recipe):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo_like(40, 30, seed=0)).save(tmp_path / "in" / f"a.{extension}")
    assert (
        age(tmp_path / "in", tmp_path / "out", COLOR if recipe == "color" else find_recipe(recipe))
        == []
    )
    with Image.open(tmp_path / "out" / f"a_aged.{extension}") as image:
        # WebP knows no gray.
        expected = "RGB" if recipe == "color" or extension == "webp" else "L"
        assert image.mode == expected


def test_a_photo_with_a_profile_comes_out_in_srgb_and_says_so(tmp_path):
    (tmp_path / "in").mkdir()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.fromarray(photo_like(40, 30, seed=0))
    image.save(tmp_path / "in" / "a.png", icc_profile=profile, dpi=(300, 300))
    image.save(tmp_path / "in" / "plain.png")
    for number in range(2):
        assert age(tmp_path / "in", tmp_path / f"out{number}") == []
    assert contents(tmp_path / "out0") == contents(tmp_path / "out1")
    with Image.open(tmp_path / "out0" / "a_aged.png") as aged:
        kept = aged.info
    said = ImageCms.ImageCmsProfile(ImageCms.core.profile_frombytes(kept["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(said)
    assert kept["dpi"] == pytest.approx((300, 300), abs=0.1)
    with Image.open(tmp_path / "out0" / "plain_aged.png") as plain:
        assert "icc_profile" not in plain.info
    assert age(tmp_path / "in", tmp_path / "gray", find_recipe("seed")) == []
    with Image.open(tmp_path / "gray" / "a_aged.png") as gray:
        assert (gray.mode, "icc_profile" in gray.info) == ("L", False)


def test_a_bad_photo_is_named_and_the_rest_done(make_photos, tmp_path, capsys):
    photos = make_photos([(30, 40)] * 3)
    (photos / "0001.png").write_bytes((photos / "0001.png").read_bytes()[:400])
    (photos / "letter.jpg").write_text("Dear grandmother")
    assert run(photos, "--out", tmp_path / "out") == 1
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("agedphoto: not aged: ")]
    assert len(lines) == 2
    assert "0001.png" in lines[0]
    assert "letter.jpg" in lines[1]
    assert f"2 of 4 photos aged: {tmp_path / 'out'}" in said.out
    assert set(contents(tmp_path / "out")) == {"0000_aged.png", "0002_aged.png"}


def test_a_result_that_cannot_be_written_is_named_and_the_rest_done(make_photos, tmp_path):
    photos = make_photos([(30, 40)] * 3)
    (tmp_path / "out" / "0000_aged.png").mkdir(parents=True)
    (tmp_path / "out" / "1950").write_text("no folder")
    make_photos([(30, 40)], folder="photos/1950")
    errors = age(photos, tmp_path / "out")
    assert len(errors) == 2
    assert "0000_aged.png" in errors[0]
    assert "1950: it is a file" in errors[1]
    assert (tmp_path / "out" / "0002_aged.png").is_file()


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    make_photos, tmp_path, monkeypatch
):
    photos = make_photos([(30, 40)] * 3)
    write = age_photos_module.write_bytes

    def fills(path, data):
        if path.name.startswith("0001"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(age_photos_module, "write_bytes", fills)
    with pytest.raises(OSError, match="No space left"):
        age(photos, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"0000_aged.png"}


def test_what_would_be_overwritten_is_refused(make_photos, tmp_path):
    photos = make_photos([(30, 40)])
    Image.fromarray(pixels(photos / "0000.png")).save(photos / "0000.jpg")
    out = tmp_path / "out"
    assert len(plan_ageing([photos], out)) == 2
    with pytest.raises(ValueError, match=r"would both be written to .*0000_aged_mask\.png"):
        plan_ageing([photos], out, save_mask=True)
    (photos / "0000.jpg").rename(photos / "0000_mask.png")
    with pytest.raises(ValueError, match=r"0000_mask\.png"):
        plan_ageing([photos], out, suffix="", save_mask=True)
    with pytest.raises(ValueError, match="would be overwritten"):
        plan_ageing([photos], photos, suffix="")
    (photos / "0000_mask.png").rename(photos / "contact_sheet.jpg")
    with pytest.raises(ValueError, match=r"contact_sheet\.jpg would be overwritten"):
        run(photos, "--out", photos, "--sheet")


# ---------------------------------------------------------------- replay


@pytest.mark.parametrize("recipe", [*RECIPES, COLOR])
def test_what_was_drawn_comes_back_exactly_from_json(recipe, textures):
    ageing = Ageing(recipe, textures=textures, augment=False)
    for seed in range(3):
        keys = photo_key(seed, "a")
        params = ageing.sample(keys, size=(60, 50))
        drawn = Drawn.of(ageing, params, photo="a", keys=keys, size=(60, 50), textures="f")
        data = json.loads(json.dumps(drawn.to_dict(), allow_nan=False))
        read = Drawn(
            photo=data["photo"], key=data["key"], size=tuple(data["size"]), mode=data["mode"],
            recipe=Recipe.from_dict(data["recipe"]), textures=data["textures"],
            params=data["params"],
        )  # fmt: skip
        assert read == drawn
        again, restored = read.restore(ageing, device=CPU, textures="f")
        assert torch.equal(again, keys)
        assert len(restored) == len(params)
        for one, other in zip(params, restored, strict=True):
            assert set(one) == set(other)
            assert all(one[name].dtype == other[name].dtype for name in one)
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_replay_gives_the_same_files(make_photos, tmp_path):
    photos = make_photos([(30, 40), (50, 44)])
    make_photos([(40, 30)], folder="photos/1950")
    recipe = save_json(COLOR, tmp_path / "mine.json")
    arguments = [photos, "--save-mask", "--save-params"]
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert run(*arguments, "--out", first, "--recipe", recipe, "--seed", 7) == 0
    # All of a folder; and one whose photo has another name by now.
    assert run(*arguments, "--out", second, "--params", first) == 0
    assert contents(first) == contents(second)
    moved = tmp_path / "moved.png"
    shutil.copy(photos / "0001.png", moved)
    assert run(moved, "--out", third, "--params", first / "0001_aged.json", "--save-mask") == 0
    made = contents(first)
    assert contents(third) == {
        "moved_aged.png": made["0001_aged.png"], "moved_aged_mask.png": made["0001_aged_mask.png"],
    }  # fmt: skip


def test_a_replay_of_a_gray_mode_is_gray(make_photos, tmp_path):
    photos = make_photos([(30, 40)])
    recipe = save_json(COLOR, tmp_path / "mine.json")
    options = ["--recipe", recipe, "--mode", "grayscale", "--save-params"]
    assert run(photos, "--out", tmp_path / "a", *options) == 0
    assert run(photos, "--out", tmp_path / "b", "--params", tmp_path / "a", "--save-params") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert pixels(tmp_path / "b" / "0000_aged.png").ndim == 2


def test_params_may_be_changed_by_hand(make_photos, tmp_path):
    photos = make_photos([(30, 40)])
    assert age(photos, tmp_path / "a", save_params=True) == []
    path = tmp_path / "a" / "0000_aged.json"
    data = json.loads(path.read_text())
    # Whole numbers do for a strength.
    data["params"][0]["sigma"] = data["params"][1]["alpha"] = 0
    path.write_text(json.dumps(data))
    assert age(photos, tmp_path / "b", replay=path) == []
    assert np.array_equal(pixels(tmp_path / "b" / "0000_aged.png"), pixels(photos / "0000.png"))


def damaged(data: dict, place: str) -> dict:
    """Change one thing of saved parameters."""
    data = json.loads(json.dumps(data))
    match place:
        case "version":
            data["version"] = 99
        case "size":
            data["size"] = [30, 41]
        case "key":
            data["key"] = 0.5
        case "key too large":
            data["key"] = 2**63
        case "missing":
            del data["recipe"]
        case "defect":
            data["recipe"]["defects"][0]["defect"] = "moths"
        case "textures":
            data["textures"] = "0" * 16
        case "params":
            del data["params"][0]["sigma"]
        case "shape":
            data["params"][0]["sigma"] = [0.1, 0.2]
        case "type":
            data["params"][1]["top"] = 3.7
        case "text":
            data["params"][0]["sigma"] = "much"
        case "list":
            data["params"] = data["params"][:1]
        case "no list":
            data["params"] = {}
        case "mode":
            data["mode"] = "sepia"
    return data


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("version", "no parameters of this version"), ("size", "needs the same size"),
        ("key", "whole numbers"), ("key too large", "whole numbers"),
        ("missing", "'recipe' is missing"), ("defect", "unknown defect 'moths'"),
        ("textures", "for the textures 0000000000000000"), ("params", "must be sigma, got none"),
        ("shape", r"param 0\.sigma must be float32 of shape \(\)"),
        ("type", r"param 1\.top must be int64"), ("text", r"param 0\.sigma"),
        ("list", "params must be of 2 defects, got 1"), ("no list", "params must be a list"),
        ("mode", "unknown mode 'sepia'"),
    ],
)  # fmt: skip
def test_params_that_do_not_fit_are_named(make_photos, tmp_path, place, complaint):
    photos = make_photos([(30, 40)])
    assert age(photos, tmp_path / "a", save_params=True) == []
    data = json.loads((tmp_path / "a" / "0000_aged.json").read_text())
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(damaged(data, place)))
    (error,) = age(photos, tmp_path / "b", replay=path)
    assert str(path) in error
    assert re.search(complaint, error), error


def test_a_photo_without_params_is_named_and_the_rest_done(make_photos, tmp_path):
    photos = make_photos([(30, 40)] * 2)
    assert age(photos, tmp_path / "a", save_params=True) == []
    (tmp_path / "a" / "0000_aged.json").unlink()
    (error,) = age(photos, tmp_path / "b", replay=tmp_path / "a")
    assert "0000_aged.json: No such file" in error
    assert set(contents(tmp_path / "b")) == {"0001_aged.png"}


def test_params_of_a_batch_are_told_apart(textures):
    ageing = Ageing(COLOR, textures=textures)
    keys = torch.cat([photo_key(0, "a"), photo_key(0, "b")])
    params = ageing.sample(keys, size=(30, 30))
    for number in range(2):
        alone = ageing.sample(keys[number : number + 1], size=(30, 30))
        assert plain_params(params, number) == plain_params(alone, 0)


# ---------------------------------------------------------------- recipes and mistakes


def test_a_recipe_of_ones_own_is_read_from_json(make_photos, tmp_path):
    assert read_recipe(save_json(COLOR, tmp_path / "mine.json")) == COLOR
    assert read_recipe("seed") == find_recipe("seed")
    assert age(make_photos([(20, 20)]), tmp_path / "a") == []
    options = ["--out", tmp_path / "b", "--recipe", tmp_path / "mine.json"]
    assert run(tmp_path / "photos", *options) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_wear_comes_from_a_folder_of_ones_own(make_photos, tmp_path, monkeypatch):
    monkeypatch.undo()
    scans = tmp_path / "scans"
    scans.mkdir()
    dust = Image.fromarray(TextureBank.synthesize(1, size_px=128).textures[0].numpy())
    dust.save(scans / "dust.png")
    photos = make_photos([(60, 80)])
    options = ["--recipe", save_json(COLOR, tmp_path / "mine.json"), "--save-params"]
    assert run(photos, "--out", tmp_path / "a", *options, "--textures", scans) == 0
    bank = TextureBank.from_scans(scans)
    assert age(photos, tmp_path / "b", textures=bank, save_params=True) == []
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    replay = ["--params", tmp_path / "a"]
    assert run(photos, "--out", tmp_path / "c", *replay, "--textures", scans) == 0
    assert run(photos, "--out", tmp_path / "d", *replay) == 1
    with pytest.raises(ValueError, match="unknown textures 'gone'"):
        run(photos, "--out", tmp_path / "e", "--textures", "gone")
    hairs = Recipe(name="hairs", defects=(Texture(families=("hairs",)),))
    with pytest.raises(ValueError, match="no textures 'hairs' in this bank of scans"):
        age(photos, tmp_path / "e", hairs, textures=bank)
    assert age(photos, tmp_path / "e", hairs, textures=bank, replay=tmp_path / "a") == []


def test_a_recipe_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"unknown recipe 'daguerreotype'; there are: .*seed"):
        read_recipe("daguerreotype")
    with pytest.raises(ValueError, match=r"gone\.json: No such file"):
        read_recipe(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json: this recipe is not JSON"):
        read_recipe(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cannot read the recipe .*bad\.json"):
        read_recipe(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipe", "none"], "unknown recipe"), (["--seed", "-1"], "seed must be"),
        (["--device", "abacus"], "unknown device"), (["--suffix", "a/b"], "suffix must be"),
        (["--num-ageings", "0"], "num_ageings must be"),
        (["--params", "gone.json"], "no such file or folder: gone.json"),
        (["--params", ".", "--recipe", "x.json"], "recipe does not go with this"),
        (["--params", ".", "--seed", "3"], "seed does not go with this"),
        (["--params", ".", "--sheet"], "sheet does not go with this"),
        (["--sheet", "defects", "--save-mask"], "save_mask does not go with this"),
        (["--sheet", "defects", "ageings"], "choose one"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_is_done(make_photos, tmp_path, arguments, complaint):
    photos = make_photos([(20, 20)])
    with pytest.raises(ValueError, match=complaint):
        run(photos, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_nothing_to_age_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="no photographs given"):
        run("--out", tmp_path / "out")
    with pytest.raises(ValueError, match="no such file or folder"):
        run(tmp_path / "gone", "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- memory

MEMORY = """
import sys
from pathlib import Path
import torch
from PIL import Image
from agedphoto.age_photos import age_photos, plan_ageing
from agedphoto.synth import Ageing, find_recipe
from agedphoto.textures import TextureBank

torch.set_num_threads(1)
bank = TextureBank.synthesize(2, size_px=256)

def peak():
    # Not getrusage: of a new process it tells what its parent had.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

def age(name):
    jobs = plan_ageing([Path(sys.argv[1], name)], Path(sys.argv[1], "out"), save_mask=True)
    settings = dict(recipe=find_recipe("seed"), device=torch.device("cpu"), textures=bank)
    assert [done.error for done in age_photos(jobs, **settings)] == [""]

age("small.jpg")
before = peak()
age("large.jpg")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_40_megapixels_age_in_20_bytes_a_pixel(tmp_path):
    """Of which decoding takes most; in one piece it would be a hundred for the grain alone."""
    small = Image.fromarray(photo_like(1100, 1100, seed=0))
    small.save(tmp_path / "small.jpg")
    small.resize((7300, 5480)).save(tmp_path / "large.jpg")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 20 * 7300 * 5480 / 2**20
    with Image.open(tmp_path / "out" / "large_aged.jpg") as image:
        assert image.size == (7300, 5480)
