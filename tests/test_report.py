"""The report stands alone, says what the record says and is never half there."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from skimage.data import astronaut
from skimage.filters import gaussian

from agedphoto.report import Pair, Restoration, write_report

MEASURES = [f"{kind}_{way}{unit}" for way in ("aged", "blur", "restored")
            for kind, unit in (("psnr", "_db"), ("ssim", ""))]  # fmt: skip
VOID = {"img", "input", "link", "meta"}


FIGURES: dict[str, Any] = dict.fromkeys(MEASURES, 1.0)


def age(clean, rng):
    """Grain and white specks; returns aged and where the specks are."""
    mask = rng.random(clean.shape[:2]) < 0.004
    grainy = clean + 25 * rng.standard_normal(clean.shape)
    grainy[mask] = 255
    return grainy.clip(0, 255).astype(np.uint8), mask


def restoration(name, clean, seed=0):
    rng = np.random.default_rng(seed)
    aged, _ = age(clean, rng)
    axis = 2 if clean.ndim == 3 else None
    restored = gaussian(aged, 1.2, channel_axis=axis, preserve_range=True).round().astype(np.uint8)
    figures: dict[str, Any] = dict(zip(MEASURES, rng.uniform(10, 30, 6).tolist(), strict=True))
    return Restoration(name=name, clean=clean, aged=aged, restored=restored, **figures)


def make_record(restorations):
    rows = [
        {"name": r.name, "width": r.clean.shape[1], "height": r.clean.shape[0]}
        | {key: getattr(r, key) for key in MEASURES}
        | {"blur_sigma_px": 1.25}
        for r in restorations
    ]
    return {
        "agedphoto": "0.1.0",
        **{key: sum(row[key] for row in rows) / len(rows) for key in MEASURES},
        "blur_sigma_px": 1.25,
        "held_out": rows,
        "photos": {
            "source": "scikit-image's photographs",
            "train": ["coffee", "camera"],
            "held_out": [r.name for r in restorations],
            "left_out": [{"name": "horse <bw>", "reason": "two tones & no more"}],
        },
        "speed": {
            "shard_photos_per_s": 14.2,
            "decode_photos_per_s": 98.3,
            "ageing_pairs_per_s": 1210.4,
            "train_pairs_per_s": 462.2,
            "data_wait_share": 0.021,
            "restore_megapixels_per_s": 1.32,
        },
        "seconds": {
            "shards": 1.4,
            "textures": 6.2,
            "training": 207.7,
            "restoring": 2.1,
            "total": 219.3,
        },
        "training": {"seen_pairs": 96000, "steps": 6000, "parameters": 1912345, "stop": "time"},
        "curve": [
            {
                "seen": 1600 * k,
                "seconds": 3.5 * k,
                "loss": 0.003 + 0.03 * 0.8**k,
                "psnr_db": 28 - 6 * 0.9**k if k % 5 == 0 else None,
            }
            for k in range(1, 31)
        ],
        "config": {"seed": 0, "recipe": {"name": "seed", "sigma": [0.05, 0.12]}, "optim": {}},
        "hardware": {"device": "cpu", "name": "A CPU", "cores": 2, "memory_gib": 23.4},
        "versions": {"python": "3.11.9", "torch": "2.11.0"},
    }


@pytest.fixture(scope="module")
def restorations():
    rgb = astronaut()
    gray = rgb.mean(2).round().astype(np.uint8)
    return [restoration("astronaut", gray[:360]), restoration("in colour", rgb[:200, :300], 1)]


@pytest.fixture(scope="module")
def pairs():
    clean = astronaut()[:64, 200:264, 1]
    aged, mask = age(clean, np.random.default_rng(2))
    return [Pair(aged=aged, clean=clean, mask=mask)] * 3


class Page(HTMLParser):
    """Tags with their attributes, the text, and the exact figures of the table."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.figures, self.words = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data" and "table" in self.open:
            self.figures += [float(value or "") for key, value in attrs if key == "value"]

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))

    def find(self, tag, **attrs):
        return [a for t, a in self.tags if t == tag and attrs.items() <= a.items()]


@pytest.fixture
def page(tmp_path, restorations, pairs):
    return Page(write_report(tmp_path, make_record(restorations), restorations, pairs))


def test_the_page_is_balanced_and_says_its_language(page):
    assert page.open == []
    assert page.find("html", lang="en")
    assert all(image["alt"] for image in page.find("img"))


def test_nothing_is_loaded_from_elsewhere(page, tmp_path):
    sources = [a[key] for _, a in page.tags for key in ("src", "href", "srcset") if key in a]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://|fetch\(", text)
    policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")


