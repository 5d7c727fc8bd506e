"""What the page does with a photograph: its limits, both networks, and what comes back."""

import re
import struct
import threading
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from app_pages import CAMERA, RGB, make_net, make_restorer, wait_until, write_photo
from PIL import Image

from agedphoto.app_photos import (
    EXAMPLES,
    PREVIEW_PX,
    EndedError,
    Limits,
    Turns,
    make_examples,
    open_scan,
    read_marks,
    restore_scan,
)
from agedphoto.restore import Restorer
from agedphoto.restore.loading import load_restorers
from agedphoto.restore.scans import Page, encode_pages, read_pages
from agedphoto.train import (
    ColorNet,
    ColorNetConfig,
    LabNet,
    UNet,
    save_model,
)

LIMITS = Limits(max_megapixels=1, max_mb=1, max_pages=9)


def test_a_restored_photo_keeps_format_size_and_metadata(tmp_path):
    path = write_photo(tmp_path / "a.jpg", dpi=(300, 300))
    restorer = make_restorer()
    done = restore_scan(path, tmp_path / "out", limits=LIMITS, restorer=restorer)
    with Image.open(done.file) as image:
        assert (image.format, image.size, image.info["dpi"]) == ("JPEG", (128, 128), (300, 300))
        assert image.getexif()[0x0110] == CAMERA
        after = np.asarray(image).astype(int)
    # JPEG adds its own error to what the network answers.
    expected = restorer(read_pages(path)[0].pixels).astype(int)
    assert np.abs(after - expected).mean() < np.abs(after - read_pages(path)[0].pixels).mean() / 2


def test_names_of_results_cannot_be_guessed(tmp_path):
    path = write_photo(tmp_path / "a.png")
    files = {
        restore_scan(path, tmp_path / "out", limits=LIMITS, restorer=make_restorer()).file
        for _ in range(2)
    }
    assert len({file.parent.name for file in files}) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", file.parent.name) for file in files)


def test_16_bits_and_all_pages_come_back(tmp_path):
    deep = RGB.astype(np.uint16) * 257
    pages = [Page(pixels=deep), Page(pixels=deep[:50, :, 0])]
    (tmp_path / "a.tif").write_bytes(encode_pages(pages, "TIFF"))
    done = restore_scan(
        tmp_path / "a.tif", tmp_path / "out", limits=LIMITS, restorer=make_restorer()
    )
    after = read_pages(done.file)
    assert [page.pixels.shape for page in after] == [deep.shape, (50, 128)]
    assert all(page.pixels.dtype == np.uint16 for page in after)


def test_what_was_painted_at_any_size_is_filled_in_on_the_photo(tmp_path):
    path = write_photo(tmp_path / "a.png")
    painted = np.zeros((64, 64), np.uint8)
    painted[10:20, 30:40] = 255
    restorer = make_restorer()
    kept: dict[str, Any] = {"limits": LIMITS, "restorer": restorer, "strength": 0.5}
    plain = read_pages(restore_scan(path, tmp_path, **kept).file)[0].pixels
    filled = read_pages(restore_scan(path, tmp_path, **kept, painted=painted).file)[0].pixels
    changed = (plain != filled).any(2)
    assert changed[20:40, 60:80].mean() > 0.5
    assert not changed[80:].any()


@pytest.mark.parametrize("mask_head", [False, True])
def test_the_mask_is_there_if_the_network_has_one(tmp_path, mask_head):
    path = write_photo(tmp_path / "a.png")
    restorer = make_restorer(mask_head=mask_head)
    done = restore_scan(path, tmp_path, limits=LIMITS, restorer=restorer)
    assert (done.mask is not None) == mask_head
    assert done.mask is None or done.mask.size == (128, 128)


def make_color_net() -> ColorNet:
    return ColorNet(
        ColorNetConfig(widths=(4, 8, 8, 8), blocks=(0, 0, 0, 0), attention_blocks=1, heads=2)
    ).eval()


