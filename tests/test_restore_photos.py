"""Photos come out upright, named after themselves and as deep as they were; originals stay."""

import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage.data import astronaut

from agedphoto.restore import Job, Restored, Restorer, plan_jobs, restore_photos
from agedphoto.train import ModelCard, UNet, UNetConfig, net_shape

RGB = astronaut()[60:100, 200:256]
GRAY16 = RGB[:, :, 1].astype(np.uint16) * 200 + 9
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    """Mode grayscale; changes every picture a little."""
    net = UNet(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1))
    generator = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0, 0.5 / weight[0].numel() ** 0.5, generator=generator)
    return Restorer(net, ModelCard(mode="grayscale", net=net_shape(net), training={}), device="cpu")


@pytest.fixture(scope="module")
def colorizer() -> Restorer:
    net = UNet(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1, out_channels=3))
    return Restorer(net, ModelCard(mode="rgb", net=net_shape(net), training={}), device="cpu")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def targets(jobs: list[Job], out: Path) -> set[str]:
    return {str(job.target.relative_to(out)) for job in jobs}


def save(path: Path, image: Image.Image, format: str | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format, **options)
    return path


def restore_one(restorer: Restorer, source: Path, out: Path, **options) -> Image.Image:
    """Restore one photo that can be, and look that the original is untouched."""
    before = source.read_bytes()
    jobs = plan_jobs([source], out)
    (done,) = restore_photos(restorer, jobs, **options)
    assert done.error == ""
    assert source.read_bytes() == before
    image = Image.open(done.job.target)
    image.load()
    return image


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("x.jpeg", "x_restored.jpeg"), ("x.jpg", "x_restored.jpg"), ("X.JPG", "X_restored.JPG"),
        ("x.tif", "x_restored.tif"), ("x.tiff", "x_restored.tiff"), ("x.webp", "x_restored.webp"),
        ("x.bmp", "x_restored.bmp"), ("x.png", "x_restored.png"), ("x.gif", "x_restored.png"),
        ("x.ppm", "x_restored.png"), ("x.jp2", "x_restored.png"), ("a.b.jpg", "a.b_restored.jpg"),
        ("with space ü.jpg", "with space ü_restored.jpg"), ("no_suffix", "no_suffix_restored.png"),
    ],
)  # fmt: skip
def test_a_result_is_named_after_its_photo(tmp_path, name, result):
    root, out = touch(tmp_path / "in", name), tmp_path / "out"
    assert targets(plan_jobs([root / name], out), out) == {result}


def test_the_suffix_is_the_users(tmp_path):
    root, out = touch(tmp_path / "in", "x.jpg"), tmp_path / "out"
    assert targets(plan_jobs([root], out, suffix="-neu"), out) == {"x-neu.jpg"}
    assert targets(plan_jobs([root], out, suffix=""), out) == {"x.jpg"}


def test_the_tree_of_a_folder_is_kept_and_what_is_no_photo_left_out(tmp_path):
    root = touch(tmp_path / "in", "a.jpg", "1950/a.jpg", "1950/x/b.png", "notes.txt", ".hid/c.jpg")
    out = tmp_path / "out"
    expected = {"a_restored.jpg", "1950/a_restored.jpg", "1950/x/b_restored.png"}
    assert targets(plan_jobs([root], out), out) == expected


def test_one_photo_named_twice_is_done_once(tmp_path):
    root, out = touch(tmp_path / "in", "a.jpg"), tmp_path / "out"
    assert len(plan_jobs([root / "a.jpg", root / "a.jpg", root], out)) == 1


