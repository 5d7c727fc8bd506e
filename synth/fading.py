"""Fading: silver and dyes lose density, so blacks turn gray, whites dull and contrast goes.

    y = b + (w - b) x ** (1 - lost)

for each channel, b the black and w the white that are left. Density that scales down is an exponent
below 1; in colour prints the cyan dye goes first, which leaves a red cast, deepest in what was
black. All of it is more or less in places, as smooth noise has it, and more along the edges, where
the air gets at the print.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .grayscale import grayscale
from .lattice import smooth_noise
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, OneChannel, Params, PerImage

PATCH = 0.35
"""From one lattice point of unevenness to the next, as a share of the long side."""

EDGE = 0.05
"""Depth to which air gets in from the edges of a print, as a share of the long side."""

MOST_LIFTED = 0.4
"""Black anywhere; and white is lowered by `MOST_LOST` at most: something of the picture stays."""

MOST_LOST = 0.25

MOST_DENSITY_LOST = 0.75


def fade(
    x: Images,
    *,
    black: PerImage,
    white_lost: PerImage,
    density_lost: Float[Tensor, "B 3"],
    where: OneChannel,
) -> Images:
    """Lose contrast and density; all zero returns x.

    Args:
        x: One channel or three; one loses the density that luma would.
        black: What black is lifted to, in the channel that loses most density.
        white_lost: What white falls short of 1 by.
        density_lost: Share of the density that red, green and blue lose (the dyes cyan, magenta
            and yellow), below 1.
        where: How much of this happens at each pixel, 1 on average.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    lost = density_lost[:, :, None, None]
    # Half of the lifted black is fog, alike in all dyes, and half goes with what each has lost.
    most = lost.amax(1, keepdim=True).clamp(min=1e-6)
    share = 0.5 + 0.5 * torch.where(lost.sum(1, keepdim=True) > 0, lost / most, 1.0)
    if x.shape[1] == 1:
        lost, share = grayscale(lost), grayscale(share)
    # Where more than usual has gone, shadows are thin rather than veiled: hence the root.
    low = (per_pixel(black) * share * where.sqrt()).clamp(max=MOST_LIFTED)
    high = 1 - (per_pixel(white_lost) * where).clamp(max=MOST_LOST)
    faded = low + (high - low) * wide ** (1 - (lost * where).clamp(max=MOST_DENSITY_LOST))
    happens = per_pixel(black + white_lost + density_lost.sum(1)) > 0
    # Copied into the memory format of x.
    return torch.empty_like(x).copy_(torch.where(happens, faded.clamp(0, 1).to(x.dtype), x))


def edge_nearness(scene: Scene, height: int, width: int, *, depth_px: float) -> OneChannel:
    """Return exp(-d / depth_px), d the distance in pixels from the nearest edge of the picture."""
    rows, columns = scene.rows(height), scene.columns(width)
    down = torch.minimum(rows, scene.size[0] - 1 - rows)
    right = torch.minimum(columns, scene.size[1] - 1 - columns)
    return (torch.minimum(down, right) / -depth_px).exp()[None, None]


def patchiness(
    scene: Scene, height: int, width: int, *, unevenness: PerImage, edges: PerImage, plane: int
) -> OneChannel:
    """Return how much of a slow chemical change happens at each pixel, 0 to 3.

    Args:
        scene: Whose keys and place.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        unevenness: Standard deviation from place to place, about 1.
        edges: What the edges of the picture have more.
        plane: Number of the first plane of noise; four are used up.
    """
    side = float(max(scene.size))
    noise = smooth_noise(
        scene, height, width, period_px=PATCH * side, plane=plane, planes=2, octaves=2, gain=0.6
    )
    # The second field makes the faded border ragged: it reaches in twice as far in some places.
    border = (
        edge_nearness(scene, height, width, depth_px=EDGE * side) ** (-0.5 * noise[:, 1:]).exp()
    )
    return (1 + per_pixel(unevenness) * noise[:, :1] + per_pixel(edges) * border).clamp(0, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fading(Defect):
    """Contrast and density lost."""

    black: Range = (0.03, 0.2)
    """What black is lifted to, at most in the channel that fades most."""
    white_lost: Range = (0.0, 0.1)
    """What white falls short of 1 by."""
    density_lost: Range = (0.0, 0.25)
    """Share of the density that is gone, in all channels alike."""
    dye_lost: Range = (0.05, 0.35)
    """Share of the cyan dye that is gone besides; of magenta and yellow it is less. A picture of
    one channel loses what its luma would."""
    unevenness: Range = (0.05, 0.35)
    """Standard deviation of all this from place to place, relative to its mean."""
    edges: Range = (0.0, 0.8)
    """How much more of it the edges of the print have; 1 is twice as much."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("black", self.black, low=0.0, high=MOST_LIFTED)
        check_range("white_lost", self.white_lost, low=0.0, high=MOST_LOST)
        check_range("density_lost", self.density_lost, low=0.0, high=0.6)
        check_range("dye_lost", self.dye_lost, low=0.0, high=0.6)
        check_range("unevenness", self.unevenness, low=0.0, high=1.0)
        check_range("edges", self.edges, low=0.0, high=2.0)

    def sample(self, scene: Scene) -> Params:
        """Draw black, white_lost, unevenness and edges (B,), and density_lost (B, 3)."""
        u = scene.uniform(8)
        every = scene.strength(u[:, 2], self.density_lost, most=0.6)
        cyan = scene.strength(u[:, 3], self.dye_lost, most=0.6)
        # Dark fading of chromogenic prints: cyan, then yellow, then magenta as a rule.
        dyes = torch.stack([cyan, cyan * 0.55 * u[:, 4], cyan * (0.2 + 0.6 * u[:, 5])], 1)
        return {
            "black": scene.strength(u[:, 0], self.black, most=MOST_LIFTED),
            "white_lost": scene.strength(u[:, 1], self.white_lost, most=MOST_LOST),
            "density_lost": (every[:, None] + dyes).clamp(max=MOST_DENSITY_LOST),
            "unevenness": scene.amount(u[:, 6], self.unevenness),
            "edges": scene.amount(u[:, 7], self.edges),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Fade; what is left can still be seen, so there is no mask."""
        where = patchiness(
            scene,
            x.shape[2],
            x.shape[3],
            unevenness=params["unevenness"],
            edges=params["edges"],
            plane=0,
        )
        return fade(
            x,
            black=params["black"],
            white_lost=params["white_lost"],
            density_lost=params["density_lost"],
            where=where,
        ), None
