"""`agedphoto restore`: a box of photographs, whatever is in it and whatever happens on the way."""

import hashlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from launched import Launched, run, torchrun
from nano import NANO, NANO_COLORS
from PIL import Image

from agedphoto.restore import Job, Restorer, find_model, models, plan_jobs, restore_photos
from agedphoto.restore.batch import changed_share
from agedphoto.restore.masks import pair_masks
from agedphoto.restore_ranks import Ranks
from agedphoto.restoring import Restore
from agedphoto.train import ColorNet, LabNet, UNet, save_model

SCRIPT = Path(__file__).with_name("launched_restore.py")


def photo(height: int = 40, width: int = 56, *, seed: int = 0) -> np.ndarray:
    """Colourful: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo() if pixels is None else pixels).save(path, **options)
    return path


def restore(*words: object) -> int:
    """Run the verb in this process; return the exit status."""
    return tyro.cli(Restore, args=[str(word) for word in words]).run()


def names(folder: Path) -> set[str]:
    """Everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Mode grayscale, untrained; changes every picture."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    net = UNet(NANO)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0, 0.5 / weight[0].numel() ** 0.5)
    save_model(path, net, mode="grayscale", training={})
    return path


@pytest.fixture(scope="module")
def lab_model(tmp_path_factory) -> Path:
    """Mode lab, with a network for luminance."""
    path = tmp_path_factory.mktemp("lab") / "model.safetensors"
    torch.manual_seed(0)
    color = ColorNet(NANO_COLORS)
    for weight in color.parameters():
        torch.nn.init.normal_(weight, 0, 1.0 / weight[0].numel() ** 0.5)
    save_model(path, LabNet(color, UNet(NANO)), mode="lab", training={})
    return path


# ---------------------------------------------------------------- what people have in their folders


def test_a_box_as_people_have_it(model, tmp_path, capsys):
    """`x.jpeg` keeps its suffix whole; spaces, letters of all kinds and upper case are names too;
    formats that others pass over without a word are done; a letter in the box stops nothing."""
    box = tmp_path / "Oma's box" / "in ä"
    for name in (
        "x.jpeg", "X.JPG", "Foto 1 (Kopie).PNG", "фото.tif", "写真.webp", "a.b.TIFF",
        "1950 & 1951/-x.jpg", "1950 & 1951/deep er/y.bmp", "%s$HOME.png",
    ):  # fmt: skip
        save(box / name)
    (box / "letter.txt").write_text("Dear grandmother")
    (box / "Thumbs.db").write_bytes(b"\0" * 100)
    out = tmp_path / "out put"
    assert restore(box, "--out", out, "--model", model) == 0
    assert names(out) == {
        "x_restored.jpeg", "X_restored.JPG", "Foto 1 (Kopie)_restored.PNG", "фото_restored.tif",
        "写真_restored.webp", "a.b_restored.TIFF", "1950 & 1951/-x_restored.jpg",
        "1950 & 1951/deep er/y_restored.bmp", "%s$HOME_restored.png",
    }  # fmt: skip
    assert "9 of 9 photos restored" in capsys.readouterr().out
    for name in names(out):
        with Image.open(out / name) as image:
            assert image.size == (56, 40)


def test_what_is_no_photo_is_named_at_the_end_and_the_status_says_so(model, tmp_path, capsys):
    box = tmp_path / "in"
    save(box / "a.png")
    (box / "b.jpg").write_text("Dear grandmother")
    (box / "c.tif").write_bytes(b"")
    save(box / "d.png")
    for jobs in (1, 2, 5):
        out = tmp_path / f"out{jobs}"
        assert restore(box, "--out", out, "--model", model, "--jobs", jobs) == 1
        assert names(out) == {"a_restored.png", "d_restored.png"}
        said = capsys.readouterr()
        last = said.err.splitlines()[-2:]
        assert re.match(r"agedphoto: not restored: .*b\.jpg: ", last[0])
        assert re.match(r"agedphoto: not restored: .*c\.tif: ", last[1])
        assert "2 of 4 photos restored" in said.out


