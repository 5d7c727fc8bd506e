"""How well a picture is coloured: error of its colours and how much colour there is, together.

The error alone rewards gray, for a careful guess is a gray one; colourfulness alone rewards any
colour at all.
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

_RGB_FROM_XYZ = (
    (3.240481343, -1.537151516, -0.498536327),
    (-0.969254950, 1.875990002, 0.041555927),
    (0.055646639, -0.204041338, 1.057311070),
)
"""The inverse of the matrix in `synth.modes`."""
_WHITE = (0.95047, 1.0, 1.08883)
_FOOT = 6 / 29


def ab_squared_error(
    ab: Float[Tensor, "B 2 H W"],
    truth: Float[Tensor, "B 2 H W"],
    inside: Bool[Tensor, "B 1 H W"] | None = None,
) -> Float[Tensor, " B"]:
    """Return the mean squared error over a and b of each picture, in CIELAB units squared.

    Args:
        ab: The guess, in CIELAB units.
        truth: What it should be.
        inside: Where the pictures are; None is everywhere.
    """
    error = (ab.double() - truth.double()).square()
    if inside is None:
        return error.mean((1, 2, 3)).float()
    return ((error * inside).sum((1, 2, 3)) / (2 * inside.sum((1, 2, 3))).clamp(min=1)).float()


def ab_psnr_db(squared_error: Float[Tensor, " B"]) -> tuple[float, float]:
    """Return 20 log10(255 / RMSE over a and b) of pictures, in dB: their mean, and pooled.

    255 as for 8-bit values, though a and b are in CIELAB units: so is the literature (CIC's and
    what followed). Pooled is of the mean squared error over all pictures.

    Args:
        squared_error: Of each picture, see `ab_squared_error`; for the answer "all gray", the
            error of ab = 0.
    """
    error = squared_error.double().clamp(min=1e-12)
    each = 10 * (255.0**2 / error).log10()
    pooled = 10 * (255.0**2 / error.mean()).log10()
    return float(each.mean()), float(pooled)


def gray_ab_psnr_db(
    truth: Float[Tensor, "B 2 H W"], inside: Bool[Tensor, "B 1 H W"] | None = None
) -> tuple[float, float]:
    """Return `ab_psnr_db` of pictures without any colour: what colouring has to beat."""
    return ab_psnr_db(ab_squared_error(torch.zeros_like(truth), truth, inside))


def colorfulness(rgb: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Return the colourfulness M3 of Hasler and Suesstrunk (2003) of sRGB pictures in 0..255.

    "Measuring colourfulness in natural images", Human Vision and Electronic Imaging VIII: the
    spread of rg = R - G and yb = (R + G) / 2 - B plus 0.3 of the length of their mean. Gray is 0,
    and 33 was called moderately colourful. Others take |rg| and |yb|, which is not in the paper.
    """
    r, g, b = rgb.double().unbind(1)
    opponents = torch.stack((r - g, (r + g) / 2 - b), 1).flatten(2)
    spread = opponents.var(2, correction=0).sum(1).sqrt()
    return (spread + 0.3 * opponents.mean(2).square().sum(1).sqrt()).float()


def lab_to_srgb(lab: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Turn CIELAB (D65, 2 degrees) into sRGB in [0, 1]; colours it does not have are clipped."""
    return encode_srgb(lab_to_linear(lab).clamp(0, 1))


def lab_to_linear(lab: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Turn CIELAB into linear light of sRGB's primaries; below 0 or above 1 is out of gamut."""
    # Element by element, not kornia's: its matrix is a convolution, in TF32 on a GPU by default.
    L, a, b = lab.unbind(1)
    y = (L + 16) / 116
    xyz = [
        torch.where(t > _FOOT, t * t * t, 3 * _FOOT**2 * (t - 4 / 29)) * white
        for t, white in zip((y + a / 500, y, y - b / 200), _WHITE, strict=True)
    ]
    return torch.stack(
        [row[0] * xyz[0] + row[1] * xyz[1] + row[2] * xyz[2] for row in _RGB_FROM_XYZ], 1
    )


def encode_srgb(linear: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Apply the transfer function of sRGB (IEC 61966-2-1) to light in [0, 1]."""
    curve = 1.055 * linear.clamp(min=1e-12).pow(1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curve, 12.92 * linear)


def lightness(luma: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return L of CIELAB, 0 to 100, of grays of this luma in [0, 1]."""
    gray = luma.clamp(0, 1)
    light = torch.where(
        gray > 0.04045, ((gray + 0.055) / 1.055).clamp(min=1e-12).pow(2.4), gray / 12.92
    )
    root = torch.where(
        light > _FOOT**3, light.clamp(min=1e-12).pow(1 / 3), light / (3 * _FOOT**2) + 4 / 29
    )
    return 116 * root - 16