def test_every_figure_of_the_table_is_the_records(page, restorations):
    record = make_record(restorations)
    groups = [*record["held_out"], record]
    assert page.figures == [group[key] for group in groups for key in MEASURES]


def test_one_photograph_has_no_mean(tmp_path, restorations, pairs):
    record = make_record(restorations[:1])
    page = Page(write_report(tmp_path, record, restorations[:1], pairs))
    assert page.figures == [record["held_out"][0][key] for key in MEASURES]


def test_json_equals_the_record(page, tmp_path, restorations):
    assert json.loads((tmp_path / "report.json").read_text()) == make_record(restorations)


def test_numbers_that_are_not_finite_become_null(tmp_path, restorations, pairs):
    record = make_record(restorations)
    record["psnr_restored_db"] = float("inf")
    record["held_out"][0]["ssim_aged"] = float("nan")
    record["curve"][3]["loss"] = float("nan")
    record["speed"]["data_wait_share"] = np.float32("nan")
    page = Page(write_report(tmp_path, record, restorations, pairs))
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["psnr_restored_db"] is None
    assert written["held_out"][0]["ssim_aged"] is None
    assert written["curve"][3]["loss"] is None
    assert written["speed"]["data_wait_share"] is None
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_numpy_numbers_and_tuples_are_written_as_json(tmp_path, restorations, pairs):
    record = make_record(restorations)
    record["config"] = {"crop_px": np.int64(128), "betas": (0.9, 0.99), "out": tmp_path}
    write_report(tmp_path, record, restorations, pairs)
    written = json.loads((tmp_path / "report.json").read_text())["config"]
    assert written == {"crop_px": 128, "betas": [0.9, 0.99], "out": str(tmp_path)}


def test_names_are_escaped(tmp_path, restorations, pairs):
    name = """<script>alert("x")</script> & 'co' $css"""
    nasty = restoration(name, restorations[0].clean)
    record = make_record([nasty])
    record["config"] = {"<b>": "<i>"}
    record["hardware"]["name"] = "<u>"
    page = Page(write_report(tmp_path, record, [nasty], pairs))
    assert page.open == []
    assert len(page.find("script")) == 1
    assert not page.find("u")
    assert "<b><i>" in page.text
    assert page.text.count(name) == 3  # heading, table, list of photographs
    assert page.find("img", alt=f"{name}, clean")


def test_each_photograph_has_a_labelled_slider_over_pictures_that_exist(page, restorations):
    sliders = page.find("input", type="range")
    assert len(sliders) == len(restorations)
    assert all(slider["aria-label"] for slider in sliders)
    ids = {image["id"] for image in page.find("img") if "id" in image}
    for box in (a for _, a in page.tags if a.get("class") == "compare"):
        assert {box["data-aged"], box["data-restored"]} <= ids
        assert "hidden" in box  # without a script the prints beneath stand alone


def test_large_photographs_are_reduced_and_details_are_not(tmp_path, pairs):
    clean = np.tile(np.arange(2400, dtype=np.float32) % 251, (600, 1)).astype(np.uint8)
    large = restoration("large", clean)
    page = Page(write_report(tmp_path, make_record([large]), [large], pairs))
    widths = {image["alt"]: int(image["width"]) for image in page.find("img")}
    assert widths["large, aged"] == 1600
    assert widths["Detail of large, aged"] == 176
    assert "1,600 × 400 px, reduced by area averaging from 2,400 × 600 px" in page.text


def test_the_detail_lies_where_texture_is_damaged(tmp_path, pairs):
    rng = np.random.default_rng(3)
    clean = np.full((800, 1200), 128, np.uint8)
    clean[:, 600:] = rng.integers(60, 200, (800, 600))  # texture on the right
    aged = clean.copy()
    aged[300:480:6, 100:1100] = 255  # scratches across the middle
    item = restoration("place", clean)
    item = Restoration(name="place", clean=clean, aged=aged, restored=clean,
                       **{key: getattr(item, key) for key in MEASURES})  # fmt: skip
    page = Page(write_report(tmp_path, make_record([item]), [item], pairs))
    style = next(a["style"] for _, a in page.tags if a.get("class") == "where")
    left, top = (float(x) / 100 for x in re.findall(r"(?:left|top):([\d.]+)%", style))
    assert 0.45 < left < 0.85
    assert 0.3 < top < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (176, 176), (177, 200, 3)])
