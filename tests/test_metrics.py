"""PSNR and SSIM are those that everybody computes."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio
from torchmetrics.functional.classification import binary_jaccard_index

from agedphoto.train import picture_quality, psnr_db
from agedphoto.train.metrics import mask_iou, picture_scores, squared_error

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


def batch(*pictures: np.ndarray) -> torch.Tensor:
    planes = [np.atleast_3d(picture).transpose(2, 0, 1) for picture in pictures]
    return torch.from_numpy(np.stack(planes)).float() / 255


@pytest.mark.parametrize("gray", [False, True])
def test_scores_of_a_batch_are_those_of_skimage_for_each_picture(gray, device):
    clean = PHOTO[:, :, 0] if gray else PHOTO
    pictures = [noisy(clean, sigma) for sigma in (2, 15, 60)]
    scores = picture_scores(batch(*pictures).to(device), batch(clean, clean, clean).to(device))
    for i, picture in enumerate(pictures):
        expected = picture_quality(picture, clean)
        assert scores["psnr_db"][i].item() == pytest.approx(
            peak_signal_noise_ratio(clean, picture), abs=1e-3
        )
        assert scores["mse"][i].item() == pytest.approx(
            mean_squared_error(clean / 255, picture / 255), rel=1e-4
        )
        assert scores["ssim"][i].item() == pytest.approx(expected.ssim, abs=1e-4)
    assert {value.dtype for value in scores.values()} == {torch.float32}
    assert {value.device.type for value in scores.values()} == {device.type}


def test_scores_are_of_clipped_answers_and_never_infinite():
    clean = torch.ones(2, 1, 16, 16)
    scores = picture_scores(torch.stack([clean[0] + 3, clean[0] - 0.5]), clean)
    torch.testing.assert_close(scores["mse"], torch.tensor([0.0, 0.25]))
    torch.testing.assert_close(scores["psnr_db"], torch.tensor([120.0, 6.0206]))
    assert scores["ssim"][0].item() == pytest.approx(1)


def test_scores_do_not_depend_on_autocast_nor_on_bfloat16_elsewhere():
    clean = batch(PHOTO)
    restored = batch(noisy(PHOTO, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = picture_scores(restored, clean)
    torch.testing.assert_close(scores, picture_scores(restored, clean))


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10)])
def test_a_batch_of_tiny_pictures_has_no_ssim(height, width):
    clean = torch.rand(3, 1, height, width)
    scores = picture_scores(clean + 0.1, clean)
    assert scores["ssim"].isnan().all()
    assert scores["psnr_db"].isfinite().all()


def test_eleven_pixels_are_enough_for_the_ssim_of_a_batch():
    clean = batch(PHOTO[:11, :11])
    assert picture_scores(clean, clean)["ssim"].item() == pytest.approx(1)


def test_the_mask_is_counted_for_each_picture():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 20, 30, generator=generator)
    mask = (
        torch.rand(3, 1, 20, 30, generator=generator)
        < torch.tensor([0.1, 0.5, 0.0])[:, None, None, None]
    )
    intersection, union = mask_iou(logits, mask)
    for i in range(3):
        expected = binary_jaccard_index(logits[i].sigmoid(), mask[i].int())
        assert (intersection[i] / union[i]).item() == pytest.approx(expected.item())
    pooled = binary_jaccard_index(logits.sigmoid(), mask.int())
    assert (intersection.sum() / union.sum()).item() == pytest.approx(pooled.item())


def test_no_damage_and_none_found_is_an_empty_union():
    intersection, union = mask_iou(torch.full((1, 1, 4, 4), -1.0), torch.zeros(1, 1, 4, 4) > 0)
    assert (intersection.item(), union.item()) == (0, 0)