def test_a_pattern_that_the_shell_left_alone_is_expanded_here(model, tmp_path):
    box = tmp_path / "in"
    for name in ("a.png", "b.jpg", "x/c.png", "x/y/d.png", ".hidden.png"):
        save(box / name)
    (box / "e.txt").write_text("Dear grandmother")
    for pattern, expected in {
        "*.png": {"a_restored.png"},
        "*": {"a_restored.png", "b_restored.jpg", "x/c_restored.png", "x/y/d_restored.png"},
        "**/*.png": {"a_restored.png", "x/c_restored.png", "x/y/d_restored.png"},
        "**": {"a_restored.png", "b_restored.jpg", "x/c_restored.png", "x/y/d_restored.png"},
        "?.[jp]*": {"a_restored.png", "b_restored.jpg"},
    }.items():
        out = tmp_path / "out"
        found = {str(job.target.relative_to(out)) for job in plan_jobs([box / pattern], out)}
        assert found == expected, pattern
    with pytest.raises(ValueError, match=r"no photographs match .*\*\.tif"):
        plan_jobs([box / "*.tif"], tmp_path / "out")
    # A file that is called like a pattern is that file.
    save(box / "[1].png")
    assert restore(box / "[1].png", "--out", tmp_path / "out", "--model", model) == 0
    assert names(tmp_path / "out") == {"[1]_restored.png"}


