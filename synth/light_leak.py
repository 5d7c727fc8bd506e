"""Light leaks: light that got at the film through a chink, as glowing patches at an edge.

It came through the base of the film, so the red-sensitive layer saw most of it and the blue one
least; each is exposed to saturation, 1 - exp(-sensitivity * exposure). So the rim of a patch is
red, then it is orange, yellow, and white in a strong core. The light adds to that of the picture,
hence in linear light. Costs the conversion there and back, and four planes of smooth noise.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from .defect import Defect
from .grayscale import grayscale
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, OneChannel, Params, PerImage

HIDES_AT = 0.2
"""The mask holds the pixels that get this much linear light, what a middle gray reflects: the
darker half of the tones has lost most of its contrast there."""

MOST_BLOBS = 4

_FULL = 8.0
"""Exposure of a blob of intensity 1 at its brightest, in those that saturate the red layer."""

_WARP = 0.22
"""Period of the noise that makes the outlines irregular, as a share of the long side."""

_DRAWS = 7


def add_light(x: Images, *, light: Float[Tensor, "B 3 H W"]) -> Images:
    """Add linear light; none returns x.

    Args:
        x: One channel or three; one gets the luma of the light.
        light: Red, green and blue, at least 0; 1 is white.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    C = x.shape[1]
    if C == 1:
        light = grayscale(light)
    # Kornia's conversions take three channels only.
    linear = rgb_to_linear_rgb(wide.expand(-1, 3, -1, -1))[:, :C]
    lit = (linear + light).clamp(0, 1)
    shown = linear_rgb_to_rgb(lit.expand(-1, 3, -1, -1))[:, :C]
    # The way there and back rounds, so it is taken only where there is light.
    return torch.empty_like(x).copy_(torch.where(light > 0, shown.clamp(0, 1).to(x.dtype), x))


def light_of(exposure: OneChannel, *, greenness: PerImage) -> Float[Tensor, "B 3 H W"]:
    """Return the linear light that an exposure from behind leaves.

    Args:
        exposure: At least 0; 1 leaves 63 % in the red.
        greenness: Sensitivity of the green-sensitive layer relative to the red, 0 to 1; that of the
            blue is a quarter of it.
    """
    green = exposure * per_pixel(greenness)
    return -torch.expm1(-torch.cat([exposure, green, green / 4], 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class LightLeak(Defect):
    """Patches of light at an edge of the frame."""

    intensity: Range = (0.06, 0.8)
    """Exposure of the first patch; those from about 0.5 on have a yellow core."""
    depth: Range = (0.05, 0.3)
    """How far a patch reaches into the frame, as a share of the long side."""
    breadth: Range = (0.08, 0.6)
    """How far it goes along the edge to both sides, likewise."""
    num_blobs: int = 3
    """Most patches in a photograph; each but the first is there in half of them."""
    greenness: Range = (0.08, 0.32)
    """From red leaks, 0, to yellow ones."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("intensity", self.intensity, low=0.0, high=2.0)
        check_range("depth", self.depth, low=0.001, high=2.0)
        check_range("breadth", self.breadth, low=0.001, high=4.0)
        check_range("greenness", self.greenness, low=0.0, high=1.0)
        if not 1 <= self.num_blobs <= MOST_BLOBS:
            raise ValueError(f"num_blobs must be from 1 to {MOST_BLOBS}, got {self.num_blobs!r}")

    def sample(self, scene: Scene) -> Params:
        """Draw greenness (B,), and of each patch n (B, n) what `_exposure` says."""
        u = scene.uniform(1 + _DRAWS * self.num_blobs)
        blobs = u[:, 1:].unflatten(1, (self.num_blobs, _DRAWS))
        # A camera leaks at one side, as a rule: the others are at the first one's or opposite.
        side = (4 * blobs[:, :1, 0]).floor() + 2 * (blobs[:, :, 0] * 4096 % 1 < 0.25)
        first = torch.arange(self.num_blobs, device=u.device) == 0
        there = first | (blobs[:, :, 1] < 0.5)
        low, high = self.intensity
        intensity = (low + (high - low) * blobs[:, :, 2]) * scene.severity[:, None]
        return {
            "greenness": scene.amount(u[:, 0], self.greenness),
            "intensity": intensity.clamp(max=2.0) * there,
            "angle_deg": 90 * side + 40 * (blobs[:, :, 3] - 0.5),
            "side": side % 4,
            "place": blobs[:, :, 4],
            "depth": self.depth[0] + (self.depth[1] - self.depth[0]) * blobs[:, :, 5],
            "breadth": self.breadth[0] + (self.breadth[1] - self.breadth[0]) * blobs[:, :, 6],
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Let the light in; the mask is where there is `HIDES_AT` or more of it."""
        exposure = _exposure(params, scene, x.shape[2], x.shape[3])
        light = light_of(exposure, greenness=params["greenness"])
        return add_light(x, light=light), grayscale(light) >= HIDES_AT


def _exposure(params: Params, scene: Scene, height: int, width: int) -> OneChannel:
    """Sum the patches.

    A patch lies at a `place` (0 to 1) of a `side` (0 top, 1 right, 2 bottom, 3 left) and shines
    into the frame at `angle_deg` (0 is downwards, 90 leftwards), falling off with `depth` that way
    and with `breadth` across it.
    """
    rows, columns = scene.size
    long = float(max(scene.size))
    noise = smooth_noise(
        scene, height, width, period_px=_WARP * long, plane=0, planes=2, octaves=2, gain=0.5
    )
    y, z = scene.rows(height) / long, scene.columns(width) / long
    total = torch.zeros_like(noise[:, :1])
    for n in range(params["side"].shape[1]):
        side, place, angle, depth, breadth, intensity = (
            per_pixel(params[name][:, n])
            for name in ("side", "place", "angle_deg", "depth", "breadth", "intensity")
        )
        upright = side % 2 == 1
        y0 = torch.where(upright, place, (side == 2).float()) * (rows / long)
        z0 = torch.where(upright, (side == 1).float(), place) * (columns / long)
        angle = angle * (math.pi / 180)
        inwards = (y - y0) * angle.cos() - (z - z0) * angle.sin()
        across = (y - y0) * angle.sin() + (z - z0) * angle.cos()
        # Irregular more where the patch is larger, and each a little differently.
        inwards = inwards / depth + 0.35 * noise[:, :1] + 0.15 * noise[:, 1:]
        across = across / breadth + (0.25 - 0.1 * n) * noise[:, 1:]
        total = (
            total
            + (intensity * _FULL) * (-(inwards.clamp(min=0) ** 1.5) * 2 - across * across * 2).exp()
        )
    # Faint light is left out, so that most of the picture is as it was.
    return (total - 0.01).clamp(min=0)
