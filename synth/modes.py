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
from kornia.color import rgb_to_lab

from .grayscale import grayscale
from .types import Images, InMode

Mode: TypeAlias = Literal["grayscale", "rgb", "lab", "color"]
MODES: tuple[Mode, ...] = get_args(Mode)

AGED_CHANNELS: dict[Mode, int] = {"grayscale": 1, "rgb": 1, "lab": 1, "color": 3}
CLEAN_CHANNELS: dict[Mode, int] = {"grayscale": 1, "rgb": 3, "lab": 3, "color": 3}

LAB_SCALE = (100.0, 110.0, 110.0)
"""CIELAB units that become 1: sRGB reaches 100 in L, 98.3 in a and 94.5 in b (107.9 below zero)."""


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
        # In float32: the cube root of CIELAB loses the shadows in half precision.
        lab = rgb_to_lab(clean.to(torch.float32))
        return (lab / lab.new_tensor(LAB_SCALE)[:, None, None]).to(clean.dtype)
    return clean