def test_folders_below_are_left_out_if_that_is_wanted(model, tmp_path):
    for name in ("a.png", "x/b.png"):
        save(tmp_path / "in" / name)
    command = [tmp_path / "in", "--out", tmp_path / "out", "--model", model]
    assert restore(*command, "--no-recursive") == 0
    assert names(tmp_path / "out") == {"a_restored.png"}


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("ext", ["png", "jpg", "tif", "webp"])
def test_results_are_of_the_format_that_is_asked_for(model, tmp_path, ext):
    save(tmp_path / "in/a.bmp")
    save(tmp_path / "in/b.jpeg")
    command = [tmp_path / "in", "--out", tmp_path / "out", "--model", model, "--suffix=-neu"]
    assert restore(*command, "--ext", ext) == 0
    assert names(tmp_path / "out") == {f"a-neu.{ext}", f"b-neu.{ext}"}
    format = {"jpg": "JPEG", "tif": "TIFF"}.get(ext, ext.upper())
    for name in names(tmp_path / "out"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == format


def test_quality_is_that_of_the_file(model, tmp_path):
    save(tmp_path / "in/a.jpg", photo(200, 300))
    sizes = []
    for quality in (30, 95):
        out = tmp_path / str(quality)
        assert restore(tmp_path / "in", "--out", out, "--model", model, "--quality", quality) == 0
        sizes.append((out / "a_restored.jpg").stat().st_size)
    assert sizes[0] < 0.7 * sizes[1]


def test_16_bits_are_rounded_only_where_the_format_was_chosen_and_that_is_recorded(model, tmp_path):
    deep = photo()[:, :, 0].astype(np.uint16) * 200 + 77
    save(tmp_path / "in/a.png", deep)
    manifest = tmp_path / "m.jsonl"
    command = [tmp_path / "in", "--out", tmp_path / "out", "--model", model, "--json", manifest]
    assert restore(*command, "--ext", "jpg", "--strength", 0, "--quality", 100) == 0
    with Image.open(tmp_path / "out/a_restored.jpg") as image:
        assert np.abs(np.asarray(image, int) - np.round(deep / 257)).max() <= 3
    assert restore(*command, "--ext", "tif", "--strength", 0) == 0
    with Image.open(tmp_path / "out/a_restored.tif") as image:
        assert np.array_equal(np.asarray(image), deep)
    assert [line.get("rounded_to_bits") for line in lines(manifest)] == [8, None]


def test_transparency_is_never_dropped_in_silence(model, tmp_path, capsys):
    command = [tmp_path / "in", "--out", tmp_path / "out", "--model", model]
    pixels = np.dstack((photo(), np.full((40, 56), 99, np.uint8)))
    save(tmp_path / "in/a.png", pixels)
    assert restore(*command, "--ext", "jpg") == 1
    assert "holds no transparency; write PNG" in capsys.readouterr().err
    assert names(tmp_path / "out") == set()


def test_every_page_of_a_tiff_is_restored(model, tmp_path):
    pages = [Image.fromarray(photo(40 + 8 * number, 56, seed=number)) for number in range(3)]
    source = tmp_path / "album.tif"
    pages[0].save(source, save_all=True, append_images=pages[1:])
    command = [source, "--out", tmp_path / "out", "--model", model, "--json", tmp_path / "m.jsonl"]
    assert restore(*command) == 0
    with Image.open(tmp_path / "out/album_restored.tif") as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        for number, page in enumerate(pages):
            image.seek(number)
            assert image.size == page.size
            assert not np.array_equal(np.asarray(image), np.asarray(page))
    (line,) = lines(tmp_path / "m.jsonl")
    assert (line["pages"], line["width"], line["height"]) == (3, 56, 40)


# ---------------------------------------------------------------- what is there already


def test_results_that_are_there_stay_if_that_is_wanted(model, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name)
    command = [tmp_path / "in", "--out", tmp_path / "out", "--model", model]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a_restored.png").write_text("mine")
    more = ["--skip-existing", "--json", tmp_path / "m.jsonl"]
    assert restore(*command, *more) == 0
    assert (tmp_path / "out/a_restored.png").read_text() == "mine"
    assert "1 of 2 photos restored, 1 were there already" in capsys.readouterr().out
    assert [line.get("skipped", False) for line in lines(tmp_path / "m.jsonl")] == [True, False]
    assert restore(*command) == 0
    with Image.open(tmp_path / "out/a_restored.png") as image:
        assert image.size == (56, 40)


def test_beside_their_photos_results_are_never_taken_for_photos_and_written_over(model, tmp_path):
    save(tmp_path / "a.png")
    command = [tmp_path, "--out", tmp_path, "--model", model]
    assert restore(*command) == 0
    before = (tmp_path / "a_restored.png").read_bytes()
    # It may be the photo of somebody who called it so.
    with pytest.raises(ValueError, match=r"a_restored\.png would be overwritten"):
        restore(*command)
    assert restore(*command, "--skip-existing") == 0
    assert names(tmp_path) == {"a.png", "a_restored.png"}
    assert (tmp_path / "a_restored.png").read_bytes() == before


@pytest.mark.parametrize("kind", ["json", "mask"])
def test_nothing_that_is_written_beside_results_is_written_over_an_original(model, tmp_path, kind):
    save(tmp_path / "a.png")
    before = save(tmp_path / "a_restored_mask.png").read_bytes()
    more = {"json": ["--json", tmp_path / "a_restored_mask.png"], "mask": ["--save-mask"]}[kind]
    with pytest.raises(ValueError, match=r"a_restored_mask\.png would be overwritten"):
        restore(tmp_path / "*[ak].png", "--out", tmp_path, "--model", model, *more)
    assert (tmp_path / "a_restored_mask.png").read_bytes() == before


def test_a_dry_run_says_what_would_be_and_touches_nothing(tmp_path, capsys):
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/x/b.gif")
    save(tmp_path / "out/a_restored.png")
    command = [tmp_path / "in", "--out", tmp_path / "out", "--json", tmp_path / "m", "--dry-run"]
    assert restore(*command, "--skip-existing") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}/in/a.png -> {tmp_path}/out/a_restored.png (is there)"
    assert second == f"{tmp_path}/in/x/b.gif -> {tmp_path}/out/x/b_restored.png"
    assert names(tmp_path) == {"in/a.png", "in/x/b.gif", "out/a_restored.png"}


# ---------------------------------------------------------------- manifest and sheets


