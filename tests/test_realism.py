"""Recipes beside real old photographs: tones, spectra, and how much of a picture is hidden.

Real and aged pictures are measured alike: luma, reduced to the same long side, the outer part with
borders and torn edges left away. They show different things, so what is asked for is that the
median of ours lies within the range of the real ones, give or take `SLOPE` and `TONE`, and so do
most of our pictures by themselves: two thirds at least of those that would if they were like them.

The clean photographs and the old ones are not part of the project; without them there is nothing
to compare, and these tests skip themselves.
"""

import dataclasses
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agedphoto.synth import Ageing, LightLeak, Recipe, Sometimes, find_recipe, sample_keys
from agedphoto.textures import TextureBank

DATA = Path(__file__).resolve().parents[2] / "shared/data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "oldphotos").is_dir(), reason="needs real old photographs"),
]

LONG_SIDE_PX = 768
"""Of the photographs that are aged."""

SLOPE = 0.15
"""Allowance of the exponent of the spectrum."""

TONE = 0.05
"""Allowance of tones: kept photographs were chosen for their contrast, our clean ones were not."""

QUANTILES = (1, 5, 25, 50, 75, 95, 99)

PRINTS = ("piedimonte_*", "microsoft_bopbtl_*")

REAL: dict[str, tuple[tuple[str, ...], int, float]] = {
    # The plates at hand are 400 px long, with rebates of up to 8 %.
    "glass_plate": (("prokudin_gorskii_*",), 384, 0.09),
    "film_35mm": (("ddcolor_*",), 768, 0.09),
    "creased_print": (PRINTS, 704, 0.06),
    "faded_print": (PRINTS, 704, 0.06),
}
"""What there is of a recipe's kind: names, the long side to compare at, and the share of each side
that is left away."""


def slope_of(luma: np.ndarray) -> float:
    """Exponent of the radial power spectrum from 0.02 to 0.35 cycles a pixel; -2 is usual."""
    n = min(luma.shape)
    top, left = (luma.shape[0] - n) // 2, (luma.shape[1] - n) // 2
    square = luma[top : top + n, left : left + n]
    window = np.hanning(n)[:, None] * np.hanning(n)
    square = (square - (square * window).sum() / window.sum()) * window
    power = np.abs(np.fft.fft2(square)) ** 2
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))
    edges = np.geomspace(0.02, 0.35, 13)
    rings = np.digitize(frequency, edges)
    means = [power[rings == ring].mean() for ring in range(1, len(edges))]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0])


def measure(picture: Image.Image, long_side_px: int, border: float) -> np.ndarray:
    """Return the slope of the spectrum, quantiles of the tones, and their standard deviation."""
    picture = reduced(picture.convert("L"), long_side_px, Image.Resampling.BOX)
    width, height = picture.size
    x, y = round(border * width), round(border * height)
    luma = np.asarray(picture.crop((x, y, width - x, height - y)), dtype=np.float64) / 255
    return np.array([slope_of(luma), *np.percentile(luma, QUANTILES), luma.std()])


def reduced(picture: Image.Image, long_side_px: int, resampling: Image.Resampling) -> Image.Image:
    scale = long_side_px / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, resampling) if scale < 1 else picture


@cache
def clean_photos() -> list[Image.Image]:
    files = sorted((DATA / "kodak").glob("*.png"))[::2]
    files += sorted((DATA / "div2k_like/DIV2K_valid_HR").iterdir())
    files += sorted((DATA / "photos").glob("budgie_*.jpg"))
    opened = (Image.open(file).convert("RGB") for file in files)
    return [reduced(photo, LONG_SIDE_PX, Image.Resampling.LANCZOS) for photo in opened]


def without_leaks(recipe: Recipe) -> Recipe:
    """Leave light leaks away: none of the real ones has any, and theirs is another kind of mask."""
    defects = tuple(
        dataclasses.replace(defect, p=0.0)
        if isinstance(defect, Sometimes) and isinstance(defect.what, LightLeak)
        else defect
        for defect in recipe.defects
    )
    return dataclasses.replace(recipe, defects=defects)


@cache
def aged_photos(name: str) -> tuple[list[Image.Image], np.ndarray]:
    """Age the clean photographs; return them, and how many percent of each are hidden."""
    recipe = without_leaks(find_recipe(name))
    ageing = Ageing(recipe, textures=TextureBank.synthesize(8, size_px=512), augment=False)
    aged, covered = [], []
    for number, photo in enumerate(clean_photos()):
        key = sample_keys(0, 0, torch.tensor([number]), torch.tensor([0]))
        result = ageing(torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None], key)
        pixels = (result.aged[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
        aged.append(Image.fromarray(pixels.numpy()))
        covered.append(100 * float(result.mask.float().mean()))
    return aged, np.array(covered)


@pytest.mark.parametrize("name", REAL)
def test_tones_and_spectra_lie_within_the_range_of_real_ones(name):
    patterns, long_side_px, border = REAL[name]
    files = [file for pattern in patterns for file in (DATA / "oldphotos").glob(pattern)]
    real = np.array([measure(Image.open(file), long_side_px, border) for file in files])
    aged, _ = aged_photos(name)
    ours = np.array([measure(picture, long_side_px, border) for picture in aged])

    allowance = np.array([SLOPE] + [TONE] * (len(QUANTILES) + 1))
    low, high = real.min(0) - allowance, real.max(0) + allowance
    median = np.median(ours, 0)
    within = ((ours >= low) & (ours <= high)).mean(0)
    with np.printoptions(precision=2, suppress=True):
        report = f"ours {median} within {low} to {high}, share {within}"
    assert ((low <= median) & (median <= high)).all(), report
    # The range of n holds (n - 1) / (n + 1) of what is like them, 60 % if they are four.
    assert (within >= 2 / 3 * (len(real) - 1) / (len(real) + 1)).all(), report


def test_film_hides_as_much_as_dust_and_scratches_on_real_frames_do():
    stats = json.loads((DATA / "textures_real/film_damage_stats.json").read_text())
    frames = np.array(stats["coverage_percent_by_frame_1_to_10"])
    _, covered = aged_photos("film_35mm")
    # Each frame in ten, give or take half as much: ours are parts of frames, which vary more.
    assert frames.min() / 1.5 <= np.percentile(covered, 5)
    assert np.percentile(covered, 90) <= 1.5 * frames.max()
    assert frames.min() <= np.median(covered) <= frames.max()
    assert 0.6 * frames.mean() <= covered.mean() <= 1.6 * frames.mean()
    # Wear varies many times over between frames, elevenfold on the real ones.
    assert 3 <= covered.max() / covered.min() <= 40


def test_film_hides_as_much_as_outlines_on_parts_of_real_frames_do():
    masks = DATA / "textures_real/film_masks"
    parts = [100 * (np.asarray(Image.open(file)) > 0).mean() for file in masks.glob("*_r?c?.png")]
    _, covered = aged_photos("film_35mm")
    # A part of 1024 film pixels shows less than our photographs do.
    inside = (covered >= min(parts)) & (covered <= max(parts))
    assert inside.mean() >= 0.8
    assert np.percentile(parts, 10) <= np.median(covered) <= np.percentile(parts, 90)


@pytest.mark.parametrize("name", ["glass_plate", "creased_print", "faded_print"])
def test_most_of_a_photograph_is_still_to_be_seen(name):
    _, covered = aged_photos(name)
    assert 0.1 <= np.median(covered) <= 8.0
    assert np.percentile(covered, 95) <= 25.0