def load_for(tmp_path: Path, *, luminance: UNet | None) -> tuple[Restorer, Restorer]:
    """Load what the page would: a network for luminance, and one for colours."""
    save_model(tmp_path / "gray.safetensors", make_net(), mode="grayscale", training={})
    net = LabNet(make_color_net(), luminance)
    save_model(tmp_path / "lab.safetensors", net, mode="lab", training={})
    restorer, coloring = load_restorers(
        str(tmp_path / "gray.safetensors"), str(tmp_path / "lab.safetensors"), device="cpu"
    )
    assert coloring is not None
    return restorer, coloring


def luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ (0.299, 0.587, 0.114) if pixels.ndim == 3 else pixels.astype(float)


@pytest.mark.parametrize("packed", [False, True])
def test_the_switch_adds_colours_to_the_luma_that_there_is_without_it(tmp_path, packed):
    # One of another seed: that of the page's own network counts, not what colours came with.
    luminance = make_net(seed=5) if packed else None
    restorer, coloring = load_for(tmp_path, luminance=luminance)
    path = write_photo(tmp_path / "gray.png", RGB[:, :, 1])
    kept: dict[str, Any] = {"limits": LIMITS, "restorer": restorer}
    gray = read_pages(restore_scan(path, tmp_path, **kept).file)[0].pixels
    done = restore_scan(path, tmp_path, coloring=coloring, **kept)
    colored = read_pages(done.file)[0].pixels
    assert done.changed_mode
    assert colored.shape == RGB.shape
    assert np.ptp(colored.astype(int), axis=2).max() > 0
    restored_by = np.abs(gray.astype(int) - RGB[:, :, 1]).mean()
    assert restored_by > 2
    assert np.abs(luma(colored) - gray).mean() < restored_by / 4


def test_the_switch_leaves_colours_that_there_are(tmp_path):
    restorer, coloring = load_for(tmp_path, luminance=None)
    path = write_photo(tmp_path / "color.png")
    kept: dict[str, Any] = {"limits": LIMITS, "restorer": restorer}
    with_switch = restore_scan(path, tmp_path, coloring=coloring, **kept)
    without = restore_scan(path, tmp_path, **kept)
    assert with_switch.file.read_bytes() == without.file.read_bytes()
    before, after = (read_pages(file)[0].pixels for file in (path, without.file))
    chroma = [np.diff(pixels.astype(int), axis=2) for pixels in (before, after)]
    # Red, green and blue change alike, but where one of them ends.
    inside = ((after > 0) & (after < 255)).all(2)
    assert (np.abs(chroma[0] - chroma[1])[inside] <= 1).all()


def test_colours_go_where_the_format_has_a_place_for_them(tmp_path):
    restorer, coloring = load_for(tmp_path, luminance=None)
    path = write_photo(tmp_path / "gray.pgm", RGB[:, :, 1])
    done = restore_scan(path, tmp_path, limits=LIMITS, restorer=restorer, coloring=coloring)
    assert done.file.name == "gray_restored.ppm", "PGM has no place for colours"
    assert read_pages(done.file)[0].pixels.shape == RGB.shape


def test_without_strength_nothing_is_changed_by_the_switch_either(tmp_path):
    restorer, coloring = load_for(tmp_path, luminance=None)
    path = write_photo(tmp_path / "gray.png", RGB[:, :, 1])
    done = restore_scan(
        path, tmp_path, limits=LIMITS, restorer=restorer, coloring=coloring, strength=0
    )
    np.testing.assert_array_equal(read_pages(done.file)[0].pixels, RGB[:, :, 1])


def test_a_model_that_adds_colours_restores_the_others_by_its_luminance_network(tmp_path):
    net = LabNet(make_color_net(), make_net())
    save_model(tmp_path / "lab.safetensors", net, mode="lab", training={})
    restorer, coloring = load_restorers(str(tmp_path / "lab.safetensors"), device="cpu")
    assert coloring is not None
    assert (restorer.mode, coloring.mode) == ("grayscale", "lab")
    np.testing.assert_array_equal(restorer(RGB), make_restorer()(RGB))


