"""The sheet of a texture: a square that goes on at its opposite sides, and how dirt settles on it.

Lengths from film are in film pixels (7 um: a 35 mm frame is 5000 of them wide) and become texture
pixels through `scale_px`, about 0.3: 1024 px show some two thirds of a frame. Marks are merged by
maximum, which does not depend on their order. Everything random comes from the sheet's generator.
"""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .film import FRAME_AREA

Floats = NDArray[np.floating]
"""float32 wherever there is an axis of pixels: half the memory traffic, far more than 8 bits."""

_MEDIAN_SCALE_PX = 0.3
"""Texture pixels to a film pixel: a 35 mm frame printed and scanned 1500 px wide."""

_CELL_PX = 16
"""Grid of the density; finer clumps come from marks that are themselves made of several."""


class Sheet:
    """A blank sheet and the circumstances its marks share: magnification, focus, wear.

    Attributes:
        opacity: float32 (S, S) in [0, 1]; 0 is clean.
        rng: the only source of randomness.
        scale_px: texture pixels to a film pixel, log-normal about 0.3 in [0.2, 0.5]. Larger formats
            and larger scans show the same dirt at another size.
        soft_px: width of the edge of a mark in focus.
        median_opacity: of this sheet's marks, 0.3 to 0.5 before clipping.
    """

    def __init__(self, size_px: int, rng: np.random.Generator) -> None:
        self.size_px = size_px
        self.rng = rng
        self.opacity: Floats = np.zeros((size_px, size_px), np.float32)
        self.scale_px = float(np.clip(_MEDIAN_SCALE_PX * np.exp(0.25 * rng.normal()), 0.2, 0.5))
        self.soft_px = float(rng.uniform(1.0, 1.7))
        self.median_opacity = float(rng.uniform(0.3, 0.5))
        self._log_density = _log_density(rng, max(2, round(size_px / _CELL_PX)))

    def num(self, per_frame: float) -> int:
        """Draw how many marks fall on this sheet, given the mean number on a whole 35 mm frame."""
        frames = (self.size_px / self.scale_px) ** 2 / FRAME_AREA
        return int(self.rng.poisson(per_frame * frames))

    def place(self, num: int, *, clustering: float) -> tuple[Floats, Floats]:
        """Draw positions from a log-Gaussian Cox process; clustering 0 is an even spread.

        Real counts are over-dispersed: over all frames, in squares of 256 film pixels, dust follows
        a negative binomial with r = 1.6, dirt one with 0.9, short hairs 1.1, long hairs 0.5.

        Returns:
            x and y in [0, size_px).
        """
        density = np.exp(clustering * self._log_density).ravel()
        cumulative = np.cumsum(density)
        cell = np.searchsorted(cumulative, self.rng.random(num) * cumulative[-1], side="right")
        cells = self._log_density.shape[0]
        row, column = np.divmod(np.minimum(cell, cells**2 - 1), cells)
        jitter = self.rng.random((2, num))
        pitch = self.size_px / cells
        x = (column + jitter[0]) * pitch
        y = (row + jitter[1]) * pitch
        return x.astype(np.float32), y.astype(np.float32)

    def opacities(self, num: int, *, factor: float = 1.0, sigma: float = 0.55) -> Floats:
        """Draw one opacity a mark: log-normal, because most dirt is dim and little of it opaque."""
        opacity = factor * self.median_opacity * np.exp(sigma * self.rng.standard_normal(num))
        return np.clip(opacity, 0.06, 1.0).astype(np.float32)

    def softness(self, num: int) -> Floats:
        """Draw one edge width a mark, in px: some dirt lies above the plane of focus."""
        lifted = self.rng.random(num) < 0.12
        blur = np.where(lifted, self.rng.uniform(1.3, 2.6, num), 1.0)
        return (self.soft_px * blur).astype(np.float32)

    def merge(self, x: NDArray[np.int32], y: NDArray[np.int32], opacity: Floats) -> None:
        """Lay opacities on pixels anywhere in the plane; what leaves one side enters the other.

        Args:
            x: columns, any integers; broadcast with y against opacity.
            y: rows.
            opacity: in [0, 1].
        """
        pixel = np.mod(y, self.size_px) * self.size_px + np.mod(x, self.size_px)
        seen = opacity > 0.002  # less than half a grey level
        np.maximum.at(self.opacity.reshape(-1), pixel[seen], opacity[seen])

    def finish(self) -> NDArray[np.uint8]:
        """Round to 8 bits; pixels without a mark are exactly 0."""
        return np.rint(255.0 * np.clip(self.opacity, 0.0, 1.0)).astype(np.uint8)


def generator(*, seed: int, index: int, size_px: int, family: str) -> np.random.Generator:
    """Make the generator of one texture: a counter-based stream that no other texture shares."""
    # A checksum, not Python's hash: that differs from one process to the next.
    entropy = [seed, index, size_px, zlib.crc32(family.encode())]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def edge(distance_px: Floats, soft_px: Floats | float) -> Floats:
    """Opacity at a signed distance inside an outline: 0 outside, 1 inside, smooth in between."""
    t = np.clip(distance_px / soft_px + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def around(
    x: Floats, y: Floats, half_px: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats, Floats]:
    """Lay a square patch of 2 half_px + 1 pixels about each of M points.

    Returns:
        Columns (M, 1, P) and rows (M, P, 1) of the pixels, and how far right of and below the point
        each lies, px, in the same shapes.
    """
    offset = np.arange(-half_px, half_px + 1, dtype=np.int32)
    column = np.rint(x).astype(np.int32)[:, None, None] + offset[None, None, :]
    row = np.rint(y).astype(np.int32)[:, None, None] + offset[None, :, None]
    # Integers and float32 would make float64.
    dx = column.astype(np.float32) - x[:, None, None]
    dy = row.astype(np.float32) - y[:, None, None]
    return column, row, dx, dy


def groups(size: Floats, *, smallest: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Sort marks by size into few groups, so that each can be drawn as one padded array.

    Args:
        size: one number a mark.
        smallest: the bound of the first group; each next bound is half as large again.

    Yields:
        The bound (an integer, at least every size of the group) and the indices of the marks.
    """
    bound, below = smallest, -np.inf
    largest = float(size.max(initial=-np.inf))
    while below < largest:
        chosen = np.flatnonzero((size > below) & (size <= bound))
        if chosen.size:
            yield bound, chosen
        below, bound = bound, bound + (bound + 1) // 2


def _log_density(rng: np.random.Generator, cells: int) -> Floats:
    """Draw a periodic Gaussian field of zero mean, unit variance: where dirt gathers.

    Power falls with frequency (clumps of all sizes), stretched along one direction as by a wipe.
    """
    fy = np.fft.fftfreq(cells)[:, None] * cells
    fx = np.fft.rfftfreq(cells)[None, :] * cells
    angle = rng.uniform(0.0, np.pi)
    stretch = rng.uniform(1.0, 2.5)
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = fy * np.cos(angle) - fx * np.sin(angle)
    frequency = np.hypot(along * stretch, across / stretch)
    # Above the sheet's size a field cannot repeat; the offset keeps one slow wave from ruling.
    gain = (1.5 + frequency) ** -1.3
    gain[0, 0] = 0.0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((cells, cells))) * gain, (cells, cells))
    return (field / field.std()).astype(np.float32)