def test_the_manifest_says_what_was_done(model, tmp_path):
    box = tmp_path / "in"
    save(box / "a.png", photo(30, 50))
    (box / "b.png").write_text("Dear grandmother")
    save(box / "c.png", photo(80, 40))
    for jobs in (1, 3):
        manifest = tmp_path / f"{jobs}.jsonl"
        command = [box, "--out", tmp_path / "out", "--model", model, "--json", manifest]
        assert restore(*command, "--jobs", jobs, "--device", "cpu", "--tile", 104) == 1
        done = lines(manifest)
        assert [line["source"] for line in done] == [str(box / f"{name}.png") for name in "abc"]
        assert [(line["width"], line["height"]) for line in done] == [(50, 30), (0, 0), (40, 80)]
        assert done[0]["target"] == str(tmp_path / "out/a_restored.png")
        assert "error" not in done[0]
        assert done[1]["error"].startswith(str(box / "b.png"))
        assert {line["device"] for line in done} == {"cpu"}
        assert {line["tile"] for line in done} == {104}
        (sha256,) = {line["model_sha256"] for line in done}
        assert re.fullmatch(r"[0-9a-f]{64}", sha256)
        assert done[0]["seconds"] > 0
        assert 0.1 < done[0]["changed_share"] <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_changes_count_where_they_are_seen(dtype):
    top = np.iinfo(dtype).max
    before = np.full((100, 30, 3), top // 2, dtype)
    after = before.copy()
    after[:10] += dtype(3 * (top // 255))
    assert changed_share(before, after) == 0
    after[:10, :, 1] += dtype(3 * (top // 255))
    assert changed_share(before, after) == pytest.approx(0.1)
    # Downwards too, and from gray to colours.
    assert changed_share(after, before) == pytest.approx(0.1)
    assert changed_share(before[:, :, 0], after) == pytest.approx(0.1)


def test_sheets_show_photos_beside_their_results(model, tmp_path, capsys):
    for number in range(9):
        save(tmp_path / f"in/{number}.png", photo(700 if number == 8 else 40, 900, seed=number))
    command = [tmp_path / "in", "--out", tmp_path / "out", "--model", model, "--compare"]
    assert restore(*command) == 0
    sheets = sorted((tmp_path / "out").glob("*.jpg"))
    assert [path.name for path in sheets] == ["before_after-001.jpg", "before_after-002.jpg"]
    assert capsys.readouterr().out.count("before | after: ") == 2
    with Image.open(sheets[1]) as sheet:
        pixels = np.asarray(sheet, int)
    # Both halves show something, and not the same.
    left, right = pixels[100:400, 28:508], pixels[100:400, 514:994]
    assert left.std() > 20
    assert right.std() > 1
    assert np.abs(left - right).mean() > 3


# ---------------------------------------------------------------- masks


class Recorder:
    """Stands in for a `Restorer`: writes down what it is given, and makes pictures darker."""

    mode = "grayscale"

    def __init__(self) -> None:
        self.given: list[dict] = []

    def check(self, **_: object) -> int:
        return 64

    def __call__(self, picture: np.ndarray, **options):
        self.given.append(options)
        result = picture // 2
        mask = np.full(picture.shape[:2], 7 + len(self.given), np.uint8)
        return (result, mask) if options.get("return_mask") else result


def test_masks_find_their_photos_by_name(tmp_path):
    for name in ("a.png", "x/a.png", "b.jpg"):
        save(tmp_path / "in" / name)
    for name in ("a_mask.png", "x/a.png", "b_restored_mask.tif"):
        save(tmp_path / "masks" / name)
    inputs = [tmp_path / "in"]
    jobs = plan_jobs(inputs, tmp_path / "out")
    for use in ("mask", "damage"):
        paired = pair_masks(jobs, tmp_path / "masks", inputs, use=use)
        found = {job.source.name: getattr(job, use).name for job in paired}
        assert found == {"a.png": "a.png", "b.jpg": "b_restored_mask.tif"}
        assert [getattr(job, use).parent.name for job in paired] == ["masks", "masks", "x"]
    (tmp_path / "masks/x/a.png").unlink()
    paired = pair_masks(jobs, tmp_path / "masks", inputs, use="damage")
    assert [job.damage is None for job in paired] == [False, False, True]
    with pytest.raises(ValueError, match=r"there is no mask for .*x.a\.png in .*masks; add"):
        pair_masks(jobs, tmp_path / "masks", inputs, use="mask")
    save(tmp_path / "masks/b.png")
    with pytest.raises(ValueError, match=r"would both be the damage of .*b\.jpg"):
        pair_masks(jobs, tmp_path / "masks", inputs, use="damage")


def test_one_mask_is_for_one_photo(tmp_path):
    mask = save(tmp_path / "m.png")
    jobs = plan_jobs([save(tmp_path / "in/a.png")], tmp_path / "out")
    assert pair_masks(jobs, mask, [], use="mask")[0].mask == mask
    jobs = plan_jobs([tmp_path / "in", save(tmp_path / "in2/b.png")], tmp_path / "out")
    with pytest.raises(ValueError, match=r"is one file, and there are 2 photographs"):
        pair_masks(jobs, mask, [], use="mask")
    with pytest.raises(ValueError, match="no such file or folder"):
        pair_masks(jobs, tmp_path / "gone", [], use="mask")


def test_masks_reach_the_network_and_what_it_found_a_file(tmp_path):
    recorder = Recorder()
    white = np.zeros((40, 56), np.uint8)
    white[3:9] = 255
    save(tmp_path / "m.png", np.dstack([white] * 3))
    save(tmp_path / "d.png", 255 - white)
    save(tmp_path / "a.png")
    (job,) = plan_jobs([tmp_path / "a.png"], tmp_path / "out", save_mask=True)
    job = Job(job.source, job.target, tmp_path / "m.png", tmp_path / "d.png", job.mask_target)
    (done,) = restore_photos(recorder, [job], strength=0.5)  # type: ignore[arg-type]
    assert done.error == ""
    (given,) = recorder.given
    assert np.array_equal(given["mask"], white)
    assert np.array_equal(given["damage"], 255 - white)
    assert (given["return_mask"], given["strength"]) == (True, 0.5)
    assert names(tmp_path / "out") == {"a_restored.png", "a_restored_mask.png"}
    with Image.open(tmp_path / "out/a_restored_mask.png") as mask:
        assert (mask.mode, mask.getextrema()) == ("L", (8, 8))


def test_a_mask_of_another_size_is_an_error_of_its_photo_alone(tmp_path):
    save(tmp_path / "m.png", photo(41, 56))
    save(tmp_path / "a.png")
    job = Job(tmp_path / "a.png", tmp_path / "out/a.png", tmp_path / "m.png")
    (done,) = restore_photos(Recorder(), [job])  # type: ignore[arg-type]
    assert "a.png: " in done.error
    assert "m.png: is 56 x 41 px, but the photograph 56 x 40 px" in done.error


def test_each_page_has_its_own_mask(tmp_path):
    pages = [Image.fromarray(photo(seed=number)) for number in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    (job,) = plan_jobs([tmp_path / "a.tif"], tmp_path / "out", save_mask=True)
    (done,) = restore_photos(Recorder(), [job])  # type: ignore[arg-type]
    assert done.error == ""
    assert names(tmp_path / "out") == {"a_restored.tif", "a_restored_mask.tif"}
    with Image.open(tmp_path / "out/a_restored_mask.tif") as masks:
        assert masks.n_frames == 2  # type: ignore[attr-defined]


def test_results_that_differ_in_their_suffix_alone_have_masks_of_their_own(tmp_path):
    for name in ("a.jpg", "a.jpeg", "b.jpg"):
        save(tmp_path / name)
    jobs = plan_jobs([tmp_path], tmp_path / "out", save_mask=True)
    assert {job.mask_target.name for job in jobs if job.mask_target} == {
        "a_restored_jpg_mask.png", "a_restored_jpeg_mask.png", "b_restored_mask.png",
    }  # fmt: skip


# ---------------------------------------------------------------- colours


def test_gray_photos_get_colours_and_colour_photos_keep_theirs(lab_model, tmp_path):
    gray = photo(60, 80)[:, :, 0]
    save(tmp_path / "in/gray.png", gray)
    save(tmp_path / "in/sepia.png", np.dstack([gray, gray // 10 * 9, gray // 10 * 7]))
    save(tmp_path / "in/color.png", photo(60, 80))
    manifest = tmp_path / "m.jsonl"
    command = [tmp_path / "in", "--out", tmp_path / "out", "--model", lab_model, "--colorize"]
    assert restore(*command, "--json", manifest) == 0
    colored = {Path(line["source"]).stem: line["colored"] for line in lines(manifest)}
    assert colored == {"gray": True, "sepia": True, "color": False}
    with Image.open(tmp_path / "out/gray_restored.png") as image:
        assert image.mode == "RGB"
        assert np.ptp(np.asarray(image, int), axis=2).max() > 8
    with Image.open(tmp_path / "out/color_restored.png") as image:
        change = np.asarray(image, int) - photo(60, 80)
    # Red, green and blue changed alike where nothing was clipped.
    assert np.median(np.ptp(change, axis=2)) <= 1


def test_colours_are_added_only_if_that_is_wanted(model, lab_model, tmp_path):
    save(tmp_path / "a.png")
    command = [tmp_path / "a.png", "--out", tmp_path / "out"]
    with pytest.raises(ValueError, match=r"mode lab, which adds colours; add --colorize"):
        restore(*command, "--model", lab_model)
    with pytest.raises(ValueError, match="mode grayscale, which adds no colours"):
        restore(*command, "--model", model, "--colorize")
    for option in ("saturation", "temperature"):
        with pytest.raises(ValueError, match=f"{option} is of added colours; add --colorize"):
            restore(*command, "--model", model, f"--{option}", 0.5)
    assert not (tmp_path / "out").exists()


def test_a_model_of_colours_alone_restores_the_luminance_too(
    lab_model, model, tmp_path, monkeypatch
):
    gray = photo()[:, :, 0]
    save(tmp_path / "a.png", gray)
    packed, _ = find_model(lab_model)
    assert isinstance(packed, LabNet)
    alone = tmp_path / "alone.safetensors"
    save_model(alone, LabNet(packed.color), mode="lab", training={})
    # `grayscale` comes with the package; here another takes its place, which changes photos more.
    monkeypatch.setattr(models, "FOLDER", tmp_path / "package")
    shipped = tmp_path / "package" / "grayscale.safetensors"
    shipped.parent.mkdir()
    shipped.write_bytes(model.read_bytes())
    digest = hashlib.sha256(shipped.read_bytes()).hexdigest()
    (shipped.parent / models.CHECKSUMS).write_text(f"{digest}  {shipped.name}\n")
    out = tmp_path / "out"
    assert restore(tmp_path / "a.png", "--out", out, "--model", alone, "--colorize") == 0
    done = np.asarray(Image.open(out / "a_restored.png"))
    expected = Restorer.from_pretrained(model, device="cpu")(gray)
    luma = done @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray - expected.astype(float)).mean() > 5
    assert np.abs(luma - expected).mean() < 3


def test_a_file_for_grays_alone_is_not_given_colours(lab_model, model, tmp_path):
    save(tmp_path / "in/a.pgm", photo()[:, :, 0])
    command = [tmp_path / "in", "--out", tmp_path / "out"]
    assert restore(*command, "--model", model) == 0
    assert restore(*command, "--model", lab_model, "--colorize") == 0
    assert names(tmp_path / "out") == {"a_restored.pgm", "a_restored.png"}


# ---------------------------------------------------------------- mistakes and ends


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--quality", 0], "quality must be 1 to 100"),
        (["--jobs", 0], "jobs must be at least 1"),
        (["--strength", 1.5], "strength must be 0 to 1"),
        (["--tile", 7], "tile must be"),
        (["--suffix", "../x"], "suffix must be a part of a file name"),
        (["--mask", "gone.png"], "no such file or folder: gone.png"),
        (["--device", "abacus"], "unknown device"),
    ],
)
def test_a_mistake_is_found_before_anything_is_done(model, tmp_path, words, complaint):
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=complaint):
        restore(tmp_path / "a.png", "--out", tmp_path / "out", "--model", model, *words)
    assert not (tmp_path / "out").exists()


def test_results_do_not_depend_on_the_number_of_threads(model, tmp_path):
    for number in range(7):
        save(tmp_path / f"in/{number}.png", photo(30 + number, 60, seed=number))
    for jobs in (1, 2, 4):
        command = [tmp_path / "in", "--out", tmp_path / f"out{jobs}", "--model", model]
        assert restore(*command, "--jobs", jobs) == 0
    for path in (tmp_path / "out1").iterdir():
        for jobs in (2, 4):
            assert (tmp_path / f"out{jobs}" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_that_is_ended_leaves_whole_results_only(model, tmp_path, number):
    for photo_number in range(40):
        save(tmp_path / f"in/{photo_number:02d}.png", photo(200, 300, seed=photo_number))
    out, manifest = tmp_path / "out", tmp_path / "m.jsonl"
    command = [SCRIPT, 0.1, tmp_path / "in", "--out", out, "--model", model, "--json", manifest]
    with Launched(*command) as launched:
        launched.until(lambda: manifest.exists() and len(manifest.read_text().splitlines()) >= 3)
        launched.signal(number)
        status, _ = launched.end()
    assert status != 0
    assert 3 <= len(names(out)) < 40
    for name in names(out):
        assert not name.startswith(".")
        with Image.open(out / name) as image:
            image.load()
            assert image.size == (300, 200)
    for line in lines(manifest):
        assert Path(line["target"]).exists()
    # The same command goes on.
    status, said = run(*command, "--skip-existing")
    assert status == 0, said
    assert len(names(out)) == 40


# ---------------------------------------------------------------- ranks


def test_ranks_take_every_photo_once():
    items = list(range(11))
    for world_size in (1, 2, 3, 16):
        parts = [Ranks(rank, world_size).part(items) for rank in range(world_size)]
        assert sorted(item for part in parts for item in part) == items
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_rank_has_a_gpu_of_its_own_the_first_one_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        for name in ("auto", "cuda"):
            assert Ranks(rank, 2).device(name) == torch.device("cuda", rank)
        # Said outright, it is that one.
        assert Ranks(rank, 2).device("cuda:0") == torch.device("cuda", 0)
        assert Ranks(rank, 2).device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="'cuda:2' is not there: this machine has 2"):
        Ranks(2, 3).device("auto")


def test_without_gpus_ranks_work_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Ranks(1, 2).device("auto") == torch.device("cpu")


def test_ranks_without_a_way_to_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match="MASTER_ADDR is not"):
        Ranks.find()


@pytest.mark.slow
def test_two_ranks_do_one_batch(model, tmp_path):
    """One has all the slow and the broken photos: it is not waited for in vain, nor stopped."""
    box = tmp_path / "in"
    for number in range(9):
        save(box / f"{number}.png", photo(60, 80, seed=number))
    for number in (1, 8):
        (box / f"{number}.png").write_text("Dear grandmother")
    manifest = tmp_path / "m.jsonl"
    command = [
        *torchrun(2), SCRIPT, 0.05, box, "--out", tmp_path / "out", "--model", model,
        "--json", manifest, "--compare",
    ]  # fmt: skip
    status, said = run(*command)
    assert status == 1, said
    assert said.count("7 of 9 photos restored") == 1
    assert said.count("not restored: ") == 2
    good = {f"{number}_restored.png" for number in (0, 2, 3, 4, 5, 6, 7)}
    sheets = {f"before_after-rank-{rank}-001.jpg" for rank in (0, 1)}
    assert names(tmp_path / "out") == good | sheets
    assert [Path(line["source"]).stem for line in lines(manifest)] == [str(n) for n in range(9)]
    assert ["error" in line for line in lines(manifest)] == [n in (1, 8) for n in range(9)]
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "m.jsonl"}

    for number in (1, 8):
        (box / f"{number}.png").unlink()
    alone = tmp_path / "alone"
    assert restore(box, "--out", alone, "--model", model) == 0
    for path in alone.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    # Beside the originals, where each would find the other's results.
    status, said = run(*torchrun(2), SCRIPT, 0.05, box, "--out", box, "--model", model)
    assert status == 0, said
    assert "7 of 7 photos restored" in said
    assert os.environ.get("RANK") is None
