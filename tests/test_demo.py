"""The demo: the whole way, small, and what it leaves behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from agedphoto.cli import main
from agedphoto.demo import run_demo
from agedphoto.demo_photos import BUNDLED_HELD_OUT, BUNDLED_TRAIN

SHARED_PHOTOS = Path(__file__).resolve().parents[2] / "shared/data/div2k_like/DIV2K_train_HR"


@pytest.fixture(scope="module")
def full_demo(tmp_path_factory) -> Path:
    """The demo as people run it, on the photographs that come with scikit-image."""
    folder = tmp_path_factory.mktemp("full")
    done = subprocess.run(
        [sys.executable, "-m", "agedphoto", "demo", "--out", folder / "demo"],
        cwd=folder, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'demo' / 'report.html'}"
    for stage in ("shard train", "textures", "train", "restore"):
        assert f"{stage}:" in done.stderr, "every stage shows its progress"
    return folder / "demo"


@pytest.mark.slow
def test_a_photo_never_seen_comes_back_better_than_any_blur_of_it(full_demo):
    record = json.loads((full_demo / "report.json").read_text())
    assert record["psnr_restored_db"] >= record["psnr_blur_db"] + 1.0
    assert record["psnr_restored_db"] >= record["psnr_aged_db"] + 7.0
    assert record["psnr_blur_db"] > record["psnr_aged_db"] + 4.0
    assert record["ssim_restored"] > record["ssim_aged"]
    pictures = {
        kind: np.asarray(Image.open(full_demo / "pictures" / f"astronaut_{kind}.png"))
        for kind in ("clean", "aged", "restored")
    }
    for kind in ("aged", "restored"):
        measured = peak_signal_noise_ratio(pictures["clean"], pictures[kind], data_range=255)
        assert measured == pytest.approx(record[f"psnr_{kind}_db"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.browser
def test_the_report_opens_in_a_browser_without_a_network(full_demo, browser):
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    browser.get((full_demo / "report.html").as_uri())
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) >= 6
    assert min(widths) > 0
    record = json.loads((full_demo / "report.json").read_text())
    assert f"{record['psnr_restored_db']:.2f}" in browser.find_element("tag name", "body").text
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def brief_demo(tmp_path_factory, request) -> Path:
    """A demo of three seconds on photographs of one's own, some of them of no use."""
    photos = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((120, 90)).save(photos / f"photo{number}.png")
    Image.new("RGB", (40, 90)).save(photos / "narrow.png")
    (photos / "broken.jpg").write_text("nothing")
    out = tmp_path_factory.mktemp("brief") / "demo"
    arguments = ["demo", "--photos", photos, "--out", out, "--minutes", 0.05]
    assert main([str(argument) for argument in arguments]) == 1, "one photo could not be read"
    return out


def test_photos_of_ones_own_are_parted_and_what_is_left_out_is_named(brief_demo):
    photos = json.loads((brief_demo / "report.json").read_text())["photos"]
    assert photos["held_out"] == ["photo2"]
    assert set(photos["train"]) == {"narrow", "photo0", "photo1"}
    assert {row["name"] for row in photos["left_out"]} == {"broken.jpg", "narrow"}


def test_the_demo_leaves_whole_things_only(brief_demo):
    assert {path.name for path in brief_demo.iterdir()} == {
        "model", "pictures", "report.html", "report.json", "shards",
    }  # fmt: skip
    assert [path.name for path in brief_demo.parent.iterdir()] == ["demo"]


def test_an_earlier_demo_is_replaced_and_anything_else_is_not(brief_demo, tmp_path):
    shutil.copytree(brief_demo, tmp_path / "demo")
    (tmp_path / "demo" / "report.html").write_text("old")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        Image.effect_noise((80, 80), 40).save(photos / f"{number}.png")
    run_demo(tmp_path / "demo", photos=photos, minutes=0.01)
    assert (tmp_path / "demo" / "report.html").read_text() != "old"

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("1936")
    with pytest.raises(ValueError, match="is not an earlier demo"):
        run_demo(tmp_path / "mine", photos=photos, minutes=0.01)
    assert (tmp_path / "mine" / "diary.txt").read_text() == "1936"


def test_a_demo_that_fails_leaves_nothing(tmp_path, make_photos, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agedphoto.demo.write_report", fail)
    photos = make_photos([(80, 90)] * 2)
    arguments = ["demo", "--photos", photos, "--out", tmp_path / "demo", "--minutes", 0.01]
    assert main([str(argument) for argument in arguments]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("sizes", [[], [(90, 90)], [(90, 90), (30, 200)]])
def test_fewer_than_two_usable_photos_are_refused(sizes, make_photos, tmp_path):
    photos = make_photos(sizes)
    with pytest.raises(ValueError, match=r"no photographs|needs two"):
        run_demo(tmp_path / "demo", photos=photos)
    assert not (tmp_path / "demo").exists()


def test_a_demo_with_something_of_ones_own_in_it_is_left_alone(brief_demo, tmp_path):
    shutil.copytree(brief_demo, tmp_path / "demo")
    (tmp_path / "demo" / "diary.txt").write_text("1936")
    with pytest.raises(ValueError, match="holds more than one"):
        run_demo(tmp_path / "demo")
    assert (tmp_path / "demo" / "diary.txt").read_text() == "1936"


def test_the_current_folder_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="choose a folder in it"):
        run_demo(Path())
    assert list(tmp_path.iterdir()) == []


def test_a_photo_that_ends_early_is_not_held_out(make_photos, tmp_path):
    photos = make_photos([(90, 90)] * 3)
    (photos / "0002.png").write_bytes((photos / "0002.png").read_bytes()[:2000])
    done = run_demo(tmp_path / "demo", photos=photos, minutes=0.01)
    assert done.record["photos"]["held_out"] == ["0001"]
    assert done.unreadable
    assert "0002.png" in done.left_out[0]


@pytest.mark.parametrize("option", [("--minutes", 0), ("--num-pairs", 0), ("--seed", -1)])
def test_a_bad_option_is_found_before_anything_is_done(option, tmp_path, capsys):
    arguments = ["demo", "--out", tmp_path / "demo", *option]
    assert main([str(argument) for argument in arguments]) == 2
    assert "must be" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_pair_that_shows_one_scene_is_not_parted():
    pairs = [name for name in BUNDLED_TRAIN + BUNDLED_HELD_OUT if name.startswith("motorcycle")]
    assert len(pairs) == 2
    assert set(pairs) <= set(BUNDLED_TRAIN)
    assert not set(BUNDLED_TRAIN) & set(BUNDLED_HELD_OUT)


@pytest.mark.skipif(not SHARED_PHOTOS.is_dir(), reason="needs the 2040 px photographs")
@pytest.mark.slow
def test_large_photos_are_restored_in_tiles(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted(SHARED_PHOTOS.glob("*.png"))[:3]:
        (photos / path.name).symlink_to(path)
    done = run_demo(tmp_path / "demo", photos=photos, minutes=0.3)
    assert done.record["held_out"][0]["width"] * done.record["held_out"][0]["height"] > 1e6
    assert done.record["psnr_restored_db"] > done.record["psnr_aged_db"] + 3
