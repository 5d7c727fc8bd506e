"""The page in Chromium: what a visitor sees, and what the download is at every moment."""

import io
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_pages import CAMERA, PATIENCE_S, Served, make_restorer, serving, write_photo
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from skimage.data import astronaut

from agedphoto.restore.scans import read_pages

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("app"), end=signal.SIGINT) as page:
        yield page


@pytest.fixture
def portrait(tmp_path) -> Path:
    return write_photo(tmp_path / "portrait.jpg", astronaut()[::2, ::2].copy(), quality=95)


class Page:
    """What a visitor sees and does."""

    def __init__(self, chrome: Chrome, served: Served, downloads: Path) -> None:
        self.chrome, self.downloads = chrome, downloads
        downloads.mkdir()
        allowed = {"behavior": "allow", "downloadPath": str(downloads)}
        chrome.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
        chrome.get(served.url)
        self.find("#restore")

    def until(self, holds: Callable[[], Any]) -> Any:
        # What the page replaces while it is looked at is looked at again.
        waits = WebDriverWait(
            self.chrome, PATIENCE_S, 0.1, ignored_exceptions=[StaleElementReferenceException]
        )
        return waits.until(lambda _: holds())

    def all(self, selector: str) -> list[Any]:
        return self.chrome.find_elements(By.CSS_SELECTOR, selector)

    def find(self, selector: str) -> Any:
        return self.until(lambda: self.all(selector))[0]

    def script(self, script: str) -> Any:
        return self.chrome.execute_script(f"return {script}")

    def choose(self, photo: Path) -> None:
        if cleared := self.all("#source button[aria-label=Clear]"):
            cleared[0].click()
        self.find("#source input[type=file]").send_keys(str(photo))

    def pictures(self) -> list[str]:
        """The addresses of what is shown, before and after."""
        return self.script(
            "[...document.querySelectorAll('#result img')].filter(one => one.naturalWidth)"
            ".map(one => one.src)"
        )

    def tab(self, name: str) -> Any:
        return next(one for one in self.all("[role=tab]") if one.text == name)

    def told(self) -> str:
        return " ".join(one.text for one in self.all(".toast-body"))

    @property
    def download(self) -> str:
        """What the button says; empty if it gives nothing."""
        return self.script(
            "(one => one.disabled ? '' : one.textContent.trim())"
            "(document.querySelector('#download'))"
        )

    def restore(self) -> None:
        self.find("#restore").click()
        self.until(lambda: self.download)
        self.until(lambda: self.find("#restore").text == "Restore")

    def fetch(self, name: str) -> bytes:
        """Press the button; return what is downloaded."""
        file = self.downloads / name
        file.unlink(missing_ok=True)
        self.find("#download").click()
        self.until(file.exists)
        return file.read_bytes()


@pytest.fixture
def page(browser, served, tmp_path) -> Page:
    return Page(browser, served, tmp_path / "downloads")


def seen(element: Any) -> np.ndarray:
    """What is on the screen: (H, W, 3)."""
    with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def is_red(pixels: np.ndarray) -> np.ndarray:
    return (pixels[:, :, 0] > 230) & (pixels[:, :, 1:] < 90).all(2)


def test_a_photo_is_restored_and_downloaded_as_it_came(page, portrait):
    page.choose(portrait)
    page.until(page.pictures)
    page.restore()
    assert page.download == "Download JPG, 256 × 256 px"
    plain = page.fetch("portrait_restored.jpg")
    with Image.open(io.BytesIO(plain)) as image:
        assert (image.format, image.size) == ("JPEG", (256, 256))
        assert image.getexif()[0x0110] == CAMERA
    before, restored = (read_pages(one)[0].pixels.astype(int) for one in (portrait, plain))
    expected = make_restorer(mask_head=True)(read_pages(portrait)[0].pixels)
    assert np.abs(restored - expected).mean() < np.abs(restored - before).mean()
    assert [one for one in page.chrome.get_log("browser") if one["level"] == "SEVERE"] == []


def test_what_is_painted_over_changes_and_nothing_else(page, portrait):
    page.choose(portrait)
    page.until(page.pictures)
    page.restore()
    plain = read_pages(page.fetch("portrait_restored.jpg"))[0].pixels.astype(int)
    page.tab("Mark damage").click()
    canvas = page.find("#damage canvas")
    page.until(lambda: seen(canvas).mean() < 200)
    ActionChains(page.chrome).move_to_element(canvas).click_and_hold().move_by_offset(
        30, 0
    ).release().perform()
    page.until(lambda: is_red(seen(canvas)).mean() > 1e-4)
    # A second time too: what is painted stays until another photograph is chosen.
    for _ in range(2):
        page.restore()
        marked = read_pages(page.fetch("portrait_restored.jpg"))[0].pixels.astype(int)
        changed = np.abs(marked - plain).max(2) > 24
        assert changed[96:160, 96:192].any()
        assert changed[:64].mean() < 0.01


