"""PSNR and SSIM are those that everybody computes."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

from agedphoto.train import picture_quality, psnr_db
from agedphoto.train.metrics import squared_error

PHOTO = astronaut()[100:164, 180:260]


def noisy(clean: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
    return (clean + noise).round().clip(0, 255).astype(np.uint8)


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, written out with a blur; one channel."""
    x, y = x.astype(float), y.astype(float)

    def blur(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, 1.5, radius=5)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(index[5:-5, 5:-5].mean())


def test_psnr_of_a_known_error():
    clean = np.full((4, 6), 100, np.uint8)
    assert psnr_db(clean + np.uint8(1), clean) == pytest.approx(20 * math.log10(255))
    assert psnr_db(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == 0


def test_darker_counts_as_much_as_lighter():
    clean = np.full((4, 6), 100, np.uint8)
    assert psnr_db(clean - np.uint8(9), clean) == psnr_db(clean + np.uint8(9), clean)


def test_equal_pictures_have_the_highest_psnr_and_it_is_finite():
    assert psnr_db(PHOTO, PHOTO) == pytest.approx(168.13, abs=0.01)
    one_off = PHOTO.copy()
    one_off[0, 0, 0] ^= 1
    assert psnr_db(one_off, PHOTO) < 168


@pytest.mark.parametrize("sigma", [2, 15, 60])
@pytest.mark.parametrize("gray", [False, True])
def test_ssim_is_that_of_its_paper(sigma, gray):
    clean = PHOTO[:, :, 0] if gray else PHOTO
    picture = noisy(clean, sigma)
    channels = [(picture, clean)] if gray else zip(picture.T, clean.T, strict=True)
    expected = np.mean([reference_ssim(x, y) for x, y in channels])
    assert picture_quality(picture, clean).ssim == pytest.approx(expected, abs=1e-6)


def test_equal_pictures_have_ssim_one():
    assert picture_quality(PHOTO, PHOTO).ssim == pytest.approx(1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (10, 80), (80, 10)])
def test_tiny_pictures_have_a_psnr_and_no_ssim(height, width):
    clean = PHOTO[:1, :1].repeat(height, 0).repeat(width, 1)
    quality = picture_quality(clean + np.uint8(1), clean)
    assert quality.psnr_db == pytest.approx(48.13, abs=0.01)
    assert math.isnan(quality.ssim)


def test_eleven_pixels_are_enough_for_ssim():
    assert picture_quality(PHOTO[:11, :11], PHOTO[:11, :11]).ssim == pytest.approx(1)


@pytest.mark.parametrize(
    "picture", [PHOTO[:, :-1], PHOTO[:, :, :1], PHOTO.astype(np.float32), PHOTO.astype(np.uint16)]
)
def test_pictures_that_cannot_be_compared_are_refused(picture):
    with pytest.raises(ValueError, match="must be uint8 and of one shape"):
        picture_quality(picture, PHOTO)


def test_errors_are_per_picture_and_after_clipping():
    clean = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.zeros(1, 2, 2)])
    restored = torch.stack([torch.full((1, 2, 2), v) for v in (-3.0, 1.5, 0.5)])
    torch.testing.assert_close(squared_error(restored, clean), torch.tensor([0, 0, 0.25]))
