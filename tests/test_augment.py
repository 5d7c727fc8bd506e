"""Augmentation: compared with SciPy, exact where nothing moves, and never out of its margin."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from agedphoto.synth import Ageing, Augment, Grayscale, Recipe, find_recipe
from agedphoto.synth.augment import FINE, source_positions

KEYS = torch.arange(40)
FULL = Augment(p=1.0, rotation_turns=0.03, zoom=0.05, translation=0.02)


def smooth(*shape: int) -> torch.Tensor:
    """Noise without frequencies that bilinear sampling at 1e-5 px would tell apart."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).numpy()
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 1, 1)))


@pytest.mark.parametrize(("size", "margin"), [((24, 31), 0), ((20, 20), 7)])
def test_moving_agrees_with_scipy(device, size, margin):
    H, W = size
    x = smooth(40, 1, H + 2 * margin, W + 2 * margin)
    params = FULL.sample(KEYS.to(device), side_px=min(size))
    made = FULL.apply(x.to(device), params, margin_px=margin).cpu().numpy()
    assert made.shape == (40, 1, H, W)
    y, x_ = np.mgrid[0:H, 0:W].astype(float)
    for number, picture in enumerate(x[:, 0].numpy()):
        along, across, down, right = (
            params[name][number].item() / FINE for name in ("along", "across", "down", "right")
        )
        dy, dx = y - (H - 1) / 2, x_ - (W - 1) / 2
        rows = (H - 1) / 2 + along * dy - across * dx + down + margin
        columns = (W - 1) / 2 + across * dy + along * dx + right + margin
        expected = ndimage.map_coordinates(picture, [rows, columns], order=1, mode="mirror")
        assert np.abs(made[number, 0] - expected).max() < 1e-4


def test_what_moves_stays_within_the_margin():
    for side in (16, 64, 256):
        params = FULL.sample(torch.arange(2000), side_px=side)
        for positions in source_positions(params, side, side):
            # One more for the neighbour in the interpolation.
            assert positions.min() >= -FULL.margin_px(side) * FINE
            assert positions.max() + FINE <= (side - 1 + FULL.margin_px(side)) * FINE + FINE
    assert FULL.margin_px(256) < 60


def test_a_share_is_left_in_its_place():
    augment = Augment(p=0.3, rotation_turns=0.03, zoom=0.05)
    x = torch.rand(400, 1, 8, 8)
    params = augment.sample(torch.arange(400), side_px=8)
    made = augment.apply(x, params)
    alike = (made == x).flatten(1).all(1)
    assert torch.equal(alike, ~params["moved"])
    assert params["moved"].float().mean() == pytest.approx(0.3, abs=0.07)


def test_brightness_and_contrast_are_as_drawn():
    augment = Augment(brightness=0.05, contrast=0.2)
    x = torch.rand(500, 3, 4, 4)
    params = augment.sample(torch.arange(500), side_px=4)
    made = augment.apply(x, params).numpy()
    gain, lift = (params[name].numpy()[:, None, None, None] for name in ("gain", "lift"))
    assert np.allclose(made, ((x.numpy() - 0.5) * gain + 0.5 + lift).clip(0, 1), atol=1e-6)
    assert 0.8 <= gain.min() < 0.81
    assert 1.19 < gain.max() <= 1.2
    assert abs(lift).max() <= 0.05
    assert abs(lift.mean()) < 0.005


def test_nothing_asked_for_changes_nothing():
    x = torch.rand(3, 3, 7, 9)
    assert Augment().apply(x, Augment().sample(KEYS[:3], side_px=7)) is x
    assert Augment().margin_px(256) == 0


def test_both_sides_of_a_pair_move_alike():
    recipe = Recipe(name="x", defects=(Grayscale(),), augment=FULL)
    photos = torch.rand(4, 3, 20, 20)
    aged, clean, _ = Ageing(recipe, mode="grayscale")(photos, KEYS[:4])
    still = Ageing(recipe, mode="grayscale", augment=False)(photos, KEYS[:4])
    assert torch.equal(aged, clean)
    assert not torch.equal(clean, still.clean)
    assert torch.equal(
        Ageing(recipe, mode="grayscale")(photos, KEYS[:4], move=False).clean, still.clean
    )


def test_the_ranges_of_the_seed_project():
    augment = find_recipe("seed").augment
    assert (augment.rotation_turns, augment.zoom, augment.translation) == (0.03, 0.05, 0.02)
    assert (augment.brightness, augment.contrast) == (0.05, 0.05)


@pytest.mark.parametrize("name", ["p", "rotation_turns", "zoom", "translation", "brightness"])
def test_what_is_out_of_range_is_refused_by_name(name):
    for wrong in (-0.1, 2.0, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must be from 0 to .*, got"):
            Augment(**{name: wrong})
