"""What tests share: a browser, photographs, shards, a small bank of textures."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import CROP, SIZES
from faulty_server import FaultyServer, serving
from nano import NANO, NANO_COLORS
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from agedphoto.datasets import AgedPairs, find_photos, write_shards
from agedphoto.textures import TextureBank
from agedphoto.train import COLOR_PRESETS, PRESETS

# Tiny pictures are done before a second thread wakes up, and on busy cores it is waited for.
torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device there is."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def textures() -> TextureBank:
    """A small bank."""
    return TextureBank.synthesize(5, size_px=128)


@pytest.fixture
def make_photos(tmp_path: Path):
    """Return a function that writes photo-like pictures of given (height, width) into a folder."""

    def make(sizes: list[tuple[int, int]], folder: str = "photos", seed: int = 0) -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        for number, (height, width) in enumerate(sizes):
            Image.fromarray(photo_like(height, width, seed=seed + number)).save(
                root / f"{number:04d}.png"
            )
        return root

    return make


@pytest.fixture
def make_shards(make_photos, tmp_path: Path):
    """Return a function that writes photo-like pictures of given sizes into shards."""

    def make(sizes: list[tuple[int, int]], name: str = "shards", **options) -> Path:
        photos = make_photos(sizes, folder=f"{name}-photos")
        write_shards(find_photos(photos), tmp_path / name, root=photos, **options)
        return tmp_path / name

    return make


@pytest.fixture
def shards(make_shards) -> Path:
    """Fourteen photos of several sizes, see `batches.SIZES`."""
    return make_shards(SIZES)


@pytest.fixture
def open_pairs(shards, textures):
    """Return a function that opens pairs of these shards; they are closed in the end."""
    opened: list[AgedPairs] = []

    def opens(source: Any = shards, **options: Any) -> AgedPairs:
        settings = {
            "crop_px": CROP, "batch_size": 8, "crops_per_photo": 4, "seed": 5, "device": "cpu",
            "textures": textures, "num_threads": 2, "rank": 0, "world_size": 1,
        }  # fmt: skip
        opened.append(AgedPairs(source, **(settings | options)))
        return opened[-1]

    yield opens
    for one in opened:
        one.close()


def photo_like(height: int, width: int, *, seed: int) -> np.ndarray:
    """Smooth gradients, a few hard edges and some texture: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    channels = []
    for _ in range(3):
        a, b, c = rng.uniform(-1, 1, 3)
        wave = np.sin((a * x + b * y) / 9 + c * 6)
        step = (a * (x - width / 2) + b * (y - height / 2) > c * 20).astype(float)
        channels.append(110 + 50 * wave + 60 * step + rng.normal(0, 4, (height, width)))
    return np.stack(channels, -1).clip(0, 255).astype(np.uint8)


@pytest.fixture
def nano(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset `nano`, which trains in milliseconds."""
    monkeypatch.setitem(PRESETS, "nano", NANO)
    monkeypatch.setitem(COLOR_PRESETS, "nano", NANO_COLORS)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """A web server on loopback whose misbehaviour is up to the test."""
    with serving() as state:
        yield state


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A headless Chromium; the test skips itself where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        reason = "needs chromium and chromedriver"
        if os.environ.get("AGEDPHOTO_REQUIRE_BROWSER"):
            pytest.fail(f"{reason}, and AGEDPHOTO_REQUIRE_BROWSER is set")
        pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        f"user-data-dir={tmp_path / 'chromium'}", "window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=ChromeService(executable_path=driver))
    try:
        yield chrome
    finally:
        chrome.quit()
