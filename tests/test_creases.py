"""Creases: a white line where the fold is, a light and a dark flank, and the picture displaced."""

import math

import numpy as np
import pytest
import torch
from scenes import scene
from scipy.ndimage import map_coordinates

from agedphoto.synth.creases import NUM_FOLDS, Creases, crease, displace

SIZE = (160, 200)


def folds(**changed: float) -> dict[str, torch.Tensor]:
    """One fold of two photographs, along the rows at row 80."""
    one = {
        "whiteness": 0.0, "shade": 0.0, "row": 80.0, "column": 100.0, "angle": 0.0,
        "half_length": 800.0, "bend": 0.0, "core": 2.0, "flank": 10.0, "dirt": 0.0,
    } | changed  # fmt: skip
    return {name: torch.full((2, 1), value) for name, value in one.items()} | {
        "light": torch.full((2,), 0.9),
        "warmth": torch.zeros(2),
    }


def fold(x: torch.Tensor, **changed: float) -> tuple[torch.Tensor, torch.Tensor]:
    there = scene(torch.arange(len(x)), size=(x.shape[2], x.shape[3]))
    return crease(x, scene=there, **folds(**changed))


def gray(value: float = 0.3) -> torch.Tensor:
    return torch.full((2, 1, *SIZE), value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_fold_without_strength_is_none(dtype):
    x = torch.rand(2, 3, *SIZE, dtype=torch.float64).to(dtype)
    aged, mask = fold(x)
    assert torch.equal(aged, x)
    assert not mask.any()


def test_the_paper_shows_along_the_fold_with_gaps():
    aged, mask = fold(gray(), whiteness=1.0, core=2.5)
    on = (aged[:, 0] > 0.8).float()
    rows = torch.arange(SIZE[0])[:, None]
    assert (on * ((rows - 80).abs() > 14)).sum() == 0
    # So wide on average as its half-width says, and open over most of the length.
    assert 1.5 < on.sum(1).mean() < 6
    open_ = (on.sum(1) > 0).float().mean()
    assert 0.6 < open_ < 0.995
    assert mask[:, 0][on.bool()].all()


def test_one_flank_is_lighter_and_the_other_darker():
    aged, mask = fold(gray(0.5), shade=0.1)
    profile = aged.mean((0, 1, 3))
    # x exp(1 - |x|) is steepest in the middle and 1 one flank away.
    assert profile[90] == pytest.approx(0.5 * 1.1, abs=0.004)
    assert profile[70] == pytest.approx(0.5 * 0.9, abs=0.004)
    assert profile[150] == pytest.approx(0.5 * (1 + 0.1 * 7 * math.exp(-6)), abs=0.002)
    assert not mask.any()


def test_a_dent_ends_where_its_length_does():
    aged, _ = fold(gray(), whiteness=1.0, core=4.0, half_length=30.0)
    columns = ((aged - gray()).abs() > 1e-6).any(2)[:, 0].float().mean(0)
    assert columns[:69].sum() == 0
    assert columns[132:].sum() == 0
    assert columns[95:105].mean() == 1


def test_a_bend_is_a_circle_of_its_radius():
    aged, _ = fold(gray(), whiteness=1.0, core=6.0, bend=1 / 150)
    white = aged[:, 0] > 0.8
    rows = torch.arange(SIZE[0])[:, None].float()
    for column in (40, 160):
        here = white[:, :, column]
        middle = (here * rows[:, 0]).sum() / here.sum()
        assert middle == pytest.approx(80 - 60**2 / 2 / 150, abs=4)


def test_dirt_darkens_the_middle_of_the_line():
    clean, _ = fold(gray(), whiteness=1.0, core=4.0)
    dirty, _ = fold(gray(), whiteness=1.0, core=4.0, dirt=0.8)
    darker = clean - dirty
    assert darker.min() >= 0
    assert darker.max() > 0.4
    assert (darker > 0.05).float().mean() < (clean > 0.8).float().mean()


def test_displacement_is_bilinear_and_ends_at_the_border():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 20, 30, generator=generator)
    down = 4 * torch.randn(2, 1, 20, 30, generator=generator)
    right = 4 * torch.randn(2, 1, 20, 30, generator=generator)
    moved = displace(x, down, right)
    row, column = np.mgrid[:20, :30].astype(np.float64)
    for photo in range(2):
        to = [row + down[photo, 0].numpy(), column + right[photo, 0].numpy()]
        for channel in range(3):
            expected = map_coordinates(x[photo, channel].double(), to, order=1, mode="nearest")
            assert np.allclose(moved[photo, channel], expected, atol=2e-6)
    still = torch.zeros(2, 1, 20, 30)
    assert torch.equal(displace(x, still, still), x)


def test_no_pixel_comes_from_farther_away_than_said():
    defect = Creases(shade=(0.3, 0.3))
    height, width = 64, 96
    keys = torch.arange(8)
    there = scene(keys, size=(height, width), severity=4.0)
    x = torch.arange(width).float().expand(8, 1, height, width) / width
    params = defect.sample(there)
    # No paper and no light, so what is left is where a pixel came from.
    params["whiteness"] *= 0
    bright = torch.ones_like(x)
    aged, lit = defect.apply(x, params, there)[0], defect.apply(bright, params, there)[0]
    unclipped = (lit < 1) & (lit > 0)
    came = (aged / lit - x)[unclipped] * width
    assert came.abs().max() > 0.5
    assert came.abs().max() <= defect.reach_px((height, width))


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0, 3.0])
def test_the_worse_worn_the_more_folds(severity):
    there = scene(torch.arange(2000), size=SIZE, severity=severity)
    params = Creases(num_folds=(1.5, 1.5)).sample(there)
    number = (params["whiteness"] > 0).sum(1).float()
    assert number.mean() == pytest.approx(min(1.5 * severity, 4), abs=0.1)
    assert number.max() <= NUM_FOLDS


def test_folds_that_cross_the_print_reach_two_of_its_edges():
    there = scene(torch.arange(300), size=SIZE)
    params = Creases(crossing=1.0).sample(there)
    height, width = SIZE
    cos, sin = params["angle"].cos(), params["angle"].sin()
    corners = [
        cos * (row - params["row"]) - sin * (column - params["column"])
        for row in (0, height - 1)
        for column in (0, width - 1)
    ]
    sides = torch.stack(corners).sign()
    # Corners lie on both sides of the line: it cuts the picture.
    assert ((sides.amax(0) > 0) & (sides.amin(0) < 0)).all()
    assert (params["half_length"] > 2 * max(SIZE)).all()


def test_lengths_grow_with_the_picture():
    small = Creases().sample(scene(torch.arange(50), size=(768, 1024)))
    large = Creases().sample(scene(torch.arange(50), size=(2304, 3072)))
    for name in ("core", "flank", "half_length"):
        assert torch.allclose(large[name], 3 * small[name])
    assert torch.equal(large["whiteness"], small["whiteness"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_folds": (0.0, 5.0)},
        {"crossing": 1.2},
        {"whiteness": (0.5, 0.1)},
        {"shade": (-0.1, 0.0)},
    ],
)
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Creases(**wrong)
