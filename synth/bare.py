"""The bare support: what shows where the picture is gone, be it paper, card or glass."""

import torch
from torch import Tensor

from .ranges import Range
from .types import Images, OneChannel, PerImage

PAPER: Range = (0.78, 0.94)
"""Lightness of the paper base of old prints as scans show it, of full scale."""
WARMTH: Range = (0.2, 1.0)
"""How much they have yellowed, see `bare_colour`."""


def bare_colour(channels: int, *, light: PerImage, warmth: PerImage) -> Tensor:
    """Return the colour of the support, (B, channels, 1, 1).

    Args:
        channels: 3 for sRGB, 1 for its luma.
        light: Lightness 0 to 1, that of red.
        warmth: 0 is neutral; 1 as yellow as aged baryta paper, (1, 0.95, 0.84) of `light`.
    """
    red, green, blue = light, light * (1 - 0.05 * warmth), light * (1 - 0.16 * warmth)
    if channels == 1:
        # Rec. 601, as `grayscale` weighs them.
        colour = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    else:
        colour = torch.stack((red, green, blue), 1)
    return colour[:, :, None, None]


def cover(x: Images, layer: Tensor, *, opacity: OneChannel) -> Images:
    """Lay something over pictures; opacity 0 returns x bit for bit, 1 the layer within rounding.

    Args:
        x: The pictures.
        layer: Broadcasts to them; float32.
        opacity: From 0 to 1; float32.

    Returns:
        Float32, or float64 if x is.
    """
    # The pictures first: the first operand decides on the memory format.
    return (x - layer).mul_(opacity).neg_().add_(x)
