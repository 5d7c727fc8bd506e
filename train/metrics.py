"""How close a picture is to the clean one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor


class Quality(NamedTuple):
    """PSNR in dB and SSIM, both over the whole picture."""

    psnr_db: float
    ssim: float


def psnr_db(picture: np.ndarray, clean: np.ndarray) -> float:
    """Return 10 log10(255^2 / MSE) of two uint8 pictures of one shape, at most 168 dB.

    That is what pictures get that agree: no infinity, which JSON cannot hold.
    """
    error = picture.astype(np.float64) - clean
    return float(10 * np.log10(255.0**2 / max(np.square(error).mean(), 1e-12)))


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
    if min(clean.shape[:2]) < 11:
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
