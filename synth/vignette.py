"""Light that fell unevenly: corners that a lens leaves dark, and exposures that drift."""

import math
from dataclasses import dataclass

import torch

from .defect import Defect
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, OneChannel, Params, PerImage

GAMMA = 2.2
"""Of the display: x ** GAMMA is proportional to light, near enough for slow changes of it."""

PAPER = 1.6
"""Slope of the logistic curve of photographic paper: a contrast of 1.8 in density at middle gray,
as papers of normal grade have."""

DRIFT = 0.5
"""From one lattice point of uneven light to the next, as a share of the long side."""


def vignette(x: Images, *, loss: PerImage, power: PerImage, radius: OneChannel) -> Images:
    """Darken towards the corners; loss 0 returns x.

    Light falls as (1 + k r**power) ** -2: with power 2 that is the cos**4 law of natural
    vignetting, r being the tangent of the angle. Larger powers are lens barrels that cut it off.

    Args:
        x: Display-referred, so it is multiplied by the root of the light that is left.
        loss: Share of the light that is missing where the radius is 1, below 1.
        power: At least 1.
        radius: Distance of each pixel from the axis of the lens.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    steepness = per_pixel((1 - loss) ** -0.5 - 1)
    left = (1 + steepness * radius ** per_pixel(power)) ** (-2 / GAMMA)
    return torch.where(per_pixel(loss) > 0, (wide * left).to(x.dtype), x)


def expose(x: Images, *, stops: OneChannel) -> Images:
    """Return a print whose exposure differs by so many stops; 0 returns x, more is lighter.

    A print's curve is an S over the logarithm of exposure. Taken as a logistic one, exposure moves
    x along it: black and white stay, what is between gets lighter or darker.

    Args:
        x: One channel or three.
        stops: Of exposure; each multiplies x / (1 - x) by 2 ** `PAPER`.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    gain = (stops * (math.log(2.0) * PAPER)).exp()
    exposed = wide * gain / (wide * gain + (1 - wide))
    return torch.where(stops == 0, x, exposed.clamp(0, 1).to(x.dtype))


@dataclass(frozen=True, kw_only=True, slots=True)
class Vignette(Defect):
    """Dark corners."""

    loss: Range = (0.2, 0.75)
    """Share of the light that is missing in the corners; 0.75 is two stops."""
    power: Range = (2.0, 4.0)
    """How it falls with the distance from the centre; 2 is the cos**4 law."""
    off_centre: Range = (0.0, 0.08)
    """How far the axis of the lens misses the centre, as a share of the half diagonal."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("loss", self.loss, low=0.0, high=0.95)
        check_range("power", self.power, low=1.0, high=8.0)
        check_range("off_centre", self.off_centre, low=0.0, high=0.5)

    def sample(self, scene: Scene) -> Params:
        """Draw loss, power, down and right (B,); the last two in half diagonals."""
        u = scene.uniform(4)
        distance = scene.amount(u[:, 2], self.off_centre)
        angle = u[:, 3] * (2 * math.pi)
        return {
            "loss": scene.strength(u[:, 0], self.loss, most=0.95),
            "power": scene.amount(u[:, 1], self.power),
            "down": distance * angle.sin(),
            "right": distance * angle.cos(),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Darken the corners; they can still be seen, so there is no mask."""
        height, width = scene.size
        half = max(math.hypot(height - 1, width - 1) / 2, 1.0)
        y = (scene.rows(x.shape[2]) - (height - 1) / 2) / half - per_pixel(params["down"])
        z = (scene.columns(x.shape[3]) - (width - 1) / 2) / half - per_pixel(params["right"])
        radius = (y * y + z * z).sqrt()
        return vignette(x, loss=params["loss"], power=params["power"], radius=radius), None


@dataclass(frozen=True, kw_only=True, slots=True)
class UnevenExposure(Defect):
    """Light that differs over the picture: a tilt from one side to the other, and broad patches."""

    stops: Range = (0.1, 0.7)
    """Standard deviation of the patches, and half of what the tilt makes across the diagonal, in
    stops of exposure."""
    tilt: Range = (0.0, 1.0)
    """Share of it that is the tilt."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("stops", self.stops, low=0.0, high=4.0)
        check_range("tilt", self.tilt, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw patches, down and right (B,) in stops; the last two across half a diagonal."""
        u = scene.uniform(3)
        stops = scene.strength(u[:, 0], self.stops, most=4.0)
        tilt, angle = stops * scene.amount(u[:, 1], self.tilt), u[:, 2] * (2 * math.pi)
        return {"patches": stops - tilt, "down": tilt * angle.sin(), "right": tilt * angle.cos()}

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Expose unevenly; it hides nothing, so there is no mask."""
        (H, W), (height, width) = x.shape[2:], scene.size
        half = max(math.hypot(height - 1, width - 1) / 2, 1.0)
        noise = smooth_noise(scene, H, W, period_px=DRIFT * max(height, width), plane=0)
        down = (scene.rows(H) - (height - 1) / 2) / half
        right = (scene.columns(W) - (width - 1) / 2) / half
        stops = (
            per_pixel(params["patches"]) * noise
            + per_pixel(params["down"]) * down
            + per_pixel(params["right"]) * right
        )
        return expose(x, stops=stops), None
