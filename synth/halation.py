"""Halation: light that went through the film, came back from its base and glows around highlights.

The red-sensitive layer is the lowest, so the glow is red to orange in colour film, and only bright
in black-and-white. What glows is blurred widely, so that is done on a picture smaller by a whole
number, aligned to the whole picture; it costs little beside the way to linear light and back.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.filters import filter2d_separable, get_gaussian_kernel1d

from .defect import Defect
from .grayscale import grayscale
from .light_leak import add_light
from .ranges import Range, check_range
from .scene import NOMINAL_SIDE_PX, Scene, per_pixel
from .types import Images, Mask, OneChannel, Params, PerImage

GLOW = (1.0, 0.30, 0.07)
"""Red, green and blue of the glow."""

CORE = 0.35
"""The glow falls off faster than one Gaussian near its source, slower far from it: half of it has
this share of the standard deviation."""


def halation(x: Images, *, amount: PerImage, glow: OneChannel) -> Images:
    """Add the glow in linear light; amount 0 returns x.

    Args:
        x: One channel or three; one gets the luma of the colour.
        amount: Linear red light at the brightest, 1 being white.
        glow: 0 to 1.
    """
    light = per_pixel(amount) * glow
    return add_light(x, light=torch.cat([light * part for part in GLOW], 1))


def glow_of(
    x: Images,
    *,
    threshold: PerImage,
    sigma_px: PerImage,
    kernel_px: int,
    step: int,
    top: int = 0,
    left: int = 0,
) -> OneChannel:
    """Blur what is brighter than a threshold.

    Args:
        x: One channel or three.
        threshold: Below it nothing glows, at 1 all does; below 1.
        sigma_px: Standard deviation of its wider half, at least `step` / `CORE`.
        kernel_px: Side of the Gaussian kernel, odd.
        step: How much smaller the picture is that gets blurred.
        top: First row of x in the whole picture, to which the steps are aligned.
        left: First column.
    """
    luma = grayscale(x.to(torch.promote_types(x.dtype, torch.float32)))
    level = per_pixel(threshold)
    bright = ((luma - level) / (1 - level)).clamp(0, 1)
    H, W = bright.shape[2:]
    before, above = left % step, top % step
    border = (before, -(W + before) % step, above, -(H + above) % step)
    small = F.avg_pool2d(F.pad(bright, border, mode="replicate"), step)
    # Averaging and interpolating blur as well, by about step**2 / 4 of variance.
    half = 2 * (kernel_px // (2 * step)) + 1
    blurred = torch.zeros_like(small)
    for share in (1.0, CORE):
        sigma = ((share * sigma_px / step) ** 2 - 0.25 * (step > 1)).clamp(min=1e-4).sqrt()
        kernel = get_gaussian_kernel1d(half, sigma[:, None])
        blurred = blurred + 0.5 * filter2d_separable(small, kernel, kernel, "replicate")
    glow = F.interpolate(blurred, scale_factor=float(step), mode="bilinear", align_corners=False)
    return glow[..., above : above + H, before : before + W]


@dataclass(frozen=True, kw_only=True, slots=True)
class Halation(Defect):
    """A glow around what is bright."""

    amount: Range = (0.03, 0.3)
    """Red light of the glow within a large highlight, relative to the light of white."""
    sigma_px: Range = (8.0, 24.0)
    """How wide it is, in a picture with a long side of 1024 px."""
    threshold: Range = (0.65, 0.9)
    """From which luma on a pixel glows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("amount", self.amount, low=0.0, high=1.0)
        check_range("sigma_px", self.sigma_px, low=1.0, high=100.0)
        check_range("threshold", self.threshold, low=0.0, high=0.98)

    def sample(self, scene: Scene) -> Params:
        """Draw amount, sigma_px (of the picture as it is) and threshold (B,)."""
        u = scene.uniform(3)
        return {
            "amount": scene.strength(u[:, 0], self.amount),
            "sigma_px": scene.amount(u[:, 1], self.sigma_px) * scene.scale,
            "threshold": scene.amount(u[:, 2], self.threshold),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Add the glow; the picture shows through, so there is no mask."""
        step = self._step(scene.size)
        glow = glow_of(
            x,
            threshold=params["threshold"],
            sigma_px=params["sigma_px"],
            kernel_px=2 * (self.reach_px(scene.size) - 2 * step) + 1,
            step=step,
            top=scene.top,
            left=scene.left,
        )
        return halation(x, amount=params["amount"], glow=glow), None

    def reach_px(self, size: tuple[int, int]) -> int:
        """Three standard deviations, and two steps."""
        scale = max(1.0, max(size) / NOMINAL_SIDE_PX)
        return math.ceil(3 * self.sigma_px[1] * scale) + 2 * self._step(size)

    def _step(self, size: tuple[int, int]) -> int:
        scale = max(1.0, max(size) / NOMINAL_SIDE_PX)
        # No larger than the narrowest Gaussian that is to be blurred with.
        return 2 ** max(0, math.floor(math.log2(CORE * self.sigma_px[0] * scale)))