def test_any_size_of_photograph_and_pair_is_pictured(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    item = restoration("tiny", image)
    pair = Pair(aged=image, clean=image, mask=np.ones(shape[:2], bool))
    assert len(Page(write_report(tmp_path, make_record([item]), [item], [pair])).find("img")) == 9


def test_many_noisy_photographs_stay_below_8_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1700, 3), dtype=np.uint8)
    item = Restoration(name="noise", clean=noise, aged=noise, restored=noise,
                       **FIGURES)  # fmt: skip
    crop = noise[:256, :256]
    pair = Pair(aged=crop, clean=crop, mask=crop[..., 0] > 127)
    path = write_report(tmp_path, make_record([item] * 8), [item] * 8, [pair] * 20)
    assert path.stat().st_size < 8e6
    assert "2 more in the table below" in Page(path).text


@pytest.mark.parametrize(
    ("aged", "blur", "restored", "words"),
    [
        (20.0, 24.0, 27.0, ["raises PSNR by 7.0", "5.0 times less power", "3.0 dB ahead"]),
        (20.0, 27.0, 24.0, ["raises PSNR by 4.0", "3.0 dB behind it: train longer"]),
        (20.0, 24.0, 17.0, ["did not help", "2.0 times the power", "7.0 dB behind"]),
    ],
)
def test_the_headline_is_honest(tmp_path, restorations, pairs, aged, blur, restored, words):
    record = make_record(restorations)
    record |= {"psnr_aged_db": aged, "psnr_blur_db": blur, "psnr_restored_db": restored}
    text = Page(write_report(tmp_path, record, restorations, pairs)).text
    assert f"{aged:.1f} dB → {restored:.1f} dB" in text
    assert all(word in text for word in words)


def test_the_curves_are_labelled_and_a_short_training_has_none(page, tmp_path, restorations, pairs):
    assert len(page.find("svg", role="img")) == 2
    for words in ("Training loss (log scale)", "PSNR on validation pairs (dB)", "pairs seen"):
        assert words in page.text
    for curve, count in (([], 0), (make_record(restorations)["curve"][4:5], 2)):
        record = make_record(restorations) | {"curve": curve}
        assert len(Page(write_report(tmp_path, record, restorations, pairs)).find("svg")) == count


@pytest.mark.parametrize("fails", ["report.json", "report.html"])
def test_a_failure_to_rename_leaves_nothing_new(tmp_path, monkeypatch, restorations, pairs, fails):
    from agedphoto import report

    replace = report.os.replace

    def full(source, target):
        if target.name == fails:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(report.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, make_record(restorations), restorations, pairs)
    assert not (tmp_path / "report.html").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_bad_record_leaves_an_earlier_report_alone(tmp_path, restorations, pairs):
    path = write_report(tmp_path, make_record(restorations), restorations, pairs)
    before = path.read_bytes()
    with pytest.raises(KeyError, match="photos_per_s"):
        write_report(tmp_path, {**make_record(restorations), "speed": {}}, restorations, pairs)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, restorations, pairs):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_report(tmp_path / "file", make_record(restorations), restorations, pairs)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aged": np.zeros((4, 5), np.uint8)}, r"aged is \(4, 5\)"),
        ({"restored": np.zeros((4, 4), np.float32)}, "restored must be uint8, got float32"),
        ({"clean": np.zeros((4, 4, 2), np.uint8)}, "clean must be"),
    ],
)
def test_pictures_that_do_not_match_are_named(change, message):
    images = dict.fromkeys(("clean", "aged", "restored"), np.zeros((4, 4), np.uint8)) | change
    with pytest.raises(ValueError, match=f"x: {message}"):
        Restoration(name="x", **images, **FIGURES)


@pytest.mark.browser
def test_the_page_works_in_a_browser(browser, tmp_path, restorations, pairs):
    from selenium.webdriver import ActionChains, Keys

    path = write_report(tmp_path / "out", make_record(restorations), restorations, pairs)
    browser.get(path.as_uri())
    widths = browser.execute_script("return [...document.images].map((i) => i.naturalWidth)")
    sliders = 2 * len(restorations)
    assert len(widths) == 6 * len(restorations) + 3 * len(pairs) + sliders
    assert min(widths) > 0

    def clip():
        over = "getComputedStyle(document.querySelector('.frame .over')).clipPath"
        return float(re.findall(r"([\d.]+)%", browser.execute_script(f"return {over}"))[0])

    # A drag moves the edge under the pointer, arrow keys go on from there.
    frame = browser.find_element("class name", "frame")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    assert clip() == 50
    quarter = frame.size["width"] // 4
    drag = ActionChains(browser).move_to_element(frame).click_and_hold()
    drag.move_by_offset(-quarter, 0).release().perform()
    assert clip() == pytest.approx(25, abs=0.5)
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT * 5).perform()
    assert clip() == pytest.approx(30, abs=1)

    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert browser.get_log("browser") == []
