"""Scans as textures: the ground goes, the marks stay, the edges meet, bad files are named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agedphoto.textures import TextureBank
from agedphoto.textures.scans import find_scans, fit_ground, lift, make_seamless


def dust(size: tuple[int, int] = (300, 400), *, seed: int = 0, num: int = 90) -> np.ndarray:
    """Opacity of discs, in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    opacity = np.zeros(size)
    for _ in range(num):
        y, x = rng.random(2) * size
        near = np.hypot(rows - y, columns - x) < rng.uniform(1.5, 5.0)
        opacity[near] = np.maximum(opacity[near], rng.uniform(0.4, 0.9))
    return opacity


def uneven(size: tuple[int, int], *, low: float, high: float) -> np.ndarray:
    """A ground that is darker towards one corner."""
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    return high - (high - low) * (0.5 * x**2 + 0.5 * y)


def on_dark(opacity: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return ground + opacity * (1 - ground)


def on_light(opacity: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return ground * (1 - opacity)


def save(path: Path, value: np.ndarray, *, bits: int = 8) -> None:
    top = 2**bits - 1
    kind = np.uint8 if bits == 8 else np.uint16
    Image.fromarray(np.rint(value * top).astype(kind)).save(path)


@pytest.mark.parametrize("lay", [on_dark, on_light])
def test_ground_goes_and_marks_stay(lay):
    opacity = dust()
    low, high = (0.05, 0.14) if lay is on_dark else (0.8, 0.95)
    noise = np.random.default_rng(1).normal(0.0, 1 / 255, opacity.shape)
    value = np.clip(lay(opacity, uneven(opacity.shape, low=low, high=high)) + noise, 0.0, 1.0)
    lifted, is_light = lift(value.astype(np.float32))
    assert is_light is (lay is on_light)
    assert np.abs(lifted - opacity)[opacity > 0].mean() < 0.03
    assert lifted[opacity == 0].mean() < 0.002
    assert np.median(lifted) == 0.0


def test_the_ground_is_found_under_many_marks():
    opacity = dust(num=700)
    assert 0.1 < (opacity > 0).mean() < 0.4
    ground = uneven(opacity.shape, low=0.04, high=0.2)
    found = fit_ground(on_dark(opacity, ground).astype(np.float32))
    assert np.abs(found - ground).max() < 0.03


def test_a_declared_ground_is_believed():
    value = on_dark(dust(), np.full((300, 400), 0.1)).astype(np.float32)
    dark, is_light = lift(value, ground="dark")
    assert not is_light
    light, is_light = lift(value, ground="light")
    assert is_light
    assert dark.max() > 0.5
    assert light.max() < 0.01


def test_paper_is_told_by_its_own_tone():
    rng = np.random.default_rng(3)
    for tone in (0.9, 0.1):
        value = np.clip(rng.normal(tone, 0.02, (256, 256)), 0, 1).astype(np.float32)
        _, is_light = lift(value)
        assert is_light is (tone > 0.5)


def test_seams_meet_and_marks_keep_their_strength():
    large = dust((288, 288), num=120).astype(np.float32)
    square = make_seamless(large, 256)
    assert square.shape == (256, 256)
    assert np.array_equal(square[40:, 40:], large[40:256, 40:256])
    rng = np.random.default_rng(0)
    smooth = np.zeros((288, 288))
    for a, b in rng.uniform(0.01, 0.1, (6, 2)):
        smooth += np.sin(np.arange(288)[:, None] * a + np.arange(288) * b)
    smooth = ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    tile = make_seamless(smooth, 256)
    for axis in (0, 1):
        step = np.abs(tile - np.roll(tile, 1, axis)).max(1 - axis)
        assert step[0] < 1.5 * np.sort(step[1:])[-1]
        assert np.abs(smooth[:256, :256] - np.roll(smooth[:256, :256], 1, axis)).max() > 3 * step[0]


def test_scans_of_any_size_and_format_become_a_bank(tmp_path):
    opacity = dust((700, 500))
    dark = on_dark(opacity, np.full(opacity.shape, 0.1))
    save(tmp_path / "a8.png", dark)
    save(tmp_path / "b16.png", dark, bits=16)
    save(tmp_path / "c16.TIF", dark, bits=16)
    save(tmp_path / "d.jpg", on_light(opacity, np.full(opacity.shape, 0.9)))
    Image.fromarray(np.rint(dark * 255).astype(np.uint8)).convert("RGB").save(tmp_path / "e.bmp")
    Image.fromarray(np.rint(dark * 255).astype(np.uint8)).convert("P").save(tmp_path / "f.gif")
    Image.fromarray(dark.astype(np.float32)).save(tmp_path / "g.tiff")
    save(tmp_path / "h-small.png", dark[:70, :90])
    (tmp_path / "notes.txt").write_text("no scan")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    bank = TextureBank.from_scans(tmp_path, size_px=128)
    assert bank.textures.shape == (8, 128, 128)
    assert bank.textures.dtype == torch.uint8
    assert bank.names[:5] == (
        "scans-0000", "scans-0001", "scans-0002", "scans-light-0003", "scans-0004",
    )  # fmt: skip
    assert bank.light_ground.tolist() == [i == 3 for i in range(8)]
    for i in (1, 2, 6):  # the same picture in other clothes
        assert (bank.textures[i].int() - bank.textures[0].int()).abs().max() <= 3
    assert bank.choose(("scans-light",)).tolist() == [3]
    assert all(t.any() and float((t == 0).float().mean()) > 0.5 for t in bank.textures)


def test_transparent_scans_count_by_their_alpha(tmp_path):
    alpha = np.rint(dust((200, 200)) * 255).astype(np.uint8)
    for name, colour in (("white", 255), ("black", 0)):
        grey = np.full_like(alpha, colour)
        Image.fromarray(np.dstack([grey, grey, grey, alpha])).save(tmp_path / f"{name}.png")
    bank = TextureBank.from_scans(tmp_path, size_px=64)
    assert bank.names == ("scans-light-0000", "scans-0001")
    assert torch.equal(bank.textures[0], bank.textures[1])


def test_the_same_scans_give_the_same_bytes(tmp_path):
    save(tmp_path / "a.png", on_dark(dust(), np.full((300, 400), 0.1)))
    first, again = (TextureBank.from_scans(tmp_path, size_px=100) for _ in range(2))
    assert first.fingerprint == again.fingerprint


def test_every_bad_file_is_named_with_its_reason(tmp_path):
    good = on_dark(dust(), np.full((300, 400), 0.1))
    save(tmp_path / "good.png", good)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    save(tmp_path / "blank.png", np.full((100, 100), 0.5))
    save(tmp_path / "tiny.png", good[:30, :30])
    with pytest.raises(ValueError, match="4 of 5 scans") as caught:
        TextureBank.from_scans(tmp_path)
    said = str(caught.value)
    for words in ("broken.png (", "cut.png (", "blank.png (", "tiny.png (30 x 30 px, needs 64"):
        assert words in said
    assert "good.png" not in said
    assert said.endswith("mend them or take them out of the folder")


def test_a_ground_that_cannot_be_told_is_asked_for(tmp_path):
    lighter, darker = dust(seed=1, num=80), dust(seed=2, num=80)
    save(tmp_path / "both.png", 0.5 + 0.4 * lighter - 0.4 * darker)
    with pytest.raises(ValueError, match=r"both\.png .*say which, ground="):
        TextureBank.from_scans(tmp_path)
    assert len(TextureBank.from_scans(tmp_path, size_px=64, ground="light")) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ground": "grey"}, "ground must be auto, dark or light, got 'grey'"),
        ({"size_px": 32}, "size_px must be .* at least 64, got 32"),
        ({}, "holds no pictures"),
    ],
)
def test_bad_arguments_are_named(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        TextureBank.from_scans(tmp_path, **wrong)
    with pytest.raises(ValueError, match="scans must be in a folder"):
        TextureBank.from_scans(tmp_path / "none")


def test_scans_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a.tif", "c.PNG"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_scans(tmp_path)] == ["a.tif", "b.png", "c.PNG"]
