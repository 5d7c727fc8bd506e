"""Periodic noise: random fields that go on at their opposite sides, for what covers a whole sheet.

Drawn as a spectrum and transformed once, which costs some 20 ms at 1024 px whatever the slope.
"""

from collections.abc import Callable

import numpy as np

from .canvas import Floats


def fractal(
    rng: np.random.Generator,
    size_px: int,
    *,
    largest_px: float,
    smallest_px: float = 2.0,
    slope: float = 2.0,
) -> Floats:
    """Draw noise of zero mean and unit variance whose amplitude falls with frequency.

    Args:
        rng: where it comes from.
        size_px: side of the field.
        largest_px: wavelength above which amplitude no longer grows.
        smallest_px: wavelength below which there is nothing.
        slope: amplitude goes with frequency to the minus `slope`; 1 is rugged, 2 like a coast,
            3 smooth.
    """
    low, high = size_px / largest_px, size_px / smallest_px

    def gain(fx: Floats, fy: Floats) -> Floats:
        frequency = np.hypot(fx, fy)
        return np.where(frequency <= high, np.maximum(frequency, low) ** -slope, 0.0)

    return spectral(rng, size_px, gain, highest=high)


def spectral(
    rng: np.random.Generator,
    size_px: int,
    gain: Callable[[Floats, Floats], Floats],
    *,
    highest: float,
) -> Floats:
    """Draw noise of zero mean and unit variance with a given amplitude spectrum.

    Args:
        rng: where it comes from.
        size_px: side of the field.
        gain: amplitude at frequencies to the right and down, in waves a side.
        highest: frequency, in waves a side, above which `gain` is 0; lower is faster.
    """
    top = min(int(np.ceil(highest)), (size_px - 1) // 2)
    fy = np.concatenate([np.arange(top + 1), np.arange(-top, 0)]).astype(np.float32)[:, None]
    fx = np.arange(top + 1, dtype=np.float32)[None, :]
    wave = rng.standard_normal((2 * top + 1, top + 1, 2), np.float32).view(np.complex64)[..., 0]
    wave *= gain(fx, fy).astype(np.float32)
    wave[0, 0] = 0.0
    spectrum = np.zeros((size_px, size_px // 2 + 1), np.complex64)
    spectrum[: top + 1, : top + 1] = wave[: top + 1]
    spectrum[size_px - top :, : top + 1] = wave[top + 1 :]
    field = np.fft.irfft2(spectrum, (size_px, size_px)).astype(np.float32, copy=False)
    return field / max(float(field.std()), 1e-20)


def sigmoid(x: Floats) -> Floats:
    """From 0 to 1, half at 0, without overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * x))).astype(np.float32, copy=False)


def wrapped(distance_px: Floats, size_px: int) -> Floats:
    """Shortest signed distance on a sheet that goes on at its opposite sides."""
    return np.mod(distance_px + 0.5 * size_px, size_px) - 0.5 * size_px