def test_models_that_do_not_fit_each_other_are_refused(tmp_path):
    net = LabNet(make_color_net(), make_net())
    save_model(tmp_path / "lab.safetensors", net, mode="lab", training={})
    save_model(tmp_path / "gray.safetensors", make_net(), mode="grayscale", training={})
    lab, gray = (str(tmp_path / f"{name}.safetensors") for name in ("lab", "gray"))
    with pytest.raises(ValueError, match=r"color_model must be of mode lab or rgb, got .*gray"):
        load_restorers(gray, gray, device="cpu")
    with pytest.raises(ValueError, match="adds colours already; leave out color_model"):
        load_restorers(lab, lab, device="cpu")


def test_photos_are_restored_one_at_a_time_and_given_up_in_the_end():
    turns, told, most = Turns(), [], []

    def restore() -> None:
        try:
            with turns.one():
                told.append("begun")
                while True:
                    most.append(told.count("begun") - told.count("given up"))
                    turns.go_on()
        except EndedError:
            told.append("given up")

    threads = [threading.Thread(target=restore) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: most)
    turns.end(patience_s=60)
    for thread in threads:
        thread.join(60)
    assert sorted(told) == ["begun", *["given up"] * 3], "others never begin"
    assert set(most) == {1}


def test_marks_are_where_any_layer_is_painted(tmp_path):
    layers = []
    for number in range(2):
        pixels = np.zeros((30, 40, 4), np.uint8)
        pixels[10 * number : 10 * number + 5] = (255, 0, 0, 200)
        layers.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(layers[-1])
    expected = np.zeros((30, 40), np.uint8)
    expected[:5] = expected[10:15] = 255
    painted = read_marks(layers)
    assert painted is not None
    np.testing.assert_array_equal(painted, expected)
    assert read_marks([]) is None
    Image.new("RGBA", (40, 30)).save(layers[0])
    assert read_marks(layers[:1]) is None


@pytest.mark.parametrize("made", ["large", "jpeg", "text", "empty"])
def test_marks_that_no_brush_has_made_are_refused(tmp_path, made):
    path = tmp_path / "layer.png"
    if made == "large":
        Image.new("RGBA", (PREVIEW_PX + 1, 1)).save(path)
    elif made == "jpeg":
        Image.new("RGB", (8, 8)).save(path, "JPEG")
    else:
        path.write_bytes(b"no picture" if made == "text" else b"")
    with pytest.raises(ValueError, match=r"^What you have marked cannot be read"):
        read_marks([path])


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims to be so large, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def tiff_of(pages: int) -> bytes:
    page = Page(pixels=np.zeros((4, 4), np.uint8))
    return encode_pages([page] * pages, "TIFF")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.exe", b"MZ", r"^a\.exe: files of this type are not taken; these are: avif"),
        ("a", b"", r"^a: files of this type are not taken"),
        ("a.jpg", bytes(1_100_000), r"^a\.jpg: has 1\.1 MB, this page takes 1 MB"),
        ("a.png", b"nothing", r"^a\.png: not a picture"),
        ("a.png", b"", r"^a\.png: "),
        ("a.png", png_of(1100, 1000), r"^a\.png: has more pixels than this page takes, 1 mega"),
        ("a.png", png_of(60_000, 60_000), r"^a\.png: has more pixels"),
        ("a.jpg", png_of(60_000, 60_000), r"^a\.jpg: has more pixels"),
        ("a.png", png_of(0, 5), r"^a\.png: "),
        ("a.tif", tiff_of(10), r"^a\.tif: has more pages than this page takes, 9"),
        ("a.jpg", tiff_of(500), r"^a\.jpg: has more pages than this page takes, 9"),
        ("a.tif", tiff_of(3)[:200], r"^a\.tif: "),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_breaks_a_limit_is_refused_by_its_name_alone(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        open_scan(tmp_path / name, LIMITS)
    assert str(tmp_path) not in str(caught.value)


def test_as_many_pages_as_are_taken_are_taken(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_of(9))
    assert len(open_scan(tmp_path / "a.tif", LIMITS)) == 9


@pytest.mark.slow
def test_examples_are_aged_by_us_and_always_the_same(tmp_path):
    made = [make_examples(tmp_path / name) for name in "ab"]
    assert [path.stem for path in made[0]] == [Path(name).stem for name in EXAMPLES]
    for one, other in zip(*made, strict=True):
        assert one.read_bytes() == other.read_bytes()
        open_scan(one, LIMITS)
