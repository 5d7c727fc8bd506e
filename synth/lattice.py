"""Smooth noise: normal numbers on the points of a lattice, and cubic B-splines in between.

The base of blotches, warps and uneven light: cheaper than Perlin's gradients and as smooth. The
numbers are keyed by the point of the lattice, so the noise goes on without end and a window of it
is what the whole has there. Interpolation is two small matrix products, one an axis (Unser,
"Splines: a perfect fit for signal and image processing", 1999, eq. 4 for n = 3).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .philox import normal_field
from .scene import Scene


def smooth_noise(
    scene: Scene,
    height: int,
    width: int,
    *,
    period_px: float,
    plane: int,
    planes: int = 1,
    octaves: int = 1,
    gain: float = 0.5,
    stretch: float = 1.0,
) -> Float[Tensor, "B planes height width"]:
    """Draw noise of mean 0 and standard deviation 1 for the pixels of a batch.

    Args:
        scene: Whose keys and place.
        height: Of the batch, in pixels.
        width: Of the batch, in pixels.
        period_px: Between the points of the coarsest lattice, of the first octave.
        plane: Number of the first plane; octaves and planes use up `planes` * `octaves`.
        planes: Independent fields.
        octaves: How many; each has half the period of the one before.
        gain: Standard deviation of an octave relative to the one before.
        stretch: Period down the rows relative to that along them.

    Returns:
        Float32, close to normal.
    """
    total: Tensor | None = None
    for octave in range(octaves):
        period = period_px / 2**octave
        row, down = _weights(scene.top, height, period * stretch, scene)
        column, right = _weights(scene.left, width, period, scene)
        points = normal_field(
            scene.keys,
            op=scene.op,
            planes=planes,
            height=down.shape[1],
            width=right.shape[1],
            top=row,
            left=column,
            plane=plane + octave * planes,
        )
        layer = gain**octave * _interpolated(down, points, right)
        total = layer if total is None else total + layer
    assert total is not None
    return total * (1.0 / (_POINT_SD * math.sqrt(sum(gain ** (2 * i) for i in range(octaves)))))


_POINT_SD = 151 / 315
"""Of the interpolated numbers, on average over the place: the integral of the squared cubic
B-spline, once for each axis (the root of its square)."""


def _interpolated(down: Tensor, points: Tensor, right: Tensor) -> Tensor:
    # A product a photograph: one for all of them would round with the size of the batch.
    B, planes, _, _ = points.shape
    rows = torch.bmm(down.expand(B * planes, -1, -1), points.flatten(0, 1))
    return torch.bmm(rows, right.T.expand(B * planes, -1, -1)).unflatten(0, (B, planes))


def _weights(start: int, length: int, period: float, scene: Scene) -> tuple[int, Tensor]:
    """Return the first lattice point that matters, and the weights (length, points) from there."""
    first = math.floor(start / period) - 1
    points = math.floor((start + length - 1) / period) + 3 - first
    device = scene.keys.device
    # Counted from the first point: far out in a large picture float32 has few digits left.
    pixels = torch.arange(length, device=device) / period + (start / period - first)
    t = (pixels[:, None] - torch.arange(points, device=device)[None, :]).abs()
    near = 2 / 3 - t * t + t**3 / 2
    far = (2 - t).clamp(min=0) ** 3 / 6
    return first, torch.where(t < 1, near, far)
