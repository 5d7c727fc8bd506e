"""Augmentation of the clean photo, before it ages: both sides of the pair move and lighten alike.

Random crops, flips and quarter turns are in `crops`; here is what changes pixels: small rotations,
zooms and shifts, bilinear, the photo reflected beyond its borders, and brightness and contrast.
Interpolation softens a picture, so a share of the photographs is left where it is.

Positions are whole numbers of 1 / 2**16 px, so they are the same on every device.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .philox import bits_to_uniform, draw_bits
from .scene import per_pixel
from .types import Images, Keys, Params

Inner: TypeAlias = Float[Tensor, "B C h w"]
"""Pictures without their margin."""

AUGMENT_OP = 0xFFFFFFFC
"""Op number of these draws; no recipe is long enough to reach it."""

FINE = 1 << 16
"""Positions are whole numbers of this part of a pixel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """How much a clean photo is varied; as it stands, not at all."""

    p: float = 0.5
    """Share of the photographs that are rotated, zoomed and moved."""
    rotation_turns: float = 0.0
    """Rotation either way, at most, in full turns; 0.03 is 10.8 degrees."""
    zoom: float = 0.0
    """Enlargement at most; 0.05 shows 1 / 1.05 of the width."""
    translation: float = 0.0
    """Shift either way, at most, along both sides, as a share of the shorter one."""
    brightness: float = 0.0
    """Added or taken, at most, in units of full scale."""
    contrast: float = 0.0
    """Contrast about middle gray, up or down, at most; 0.05 is 0.95 to 1.05."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, most in (
            ("p", 1.0),
            ("rotation_turns", 0.125),
            ("zoom", 1.0),
            ("translation", 0.25),
            ("brightness", 1.0),
            ("contrast", 1.0),
        ):
            value = getattr(self, name)
            if not 0.0 <= value <= most:
                raise ValueError(f"{name} must be from 0 to {most:g}, got {value!r}")

    @property
    def moves(self) -> bool:
        """Whether any photograph is rotated, zoomed or moved."""
        return self.p > 0 and max(self.rotation_turns, self.zoom, self.translation) > 0

    @property
    def tones(self) -> bool:
        """Whether any photograph is made lighter or darker."""
        return max(self.brightness, self.contrast) > 0

    def margin_px(self, side_px: int) -> int:
        """How far beyond a square of `side_px` the pixels that it then shows can lie."""
        if not self.moves:
            return 0
        turned = 2 * math.sin(math.pi * self.rotation_turns) + self.zoom / (1 + self.zoom)
        return math.ceil(turned * side_px / math.sqrt(2) + self.translation * side_px) + 1

    def sample(self, keys: Keys, *, side_px: int) -> Params:
        """Draw the augmentation of each photograph, whose shorter side is `side_px`.

        Returns:
            moved (B,) bool; along and across (B,) int64, cos and sin of the rotation over the zoom,
            in 1 / `FINE`; down and right (B,) int64, in 1 / `FINE` px; lift and gain (B,), of
            x -> (x - 0.5) gain + 0.5 + lift.
        """
        bits = draw_bits(keys, op=AUGMENT_OP, count=7)
        u = bits_to_uniform(bits)
        # Of the upper 24 bits, so that the comparison is exact.
        moved = u[:, 0] < self.p
        either = 2.0 * u - 1.0
        angle = either[:, 1] * (2.0 * math.pi * self.rotation_turns)
        smaller = 1.0 / (1.0 + u[:, 2] * self.zoom)
        shift = FINE * self.translation * side_px
        return {
            "moved": moved,
            "along": (angle.cos() * smaller * FINE).round().long(),
            "across": (angle.sin() * smaller * FINE).round().long(),
            "down": (either[:, 3] * shift).round().long(),
            "right": (either[:, 4] * shift).round().long(),
            "lift": either[:, 5] * self.brightness,
            "gain": 1.0 + either[:, 6] * self.contrast,
        }

    def apply(self, x: Images, params: Params, *, margin_px: int = 0) -> Inner:
        """Vary the photographs; `margin_px` of each side are there to be moved in, and are cut."""
        if self.moves:
            x = move(x, params, margin_px=margin_px)
        elif margin_px:
            x = x[..., margin_px:-margin_px, margin_px:-margin_px]
        return tone(x, params) if self.tones else x


def move(x: Images, params: Params, *, margin_px: int = 0) -> Inner:
    """Rotate, zoom and shift about the centre, bilinear, reflected at the borders.

    Those not `moved` are returned as they are.
    """
    H, W = x.shape[2] - 2 * margin_px, x.shape[3] - 2 * margin_px
    inner = x[..., margin_px : margin_px + H, margin_px : margin_px + W]
    down, right = source_positions(params, H, W)
    grid = torch.stack(
        [
            _normalised(right + margin_px * FINE, x.shape[3]),
            _normalised(down + margin_px * FINE, x.shape[2]),
        ],
        dim=-1,
    )
    moved = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return torch.where(per_pixel(params["moved"]), moved, inner)


def source_positions(params: Params, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return where each pixel comes from: rows and columns (B, H, W) int64, in 1 / `FINE` px."""
    device = params["along"].device
    # Twice the distance from the centre is a whole number.
    y = (2 * torch.arange(height, device=device) - (height - 1))[:, None]
    x = (2 * torch.arange(width, device=device) - (width - 1))[None, :]
    along, across, down, right = (
        params[name][:, None, None] for name in ("along", "across", "down", "right")
    )
    rows = ((along * y - across * x + FINE * (height - 1)) >> 1) + down
    columns = ((across * y + along * x + FINE * (width - 1)) >> 1) + right
    return rows, columns


def tone(x: Images, params: Params) -> Images:
    """Return clip((x - 0.5) gain + 0.5 + lift)."""
    gain, lift = per_pixel(params["gain"]), per_pixel(params["lift"])
    return ((x - 0.5) * gain.to(x.dtype) + 0.5 + lift.to(x.dtype)).clamp(0, 1)


def _normalised(position: Tensor, length: int) -> Tensor:
    # In float64 first: float32 would leave 1e-4 px of a wide picture.
    if position.device.type == "mps":
        return position.float() / (FINE * max(length - 1, 1) / 2) - 1
    return (position.double() / (FINE * max(length - 1, 1) / 2) - 1).float()