def test_two_photos_that_would_be_one_file_are_refused(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg")
    with pytest.raises(ValueError, match=r"one.a\.jpg and .*two.a\.jpg would both be written to"):
        plan_jobs([tmp_path / "one", tmp_path / "two"], tmp_path / "out")


def test_of_two_photos_that_would_get_one_name_those_that_change_carry_their_format(tmp_path):
    root, out = (
        touch(tmp_path / "in", "b.gif", "b.png", "b.JP2", "c.gif", "d.jpg"),
        tmp_path / "out",
    )
    expected = {
        "b_gif_restored.png", "b_restored.png", "b_JP2_restored.png", "c_restored.png",
        "d_restored.jpg",
    }  # fmt: skip
    assert targets(plan_jobs([root], out), out) == expected
    expected = {
        "b_gif_restored.jpg", "b_png_restored.jpg", "b_JP2_restored.jpg", "c_restored.jpg",
        "d_restored.jpg",
    }  # fmt: skip
    assert targets(plan_jobs([root], out, extension="jpg"), out) == expected
    touch(root, "b_gif.png")
    with pytest.raises(ValueError, match=r"b\.gif and .*b_gif\.png would both be written to"):
        plan_jobs([root], out)


def test_no_original_is_ever_a_target(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a_restored.jpg")
    with pytest.raises(ValueError, match="would be overwritten; choose another --out or --suffix"):
        plan_jobs([tmp_path / "one"], tmp_path / "one", suffix="")
    with pytest.raises(ValueError, match=r"two.a_restored\.jpg would be overwritten"):
        plan_jobs([tmp_path / "one", tmp_path / "two/a_restored.jpg"], tmp_path / "two")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with pytest.raises(ValueError, match="would be overwritten"):
        plan_jobs([tmp_path / "one"], tmp_path / "link", suffix="")


def test_results_inside_the_folder_are_not_restored_again(tmp_path):
    root = touch(tmp_path, "a.jpg", "done/a_restored.jpg", "done/x/b_restored.jpg")
    out = root / "done"
    assert targets(plan_jobs([root], out), out) == {"a_restored.jpg"}
    # Named outright, they are.
    assert targets(plan_jobs([out / "a_restored.jpg"], out), out) == {"a_restored_restored.jpg"}
    (root / "a.jpg").unlink()
    with pytest.raises(ValueError, match="no photographs but the results in"):
        plan_jobs([root], out)


def test_nothing_to_restore_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        plan_jobs([tmp_path / "gone.jpg"], tmp_path / "out")
    with pytest.raises(ValueError, match="no photographs in"):
        plan_jobs([touch(tmp_path / "in", "notes.txt")], tmp_path / "out")


# ---------------------------------------------------------------- content


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp", "bmp"])
def test_the_result_is_what_the_restorer_gives(restorer, tmp_path, extension):
    source = save(tmp_path / f"in/x.{extension}", Image.fromarray(RGB))
    with Image.open(source) as opened:
        expected = np.asarray(restorer(opened), int)
        format = opened.format
    image = restore_one(restorer, source, tmp_path / "out")
    assert image.format == format
    allowed = {"jpg": 12, "webp": 40}.get(extension, 0)
    assert np.abs(np.asarray(image, int) - expected).max() <= allowed


def test_a_result_of_an_earlier_run_is_replaced(restorer, tmp_path):
    source = save(tmp_path / "in/x.png", Image.fromarray(RGB))
    first = restore_one(restorer, source, tmp_path / "out", strength=0).tobytes()
    second = restore_one(restorer, source, tmp_path / "out").tobytes()
    assert first == Image.fromarray(RGB).tobytes() != second
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x_restored.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_come_out_upright_and_say_so(restorer, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Kodak"
    source = save(tmp_path / "in/x.png", Image.fromarray(RGB), exif=exif)
    image = restore_one(restorer, source, tmp_path / "out", strength=0)
    # The eight orientations of the EXIF standard, by NumPy.
    turned = [
        RGB, RGB[:, ::-1], RGB[::-1, ::-1], RGB[::-1], RGB.transpose(1, 0, 2),
        np.rot90(RGB, -1), RGB[::-1, ::-1].transpose(1, 0, 2), np.rot90(RGB),
    ]  # fmt: skip
    assert np.array_equal(np.asarray(image), turned[orientation - 1])
    assert image.getexif().get(0x0112, 1) == 1
    assert image.getexif()[0x010F] == "Kodak"


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
def test_profile_and_resolution_are_kept(restorer, tmp_path, extension):
    source = save(
        tmp_path / f"in/x.{extension}", Image.fromarray(RGB), icc_profile=PROFILE, dpi=(600, 600)
    )
    image = restore_one(restorer, source, tmp_path / "out")
    assert image.info["icc_profile"] == PROFILE
    if extension != "webp":  # which has no place for it
        assert image.info["dpi"] == pytest.approx((600, 600), abs=0.1)


def test_exif_is_kept(restorer, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Kodak"
    for extension in ("jpg", "webp", "png"):
        source = save(tmp_path / f"in/x.{extension}", Image.fromarray(RGB), exif=exif)
        assert restore_one(restorer, source, tmp_path / "out").getexif()[0x010F] == "Kodak"


def test_a_profile_that_no_longer_holds_is_left_out(restorer, colorizer, tmp_path):
    gray = save(tmp_path / "in/g.png", Image.fromarray(RGB[:, :, 0]), icc_profile=PROFILE)
    assert "icc_profile" in restore_one(restorer, gray, tmp_path / "out").info
    colored = restore_one(colorizer, gray, tmp_path / "out")
    assert colored.mode == "RGB"
    assert "icc_profile" not in colored.info
    cmyk = save(tmp_path / "in/c.jpg", Image.fromarray(RGB).convert("CMYK"), icc_profile=PROFILE)
    assert "icc_profile" not in restore_one(restorer, cmyk, tmp_path / "out").info


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_scans_stay_16_bit(restorer, tmp_path, extension, order):
    source = save(tmp_path / f"in/x.{extension}", Image.fromarray(GRAY16.astype(order)))
    image = restore_one(restorer, source, tmp_path / "out")
    assert image.mode in ("I;16", "I;16B")
    assert np.array_equal(np.asarray(image), restorer(GRAY16))
    assert len(np.unique(np.asarray(image))) > 256


def test_a_turned_16_bit_scan_stays_16_bit(restorer, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(tmp_path / "in/x.tif", Image.fromarray(GRAY16), exif=exif)
    image = restore_one(restorer, source, tmp_path / "out", strength=0)
    assert np.array_equal(np.asarray(image), np.rot90(GRAY16, -1))


@pytest.mark.parametrize(
    ("extension", "mode"), [("png", "RGBA"), ("png", "LA"), ("tif", "RGBA"), ("webp", "RGBA")]
)
def test_transparency_is_kept(restorer, tmp_path, extension, mode):
    image = Image.fromarray(RGB).convert(mode)
    alpha = Image.fromarray(RGB[:, :, 2])
    image.putalpha(alpha)
    source = save(tmp_path / f"in/x.{extension}", image)
    restored = restore_one(restorer, source, tmp_path / "out")
    assert restored.mode == mode
    assert restored.getchannel("A").tobytes() == alpha.tobytes()


def test_a_transparent_gif_becomes_a_transparent_png(restorer, tmp_path):
    image = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
    source = save(tmp_path / "in/x.gif", image, transparency=3)
    with Image.open(source) as opened:
        alpha = opened.convert("RGBA").getchannel("A")
    restored = restore_one(restorer, source, tmp_path / "out")
    assert restored.format == "PNG"
    assert restored.getchannel("A").tobytes() == alpha.tobytes()
    assert alpha.getextrema() == (0, 255)


@pytest.mark.parametrize(
    ("mode", "written"),
    [("1", "L"), ("L", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("I;16", "I;16"), ("RGB", "RGB")],
)
@pytest.mark.parametrize("strength", [0, 1])
def test_tiffs_of_every_mode_are_written(restorer, tmp_path, mode, written, strength):
    image = Image.fromarray(GRAY16) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    source = save(tmp_path / "in/x.tif", image)
    restored = restore_one(restorer, source, tmp_path / "out", strength=strength)
    assert (restored.size, restored.mode) == (image.size, written)
    if strength == 0:
        expected = image if mode == "I;16" else image.convert(written)
        assert np.abs(np.asarray(restored, int) - np.asarray(expected, int)).max() <= 1


# ---------------------------------------------------------------- what goes wrong


def test_what_cannot_be_read_is_named_and_the_rest_done(restorer, tmp_path):
    root = tmp_path / "in"
    for name in ("a.png", "d.png"):
        save(root / name, Image.fromarray(RGB))
    (root / "b.jpg").write_text("not a picture")
    data = io.BytesIO()
    Image.fromarray(RGB).save(data, "PNG")
    (root / "c.png").write_bytes(data.getvalue()[:900])
    done = list(restore_photos(restorer, plan_jobs([root], tmp_path / "out")))
    assert [bool(photo.error) for photo in done] == [False, True, True, False]
    assert done[1].error.startswith(str(root / "b.jpg"))
    assert done[2].error.startswith(str(root / "c.png"))
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["a_restored.png", "d_restored.png"]
    assert all(photo.seconds > 0 for photo in done)


@pytest.mark.parametrize(
    ("name", "image", "format"),
    [
        ("x.jpg", Image.fromarray(RGB).convert("RGBA"), "PNG"),
        ("x.jpg", Image.fromarray(GRAY16), "PNG"),
        ("x.bmp", Image.fromarray(RGB).convert("LA"), "PNG"),
        ("x.webp", Image.fromarray(GRAY16), "TIFF"),
    ],
)
def test_a_name_that_cannot_hold_the_content_is_an_error_not_a_loss(
    restorer, tmp_path, name, image, format
):
    source = save(tmp_path / "in" / name, image, format)
    other = save(tmp_path / "in/y.png", Image.fromarray(RGB))
    done = list(restore_photos(restorer, plan_jobs([source, other], tmp_path / "out")))
    assert done[0].error.startswith(str(source))
    assert re.search(r"(BMP|JPEG|WEBP) holds .*; write PNG", done[0].error)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["y_restored.png"]
    assert not done[1].error


def test_a_misnamed_photo_that_its_name_can_hold_is_done(restorer, tmp_path):
    source = save(tmp_path / "in/x.jpg", Image.fromarray(RGB), "WEBP")
    assert restore_one(restorer, source, tmp_path / "out").format == "JPEG"


def test_a_picture_too_large_for_its_format_is_an_error(restorer, tmp_path):
    source = save(tmp_path / "in/x.webp", Image.new("L", (16_400, 1)), "PNG")
    (done,) = restore_photos(restorer, plan_jobs([source], tmp_path / "out"), strength=0)
    assert "WEBP holds sides up to 16383 px, got 16400 x 1" in done.error


def test_more_pixels_than_the_limit_are_an_error(restorer, tmp_path):
    source = save(tmp_path / "in/x.png", Image.fromarray(RGB))
    (done,) = restore_photos(restorer, plan_jobs([source], tmp_path / "out"), pixel_limit=100)
    assert "2,240 pixels are more than the limit of 100" in done.error


@pytest.mark.parametrize("wrong", [{"strength": 2}, {"tile": 7}, {"tile": "big"}])
def test_a_wrong_option_is_an_error_before_anything_is_done(restorer, tmp_path, wrong):
    source = save(tmp_path / "in/x.png", Image.fromarray(RGB))
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        list(restore_photos(restorer, plan_jobs([source], tmp_path / "out"), **wrong))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_stops_none_of_the_others(restorer, tmp_path):
    touch(tmp_path, "out/x")
    root = tmp_path / "in"
    for name in ("x/a.png", "y/b.png"):
        save(root / name, Image.fromarray(RGB))
    done = list(restore_photos(restorer, plan_jobs([root], tmp_path / "out")))
    assert done[0].error.startswith(str(root / "x/a.png"))
    assert not done[1].error
    assert done[1].job.target.exists()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_full_disk_leaves_no_half_written_photo(restorer, tmp_path, monkeypatch, num_threads):
    sources = [save(tmp_path / f"in/{name}.png", Image.fromarray(RGB)) for name in "abc"]
    whole, count = os.fsync, 0

    def fsync(descriptor):
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    done: list[Restored] = []
    jobs = plan_jobs(sources, tmp_path / "out")
    with pytest.raises(OSError, match="No space left"):
        done.extend(restore_photos(restorer, jobs, num_threads=num_threads))
    left = {path.name for path in (tmp_path / "out").iterdir()}
    # Several threads write at a time: any of them may meet the end of the disk.
    assert left == {"a_restored.png"} if num_threads == 1 else len(left) < 3
    assert all(name.endswith("_restored.png") and name[0] != "." for name in left)


def test_originals_keep_their_bytes_and_dates(restorer, tmp_path):
    root = tmp_path / "in"
    sources = [save(root / f"{name}.jpg", Image.fromarray(RGB)) for name in "ab"]

    def state() -> list:
        return [(hashlib.sha256(p.read_bytes()).digest(), p.stat().st_mtime_ns) for p in sources]

    before = state()
    # Results beside their originals.
    assert not any(photo.error for photo in restore_photos(restorer, plan_jobs([root], root)))
    assert state() == before
    assert len(list(root.iterdir())) == 4


@pytest.mark.parametrize("suffix", ["/../evil", "../x", "\\x"])
def test_a_suffix_does_not_lead_out_of_the_folder(suffix, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="suffix must be a part of a file name"):
        plan_jobs([tmp_path / "x.png"], tmp_path / "out", suffix=suffix)
