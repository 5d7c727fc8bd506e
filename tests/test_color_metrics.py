"""Metrics of colour, compared with NumPy and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from agedphoto.train.color_metrics import (
    ab_psnr_db,
    ab_squared_error,
    colorfulness,
    gray_ab_psnr_db,
    lab_to_srgb,
    lightness,
)


def colors(count: int = 2000, seed: int = 0) -> np.ndarray:
    """Return random sRGB colours and the corners of the cube, (1, N, 3)."""
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), -1).reshape(-1, 3)
    return np.concatenate((np.random.default_rng(seed).random((count, 3)), corners))[None]


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array[None].transpose(0, 3, 1, 2)).float()


def test_lab_to_srgb_undoes_rgb2lab():
    rgb = colors()
    assert (lab_to_srgb(tensor(rgb2lab(rgb))) - tensor(rgb)).abs().max() < 2e-4


def test_lab_to_srgb_clips_colors_out_of_gamut():
    # Not darker: there Z goes below 0, which scikit-image clips too, with a warning.
    lab = np.random.default_rng(1).uniform((30, -60, -60), (100, 60, 60), (1, 2000, 3))
    made = lab_to_srgb(tensor(lab))
    assert (made - tensor(lab2rgb(lab))).abs().max() < 1e-3
    assert made.min() == 0
    assert made.max().item() == pytest.approx(1)


def test_lightness_is_that_of_the_gray():
    gray = np.linspace(0, 1, 500)[None, :, None].repeat(3, 2)
    expected = rgb2lab(gray)[..., :1]
    assert torch.allclose(lightness(tensor(gray)[:, :1]), tensor(expected), atol=1e-3)


def test_ab_psnr_is_that_of_255_over_both_channels():
    rng = np.random.default_rng(2)
    truth, guess = rng.normal(0, 20, (3, 2, 5, 7)), rng.normal(0, 15, (3, 2, 5, 7))
    guess[1] *= 0.1
    rmse = np.sqrt(((truth - guess) ** 2).mean((1, 2, 3)))
    pooled = np.sqrt(((truth - guess) ** 2).mean())
    error = ab_squared_error(torch.from_numpy(guess), torch.from_numpy(truth))
    assert ab_psnr_db(error) == pytest.approx(
        ((20 * np.log10(255 / rmse)).mean(), 20 * np.log10(255 / pooled))
    )


def test_gray_is_the_answer_without_colour():
    truth = torch.full((2, 2, 4, 4), 25.5)
    assert gray_ab_psnr_db(truth) == pytest.approx((20.0, 20.0))


def test_only_what_is_inside_counts():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(2, 2, 6, 8, generator=rng) * 20
    guess = torch.randn(2, 2, 6, 8, generator=rng) * 20
    inside = torch.zeros(2, 1, 6, 8, dtype=torch.bool)
    inside[..., :4, :5] = True
    expected = ab_squared_error(guess[..., :4, :5], truth[..., :4, :5])
    assert torch.allclose(ab_squared_error(guess, truth, inside), expected)
    expected = gray_ab_psnr_db(truth[..., :4, :5])
    assert gray_ab_psnr_db(truth, inside) == pytest.approx(expected)


def test_colorfulness_is_hasler_and_suesstrunks():
    rgb = np.random.default_rng(3).integers(0, 256, (2, 3, 9, 11)).astype(np.float64)
    expected = []
    for R, G, B in rgb:
        rg, yb = R - G, 0.5 * (R + G) - B
        expected.append(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
    assert np.allclose(colorfulness(torch.from_numpy(rgb)).numpy(), expected)
    assert np.allclose(colorfulness(torch.from_numpy(rgb.astype(np.uint8))).numpy(), expected)


def test_gray_has_no_colour_and_one_colour_only_its_mean():
    gray = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8) * 255
    assert colorfulness(gray).item() == pytest.approx(0, abs=1e-3)
    red = torch.tensor([255.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 4, 4)
    assert colorfulness(red).item() == pytest.approx(0.3 * np.hypot(255, 127.5))


def test_signs_of_opponents_cancel_in_the_mean():
    # Half red, half green: the mean of rg is 0, that of |rg| is not.
    halves = torch.zeros(1, 3, 2, 2)
    halves[0, 0, 0] = halves[0, 1, 1] = 200
    assert colorfulness(halves).item() == pytest.approx(200 + 0.3 * 100)
