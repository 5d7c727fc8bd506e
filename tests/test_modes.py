"""Modes: what the network sees and answers, compared with NumPy and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from agedphoto.synth import (
    AGED_CHANNELS,
    CLEAN_CHANNELS,
    LAB_SCALE,
    MODES,
    Ageing,
    Grain,
    Mode,
    Recipe,
    check_mode,
    grayscale,
)

UNTOUCHED = Recipe(name="untouched", defects=(Grain(sigma=(0.0, 0.0)),))


@pytest.fixture
def photos(device) -> torch.Tensor:
    """Random colours, and the corners of the colour cube."""
    drawn = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    drawn[0, :, 0, :7] = corners[:7].T
    drawn[1, :, 0, 0] = corners[7]
    return drawn.to(device)


def pair(photos: torch.Tensor, mode: Mode, textures, **options):
    """Age with a recipe that does nothing."""
    keys = torch.arange(len(photos))
    return Ageing(UNTOUCHED, mode=mode, textures=textures, **options)(photos, keys)


def luma(photos: torch.Tensor) -> np.ndarray:
    rgb = photos.cpu().double().numpy()
    return 0.299 * rgb[:, :1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:]


def lab(photos: torch.Tensor) -> np.ndarray:
    values = rgb2lab(photos.cpu().double().numpy().transpose(0, 2, 3, 1)) / np.array(LAB_SCALE)
    return values.transpose(0, 3, 1, 2)


def near(made: torch.Tensor, expected: np.ndarray, *, atol: float = 1e-6) -> bool:
    return np.allclose(made.cpu().double().numpy(), expected, rtol=0, atol=atol)


def test_the_tables_name_every_mode():
    assert MODES == ("grayscale", "rgb", "lab", "color")
    assert tuple(AGED_CHANNELS) == tuple(CLEAN_CHANNELS) == MODES


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_gives_the_channels_of_the_tables(mode, photos, textures):
    aged, clean, mask = pair(photos, mode, textures)
    assert aged.shape == (2, AGED_CHANNELS[mode], 9, 7)
    assert clean.shape == (2, CLEAN_CHANNELS[mode], 9, 7)
    assert mask.shape == (2, 1, 9, 7)
    assert aged.device == clean.device == mask.device == photos.device


@pytest.mark.parametrize("mode", ["grayscale", "rgb", "lab"])
def test_networks_of_one_channel_see_luma(mode, photos, textures):
    assert near(pair(photos, mode, textures).aged, luma(photos))


def test_clean_is_luma_in_grayscale_and_the_photo_in_rgb_and_color(photos, textures):
    assert near(pair(photos, "grayscale", textures).clean, luma(photos))
    assert torch.equal(pair(photos, "rgb", textures).clean, photos)
    assert torch.equal(pair(photos, "color", textures).clean, photos)
    assert torch.equal(pair(photos, "color", textures).aged, photos)


def test_clean_is_cielab_in_lab(photos, textures):
    assert near(pair(photos, "lab", textures).clean, lab(photos), atol=2e-5)


def test_lab_scale_brings_all_of_srgb_within_one(textures):
    steps = torch.linspace(0, 1, 18)
    cube = torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 18, -1)
    channels = pair(cube, "lab", textures).clean[0]
    assert channels.abs().max() <= 1 + 1e-6
    largest = (channels.amax((1, 2)) * torch.tensor(LAB_SCALE)).tolist()
    smallest = (channels.amin((1, 2)) * torch.tensor(LAB_SCALE)).tolist()
    assert largest == pytest.approx([100, 98.2, 94.5], abs=0.06)
    assert smallest == pytest.approx([0, -86.2, -107.9], abs=0.06)


def test_lab_is_not_rounded_in_half_precision(photos, textures):
    for dtype in (torch.bfloat16, torch.float16):
        half = photos.to(dtype)
        made = pair(half, "lab", textures, dtype=torch.float32).clean
        assert near(made, lab(half), atol=2e-5)
    with torch.autocast(photos.device.type, dtype=torch.bfloat16):
        assert near(pair(photos, "lab", textures).clean, lab(photos), atol=2e-5)


def test_luma_of_gray_is_that_gray():
    gray = torch.arange(256).float().reshape(1, 1, 16, 16) / 255
    assert torch.allclose(grayscale(gray.expand(1, 3, 16, 16)), gray, rtol=0, atol=1e-7)
    assert grayscale(torch.ones(1, 3, 5, 7)).max() <= 1


def test_grayscale_leaves_one_channel_as_it_is():
    gray = torch.rand(2, 1, 4, 4)
    assert torch.equal(grayscale(gray), gray)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_grayscale_keeps_type_and_device(dtype, photos):
    made = grayscale(photos.to(dtype))
    assert (made.dtype, made.device) == (dtype, photos.device)


def test_an_unknown_mode_is_refused_with_those_there_are():
    for mode in MODES:
        assert check_mode(mode) == mode
    for wrong in ("gray", "LAB", ""):
        with pytest.raises(ValueError, match=rf"unknown mode '{wrong}'; there are: grayscale, rgb"):
            check_mode(wrong)
