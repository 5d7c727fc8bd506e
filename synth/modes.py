"""Modes: what the network sees, and what it is to answer.

    mode        aged             clean
    grayscale   1 luma           1 luma
    rgb         1 luma           3 sRGB
    lab         1 luma           3 L/100, a/110, b/110 of CIELAB (D65, 2 degrees)
    color       3 sRGB           3 sRGB

Luma is Rec. 601, in [0, 1]. Photographs age first, with their colours; luma is taken afterwards.
"""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from .grayscale import grayscale
from .types import Images, InMode

Mode: TypeAlias = Literal["grayscale", "rgb", "lab", "color"]
MODES: tuple[Mode, ...] = get_args(Mode)

AGED_CHANNELS: dict[Mode, int] = {"grayscale": 1, "rgb": 1, "lab": 1, "color": 3}
CLEAN_CHANNELS: dict[Mode, int] = {"grayscale": 1, "rgb": 3, "lab": 3, "color": 3}

LAB_SCALE = (100.0, 110.0, 110.0)
"""CIELAB units that become 1: sRGB reaches 100 in L, 98.2 in a and 94.5 in b (107.9 below zero)."""

_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
"""D65, seen by the observer of 2 degrees."""
_FOOT = 6 / 29


def check_mode(mode: str) -> Mode:
    """Return `mode`, or raise ValueError with the list of modes."""
    for known in MODES:
        if mode == known:
            return known
    raise ValueError(f"unknown mode {mode!r}; there are: {', '.join(MODES)}")


def aged_in_mode(aged: Images, mode: Mode) -> InMode:
    """Give aged pictures (1 or 3 channels) the channels the network sees."""
    if AGED_CHANNELS[mode] == 1:
        return grayscale(aged)
    return aged.expand(-1, 3, -1, -1)


def clean_in_mode(clean: Images, mode: Mode) -> InMode:
    """Give clean sRGB pictures (B, 3, H, W) the channels that the network is to answer."""
    if mode == "grayscale":
        return grayscale(clean)
    if mode == "lab":
        return _scaled_lab(clean)
    return clean


def _scaled_lab(rgb: Images) -> InMode:
    # Not kornia's rgb_to_lab: on a GPU its matrix is a convolution, by default in TF32, which is
    # off by up to 0.06 in a; and on a CPU it rounds one way or another with the size of the batch.
    r, g, b = _linear(rgb).unbind(1)
    x, y, z = (
        _lab_response((row[0] * r + row[1] * g + row[2] * b) / white)
        for row, white in zip(_XYZ_FROM_RGB, _WHITE, strict=True)
    )
    lab = (116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z))
    return torch.stack([c / scale for c, scale in zip(lab, LAB_SCALE, strict=True)], dim=1)


def _linear(c: Images) -> Images:
    """Undo the transfer function of sRGB (IEC 61966-2-1)."""
    return torch.where(c > 0.04045, _power((c + 0.055) / 1.055, 2.4), c / 12.92)


def _lab_response(t: Tensor) -> Tensor:
    """Take the cube root, with a straight foot (CIE 15:2004, 8.2.1)."""
    return torch.where(t > _FOOT**3, _power(t, 1 / 3), t / (3 * _FOOT**2) + 4 / 29)


def _power(x: Tensor, exponent: float) -> Tensor:
    # Not x**exponent: on a CPU the last few of a tensor's numbers are rounded otherwise.
    return (x.log() * exponent).exp()