def test_a_photo_is_shown_from_when_it_is_chosen(page, portrait):
    assert "Your photograph will be shown here." in page.script(
        "getComputedStyle(document.querySelector('#result .empty'), '::after').content"
    )
    assert page.find("#result").size["height"] > 300
    assert [page.tab(name).is_enabled() for name in ("Mark damage", "Mask")] == [False, False]
    page.choose(portrait)
    shown = page.until(page.pictures)
    assert len(set(shown)) == 1, "there is no after yet"
    handle = page.find("#result [data-testid=slider]")
    assert not handle.is_displayed(), "and nothing to compare"
    assert page.tab("Mark damage").is_enabled()
    page.restore()
    page.until(lambda: len(set(page.pictures())) == 2)
    assert handle.is_displayed()
    assert page.tab("Mask").is_enabled()


def test_the_slider_uncovers_the_restored_photo(page, portrait):
    page.choose(portrait)
    page.until(page.pictures)
    page.restore()
    page.until(lambda: len(set(page.pictures())) == 2)
    clip = "document.querySelector('#result img.fixed').style.clipPath"

    def uncovered_from() -> float:
        return float(re.findall(r"([\d.]+)%", page.script(clip))[0])

    assert uncovered_from() == pytest.approx(50, abs=1)
    handle = page.find("#result .icon-wrap")
    ActionChains(page.chrome).click_and_hold(handle).move_by_offset(-80, 0).release().perform()
    page.until(lambda: uncovered_from() < 45)


def test_there_is_no_download_while_a_photo_is_restored(page, served, portrait):
    page.choose(portrait)
    page.until(page.pictures)
    assert page.download == ""
    page.restore()
    with served.holding():
        page.find("#restore").click()
        page.until(lambda: page.find("#restore").text == "Restoring …")
        assert page.download == ""
        assert not page.find("#restore").is_enabled()
        assert page.pictures(), "it stays in sight"
    page.until(lambda: page.download)
    assert page.find("#restore").is_enabled()


def test_who_turns_to_another_photo_gets_nothing_of_the_one_before(page, served, portrait):
    page.choose(portrait)
    page.until(page.pictures)
    with served.holding():
        page.find("#restore").click()
        page.until(lambda: page.find("#restore").text == "Restoring …")
        old = set(page.pictures())
        page.all("#examples button")[1].click()
        # While the other is held back still: this one is shown at once.
        page.until(lambda: page.pictures() and not old & set(page.pictures()))
        page.until(lambda: page.find("#restore").text == "Restore")
        assert page.download == ""
    page.restore()
    assert page.download == "Download PNG, 512 × 341 px"
    assert page.fetch("coffee_restored.png")
    page.choose(portrait)
    assert page.download == ""


def test_there_is_no_download_when_restoring_fails(page, portrait, tmp_path):
    page.choose(portrait)
    page.until(page.pictures)
    page.restore()
    old = set(page.pictures())
    page.choose(write_photo(tmp_path / "broken.png"))
    page.until(lambda: page.pictures() and not old & set(page.pictures()))
    page.find("#restore").click()
    page.until(lambda: "Something went wrong here" in page.told())
    page.until(lambda: page.find("#restore").is_enabled())
    assert page.download == ""


def test_what_is_no_photo_is_told_and_can_be_replaced(page, portrait, tmp_path):
    letter = tmp_path / "letter.jpg"
    letter.write_text("Dear aunt")
    page.choose(portrait)
    page.until(page.pictures)
    page.restore()
    page.choose(letter)
    page.until(lambda: "letter.jpg: not a picture that can be read here." in page.told())
    page.until(lambda: not page.pictures())
    assert page.download == ""
    page.choose(portrait)
    page.until(page.pictures)


def test_the_page_asks_no_other_host_for_anything(page, served, portrait):
    page.choose(portrait)
    page.until(page.pictures)
    page.restore()
    page.tab("Mark damage").click()
    page.find("#damage canvas")
    asked = []
    for line in page.chrome.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            params = message["params"]
            asked.append(params.get("url") or params["request"]["url"])
    assert len(asked) > 10
    # The browser's own start page is none of ours.
    ours = (served.url, "blob:", "data:", "chrome:", "chrome-untrusted:", "devtools:")
    assert [url for url in asked if not url.startswith(ours)] == []


def test_two_browsers_are_two_visitors(page, served, portrait):
    page.choose(portrait)
    page.until(page.pictures)
    page.restore()
    addresses = page.pictures()

    def statuses() -> set[int]:
        fetch = "return (async url => (await fetch(url)).status)(arguments[0])"
        return {page.chrome.execute_script(fetch, address) for address in addresses}

    mine = statuses()
    page.chrome.delete_all_cookies()
    page.chrome.get(served.url)
    assert (mine, statuses()) == ({200}, {403})


@pytest.mark.parametrize("width", [1280, 390])
def test_an_example_is_shown_large_at_any_width(page, width):
    page.chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    page.find("#examples button img").click()
    page.until(page.pictures)
    shown = page.find("#result img")
    page.until(lambda: shown.size["width"] > width * 0.6)
    assert page.script("document.documentElement.scrollWidth") <= width
    # On a telephone too the photograph is in sight, and the button with it.
    for selector in ("#result img", "#restore"):
        page.until(
            lambda one=selector: page.script(
                f"(it => it.top >= 0 && it.bottom <= innerHeight + 1)"
                f"(document.querySelector('{one}').getBoundingClientRect())"
            )
        )
