"""Noise of sensors, independent from pixel to pixel: added, or times the light (speckle).

Ranges as in Real-ESRGAN's and Microsoft's degradations; 0.04 is about 10 of 255 levels.
"""

from dataclasses import dataclass

import torch

from .defect import Defect
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, Params, PerImage


def add_noise(x: Images, noise: Images, *, sigma: PerImage) -> Images:
    """Return clip(x + sigma noise); sigma is in units of full scale, 0 returns x."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide + per_pixel(sigma) * noise).clamp(0, 1).to(x.dtype)


def speckle(x: Images, noise: Images, *, sigma: PerImage) -> Images:
    """Return clip(x + sigma x noise): strong in the lights, none in black; sigma 0 returns x."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide + wide * per_pixel(sigma) * noise).clamp(0, 1).to(x.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianNoise(Defect):
    """Gaussian noise of a scanner or camera."""

    sigma: Range = (0.01, 0.10)
    """Standard deviation, uniform in this range for each photograph; full scale is 1."""
    gray: float = 0.4
    """Share of the photographs whose colours all have the same noise."""

    def __post_init__(self) -> None:
        """Check the range and the share."""
        check_range("sigma", self.sigma, low=0.0, high=1.0)
        _check_share(self.gray)

    def sample(self, scene: Scene) -> Params:
        """Draw sigma (B,), and gray (B,) bool."""
        return _sample(scene, self.sigma, self.gray)

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Add the noise; it hides nothing, so there is no mask."""
        return add_noise(x, _noise(x, params, scene), sigma=params["sigma"]), None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeckleNoise(Defect):
    """Noise in proportion to the light."""

    sigma: Range = (0.02, 0.15)
    """Standard deviation where the picture is white, uniform in this range for each photograph."""
    gray: float = 0.4
    """Share of the photographs whose colours all have the same noise."""

    def __post_init__(self) -> None:
        """Check the range and the share."""
        check_range("sigma", self.sigma, low=0.0, high=1.0)
        _check_share(self.gray)

    def sample(self, scene: Scene) -> Params:
        """Draw sigma (B,), and gray (B,) bool."""
        return _sample(scene, self.sigma, self.gray)

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Add the noise; it hides nothing, so there is no mask."""
        return speckle(x, _noise(x, params, scene), sigma=params["sigma"]), None


def _check_share(gray: float) -> None:
    if not 0.0 <= gray <= 1.0:
        raise ValueError(f"gray must be a share from 0 to 1, got {gray!r}")


def _sample(scene: Scene, sigma: Range, gray: float) -> Params:
    u = scene.uniform(2)
    return {"sigma": scene.strength(u[:, 0], sigma), "gray": u[:, 1] < gray}


def _noise(x: Images, params: Params, scene: Scene) -> Images:
    _B, C, H, W = x.shape
    noise = scene.normals(H, W, planes=C)
    return noise if C == 1 else torch.where(per_pixel(params["gray"]), noise[:, :1], noise)
