"""How close a picture is to the clean one."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from skimage.metrics import structural_similarity
from torch import Tensor

from ..synth.ageing import exact_products

SSIM_WINDOW_PX = 11
"""Side of the window of SSIM; smaller pictures have none."""
LEAST_MSE = 1e-12
"""What pictures that agree count as: no infinity, which JSON cannot hold."""


class Quality(NamedTuple):
    """PSNR in dB and SSIM, both over the whole picture."""

    psnr_db: float
    ssim: float


def psnr_db(picture: np.ndarray, clean: np.ndarray) -> float:
    """Return 10 log10(255^2 / MSE) of two uint8 pictures of one shape, at most 168 dB.

    That is what pictures get that agree, see `decibels`.
    """
    error = picture.astype(np.float64) - clean
    return decibels(float(np.square(error).mean()), peak=255.0)


def decibels(mse: float, *, peak: float = 1.0) -> float:
    """Return the PSNR in dB of a mean squared error, counted in the unit of `peak`."""
    return float(10 * np.log10(peak**2 / max(mse, LEAST_MSE)))


def picture_quality(picture: np.ndarray, clean: np.ndarray) -> Quality:
    """Compare two uint8 pictures, (H, W) or (H, W, 3).

    SSIM is that of Wang et al. (IEEE TIP 2004): Gaussian window of sigma 1.5, 11 px wide, the mean
    over channels. Pictures with a side under 11 px have no SSIM (NaN).
    """
    if picture.shape != clean.shape or picture.dtype != np.uint8 or clean.dtype != np.uint8:
        raise ValueError(
            f"pictures must be uint8 and of one shape, got {picture.dtype} {picture.shape} and "
            f"{clean.dtype} {clean.shape}"
        )
    if min(clean.shape[:2]) < SSIM_WINDOW_PX:
        return Quality(psnr_db(picture, clean), float("nan"))
    ssim = structural_similarity(
        picture,
        clean,
        data_range=255,
        channel_axis=2 if clean.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return Quality(psnr_db(picture, clean), float(np.asarray(ssim)))


def squared_error(
    restored: Float[Tensor, "B C H W"], clean: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    """Return the mean squared error of each picture, after clipping the restored to [0, 1]."""
    return (restored.float().clamp(0, 1) - clean.float()).square().mean(dim=(1, 2, 3))


@torch.no_grad()
def picture_scores(
    restored: Float[Tensor, "B C H W"], clean: Float[Tensor, "B C H W"]
) -> dict[str, Float[Tensor, " B"]]:
    """Compare pictures with the clean ones, each by itself, on their device.

    Args:
        restored: Answers of a network; clipped to [0, 1] here.
        clean: In [0, 1].

    Returns:
        Float32, one number for each picture:
            `mse`: mean squared error over pixels and channels;
            `psnr_db`: 10 log10(1 / mse), at most 120 dB;
            `ssim`: that of `picture_quality`; NaN if a side is under 11 px.
    """
    # torchmetrics takes seconds to import, and most of what this package does never asks for it.
    from torchmetrics.functional.image import peak_signal_noise_ratio

    restored, clean = restored.float().clamp(0, 1), clean.float()
    psnr = peak_signal_noise_ratio(restored, clean, data_range=1.0, reduction="none", dim=(1, 2, 3))
    if min(clean.shape[-2:]) < SSIM_WINDOW_PX:
        ssim = torch.full_like(psnr, torch.nan)
    else:
        ssim = _ssim(restored, clean)
    return {
        "mse": squared_error(restored, clean),
        "psnr_db": psnr.clamp(max=decibels(0.0)),
        "ssim": ssim,
    }


def mask_iou(
    logits: Float[Tensor, "B 1 H W"], mask: Bool[Tensor, "B 1 H W"]
) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """Return the pixels that damage mask and answer share, and those in either, of each picture.

    Sums of both over many pictures give the pooled intersection over union; one picture without
    damage has none. The answer is damage where its logit is above 0.
    """
    found, mask = logits > 0, mask > 0.5
    return (found & mask).sum(dim=(1, 2, 3)), (found | mask).sum(dim=(1, 2, 3))


def _ssim(
    restored: Float[Tensor, "B C H W"], clean: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    from torchmetrics.functional.image import structural_similarity_index_measure

    # Variances are differences of near numbers: in bfloat16 or TF32 little would be left of them.
    with torch.autocast(restored.device.type, enabled=False), exact_products():
        _, full = structural_similarity_index_measure(
            restored, clean, data_range=1.0, sigma=1.5, reduction="none", return_full_image=True
        )
    # Without the border, where the window reaches over the edge, as the paper and skimage have it.
    edge = SSIM_WINDOW_PX // 2
    return full[..., edge:-edge, edge:-edge].mean(dim=(1, 2, 3))
