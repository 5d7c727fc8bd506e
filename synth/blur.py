"""Blur of the camera: out of focus, or moved during the exposure.

Kernels are as large as the largest of their range needs, for every photograph: small ones are
padded with zeros. Out of focus costs two passes over the pixels, moved a kernel of length times
length taps; beyond `FFT_PX`, in scans of many megapixels, the kernel is applied by FFT instead.
Borders are replicated, so a picture may be smaller than the kernel.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.filters import filter2d, filter2d_separable, get_gaussian_kernel1d
from torch import Tensor

from .defect import Defect
from .ranges import Range, check_range
from .scene import NOMINAL_SIDE_PX, Scene, per_pixel
from .types import Images, Mask, Params, PerImage

FFT_PX = 41
"""Largest side of a kernel that is applied tap by tap."""


def defocus(x: Images, *, sigma_px: PerImage, kernel_px: int) -> Images:
    """Blur with a Gaussian for each photograph; sigma 0 returns x.

    Args:
        x: One channel or three.
        sigma_px: Standard deviation, at most a sixth of the kernel.
        kernel_px: Side of the kernel, odd.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # Not gaussian_blur2d: that looks whether sigma is positive, and so waits for the GPU.
    kernel = get_gaussian_kernel1d(kernel_px, sigma_px[:, None])
    blurred = filter2d_separable(wide, kernel, kernel, border_type="replicate")
    return _where(sigma_px > 0, blurred, x)


def motion_blur(x: Images, *, length_px: PerImage, angle_deg: PerImage, kernel_px: int) -> Images:
    """Blur along a straight line for each photograph; length 0 returns x.

    Args:
        x: One channel or three.
        length_px: Of the line.
        angle_deg: From rightwards, anti-clockwise.
        kernel_px: Side of the kernel, odd and longer than any line by 2 px.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    kernel = line_kernel(length_px=length_px, angle_deg=angle_deg, kernel_px=kernel_px)
    if kernel_px <= FFT_PX:
        blurred = filter2d(wide, kernel, border_type="replicate")
    else:
        blurred = _convolve(wide, kernel)
    return _where(length_px > 0, blurred, x)


def line_kernel(
    *, length_px: PerImage, angle_deg: PerImage, kernel_px: int
) -> Float[Tensor, "B kernel_px kernel_px"]:
    """Draw a line of 1 px width through the middle, with soft outlines; its sum is 1."""
    offset = torch.arange(kernel_px, device=length_px.device) - kernel_px // 2
    angle = (angle_deg * (math.pi / 180))[:, None, None]
    right, up = offset[None, None, :], -offset[None, :, None]
    along = right * angle.cos() + up * angle.sin()
    across = up * angle.cos() - right * angle.sin()
    half = length_px[:, None, None] / 2
    kernel = (half + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(min=0)
    return kernel / kernel.sum((1, 2), keepdim=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Defocus(Defect):
    """Out of focus, or a poor lens."""

    sigma_px: Range = (0.5, 2.5)
    """Standard deviation of the blur in a picture with a long side of 1024 px; the largest is not
    exceeded, however worn a photograph is."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("sigma_px", self.sigma_px, low=0.0, high=20.0)

    def sample(self, scene: Scene) -> Params:
        """Draw sigma_px (B,), of the picture as it is."""
        sigma = scene.strength(scene.uniform(1)[:, 0], self.sigma_px, most=self.sigma_px[1])
        return {"sigma_px": sigma * scene.scale}

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Blur; nothing is hidden, so there is no mask."""
        kernel_px = 2 * self.reach_px(scene.size) + 1
        return defocus(x, sigma_px=params["sigma_px"], kernel_px=kernel_px), None

    def reach_px(self, size: tuple[int, int]) -> int:
        """Three standard deviations."""
        return math.ceil(3 * self.sigma_px[1] * _scale(size))


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionBlur(Defect):
    """The camera moved, or all that it saw."""

    length_px: Range = (2.0, 12.0)
    """Of the movement in a picture with a long side of 1024 px; the largest is not exceeded."""
    angle_deg: Range = (0.0, 180.0)
    """Of the movement, from horizontal, anti-clockwise."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("length_px", self.length_px, low=0.0, high=100.0)
        check_range("angle_deg", self.angle_deg, low=0.0, high=180.0)

    def sample(self, scene: Scene) -> Params:
        """Draw length_px (B,), of the picture as it is, and angle_deg (B,)."""
        u = scene.uniform(2)
        length = scene.strength(u[:, 0], self.length_px, most=self.length_px[1])
        return {
            "length_px": length * scene.scale,
            "angle_deg": scene.amount(u[:, 1], self.angle_deg),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Blur; nothing is hidden, so there is no mask."""
        return motion_blur(
            x,
            length_px=params["length_px"],
            angle_deg=params["angle_deg"],
            kernel_px=2 * self.reach_px(scene.size) + 1,
        ), None

    def reach_px(self, size: tuple[int, int]) -> int:
        """Half of the longest movement, and a pixel for its soft outline."""
        return math.ceil(self.length_px[1] * _scale(size) / 2) + 1


def _scale(size: tuple[int, int]) -> float:
    return max(1.0, max(size) / NOMINAL_SIDE_PX)


def _where(happens: Tensor, blurred: Tensor, x: Images) -> Images:
    """Choose for each photograph; the result has the type and the memory format of x."""
    # empty_like keeps the format, which convolutions do not.
    return torch.empty_like(x).copy_(
        torch.where(per_pixel(happens), blurred.clamp(0, 1).to(x.dtype), x)
    )


def _convolve(x: Images, kernel: Float[Tensor, "B K K"]) -> Images:
    """Convolve with a symmetric kernel for each photograph, borders replicated, by FFT."""
    half = kernel.shape[-1] // 2
    padded = F.pad(x, (half, half, half, half), mode="replicate")
    # Lengths of many small factors; what wraps around falls onto the border that is cut off.
    H, W = (64 * -(-length // 64) for length in padded.shape[2:])
    spectrum = torch.fft.rfft2(kernel.to(x.dtype), s=(H, W))[:, None]
    product = torch.fft.rfft2(padded, s=(H, W)) * spectrum
    whole = torch.fft.irfft2(product, s=(H, W))
    return whole[..., 2 * half : 2 * half + x.shape[2], 2 * half : 2 * half + x.shape[3]]
