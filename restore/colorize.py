"""Colours for a gray picture: a small copy of the whole picture is coloured, the colours enlarged.

    luma -> thumbnails of two sizes, and mirrored -> how likely each colour is, averaged
         -> smoothed along the luma -> colours -> enlarged along the luma -> within the gamut

What a network answers depends on the size at which it sees a picture, and one size is not right for
all; the mean of several answers has fewer blotches. Eyes see little of the sharpness of colours, so
a thumbnail holds enough of them; the luma says where they end (guided filter: He, Sun, Tang, IEEE
TPAMI 2013; its coefficients enlarged: He, Sun, "Fast guided filter", 2015).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..train.ab_bins import decode
from ..train.color_metrics import lab_to_linear, lab_to_srgb, lightness
from ..train.colornet import ColorNet

SIZES = (1.0, 1.5)
"""Long sides of the thumbnails, in those of the pictures that the network learned from."""
MOST_PX = 512
"""No thumbnail is larger: networks know things by their size, and learn from smaller pictures."""
TEMPERATURE = 0.38
UNDO = 0.5
"""Of `ab_bins.decode`."""

_POSTERIOR_RADIUS = 2
_COLOR_RADIUS_PX = 4
"""Of the guided filters, in pixels of the answer and of the thumbnail."""
_POSTERIOR_EPS = _COLOR_EPS = 1e-3
"""In luma squared: edges of the luma by less than the root of it do not stop a colour."""

_STRIP_PX = 1 << 20


@dataclass(frozen=True, slots=True)
class Colors:
    """The colours of pictures, found once, to be enlarged rows by rows."""

    slope: Float[Tensor, "B 2 h w"]
    """Of a and b (CIELAB units) over the luma, at the size of the thumbnail."""
    offset: Float[Tensor, "B 2 h w"]
    """Of a and b."""
    size: tuple[int, int]
    """Height and width of the pictures."""

    def enlarge(self, luma: Float[Tensor, "B 1 H W"], *, top: int = 0) -> Float[Tensor, "B 2 H W"]:
        """Return a and b for rows of the pictures, such that sRGB has the colours.

        Args:
            luma: Of these rows; the first of them is row `top` of the picture.
            top: Which row that is.
        """
        coefficients = torch.cat((self.slope, self.offset), 1).to(luma.device)
        return _enlarge(coefficients, luma, height=self.size[0], top=top)


def colorize(
    net: ColorNet,
    luma: Float[Tensor, "B 1 H W"],
    *,
    sizes_px: Sequence[int] | None = None,
    temperature: float = TEMPERATURE,
    undo: float = UNDO,
    saturation: float = 1.0,
) -> Float[Tensor, "B 2 H W"]:
    """Return a and b for gray pictures, in CIELAB units, such that sRGB has the colours.

    Args:
        net: As of `find_colors`.
        luma: As of `find_colors`.
        sizes_px: As of `find_colors`.
        temperature: As of `find_colors`.
        undo: As of `find_colors`.
        saturation: As of `find_colors`.

    Returns:
        Float32, on the device of `luma`. Nothing else is as large as the pictures.

    Raises:
        ValueError: If an argument is not as described.
    """
    luma = luma.float()
    colors = find_colors(
        net,
        luma,
        sizes_px=sizes_px,
        temperature=temperature,
        undo=undo,
        saturation=saturation,
    )
    return colors.enlarge(luma)


@torch.no_grad()
def find_colors(
    net: ColorNet,
    luma: Float[Tensor, "B 1 H W"],
    *,
    sizes_px: Sequence[int] | None = None,
    temperature: float = TEMPERATURE,
    undo: float = UNDO,
    saturation: float = 1.0,
) -> Colors:
    """Find the colours of gray pictures on thumbnails of them.

    Args:
        net: A trained colour network, in evaluation mode.
        luma: Rec. 601 luma of the pictures, in [0, 1]; on any device.
        sizes_px: Long sides of the thumbnails; smaller pictures are not enlarged. None is once and
            one and a half times the size that the network learned from.
        temperature: Lower is more vivid and has more patches, see `ab_bins.decode`.
        undo: 0 is more colourful, 1 more careful, see `ab_bins.decode`.
        saturation: What a and b are multiplied by; 0 is gray.

    Raises:
        ValueError: If an argument is not as described.
    """
    if sizes_px is None:
        sizes_px = tuple(min(MOST_PX, round(size * net.config.long_side_px)) for size in SIZES)
    _check(net, luma, sizes_px, temperature, saturation)
    device = next(net.parameters()).device
    H, W = luma.shape[-2:]
    sizes = sorted({_thumbnail_size(H, W, size) for size in sizes_px})
    small = [F.interpolate(luma, size=size, mode="area").float().to(device) for size in sizes]
    guide = small[-1]
    posterior = _posterior(net, small)
    ab = decode(posterior.clamp(min=1e-12).log(), net.rebalance_weights(), temperature, undo)
    ab = F.interpolate(ab, size=guide.shape[-2:], mode="bilinear")
    slope, offset = guided_coefficients(guide, ab, radius=_COLOR_RADIUS_PX, eps=_COLOR_EPS)
    return Colors(saturation * slope, saturation * offset, (H, W))


def with_colors(
    luma: Float[Tensor, "B 1 H W"], ab: Float[Tensor, "B 2 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """Give gray pictures colours, in CIELAB units; return sRGB, as light as the gray is."""
    return lab_to_srgb(torch.cat([lightness(luma), ab], dim=1))


def clip_chroma(
    ab: Float[Tensor, "B 2 H W"], L: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B 2 H W"]:
    """Bring colours that sRGB does not have nearer to gray, with their hue and lightness."""
    hue = torch.atan2(ab[:, 1], ab[:, 0])
    most = _most_chroma(ab.device)
    levels, hues = most.shape[0] - 1, most.shape[1] - 1
    place = torch.stack((hue / math.pi, L[:, 0].clamp(0, 100) / 50 - 1), -1)
    # Corners aligned: the first and the last column are the same hue.
    table = most.expand(len(ab), 1, levels + 1, hues + 1)
    limit = F.grid_sample(table, place, mode="bilinear", padding_mode="border", align_corners=True)
    # Not vector_norm: along a dimension that is not the last one it takes ten times as long.
    chroma = torch.hypot(ab[:, :1], ab[:, 1:])
    return ab * (limit / chroma.clamp(min=1e-6)).clamp(max=1)


def guided_coefficients(
    guide: Float[Tensor, "B 1 H W"], x: Float[Tensor, "B C H W"], *, radius: int, eps: float
) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C H W"]]:
    """Return slope and offset such that slope * guide + offset is x, smooth but for the guide.

    The guided filter of He, Sun and Tang (2013), equations 5, 6 and 8.

    Args:
        guide: One channel.
        x: What to filter.
        radius: Of the square windows, in pixels.
        eps: Variance of the guide from which on it counts as an edge.
    """
    mean_guide, mean_x = box_mean(guide, radius), box_mean(x, radius)
    variance = (box_mean(guide * guide, radius) - mean_guide * mean_guide).clamp(min=0)
    slope = (box_mean(guide * x, radius) - mean_guide * mean_x) / (variance + eps)
    return box_mean(slope, radius), box_mean(mean_x - slope * mean_guide, radius)


def box_mean(x: Float[Tensor, "B C H W"], radius: int) -> Float[Tensor, "B C H W"]:
    """Average over the square around each pixel, as far as it lies within the picture."""
    for side in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        margin = (side[0] // 2, side[1] // 2)
        x = F.avg_pool2d(x, side, stride=1, padding=margin, count_include_pad=False)
    return x


def _posterior(net: ColorNet, small: list[Tensor]) -> Tensor:
    """Return how likely each bin is (B, Q, h, w), at a quarter of the largest thumbnail."""
    size = [side // 4 for side in small[-1].shape[-2:]]
    total = torch.zeros((), device=small[-1].device)
    for picture in small:
        both = net(picture).softmax(1) + net(picture.flip(-1)).softmax(1).flip(-1)
        total = total + F.interpolate(both, size=size, mode="bilinear")
    guide = F.interpolate(small[-1], size=size, mode="area")
    slope, offset = guided_coefficients(
        guide, total / (2 * len(small)), radius=_POSTERIOR_RADIUS, eps=_POSTERIOR_EPS
    )
    return (slope * guide + offset).clamp(min=0)


def _enlarge(coefficients: Tensor, luma: Tensor, *, height: int, top: int) -> Tensor:
    """Enlarge slopes and offsets (B, 4, h, w) and apply them to the luma, within the gamut."""
    B, _, H, W = luma.shape
    ab = luma.new_empty((B, 2, H, W))
    # In strips of rows: enlarged in one piece, the coefficients alone would be four pictures.
    left, right, across = _between(coefficients.shape[3], W, luma.device)
    above, below, down = (
        place[top : top + H] for place in _between(coefficients.shape[2], height, luma.device)
    )
    rows = max(1, _STRIP_PX // (B * W))
    for first in range(0, H, rows):
        part = slice(first, first + rows)
        wide = torch.lerp(
            coefficients[:, :, above[part]], coefficients[:, :, below[part]], down[part, None]
        )
        fine = torch.lerp(wide[..., left], wide[..., right], across)
        strip = luma[:, :, part]
        ab[:, :, part] = clip_chroma(fine[:, :2] * strip + fine[:, 2:], lightness(strip))
    return ab


def _between(small: int, large: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return each large pixel's two neighbours among the small ones, and how far it is between."""
    place = (torch.arange(large, device=device) + 0.5) * (small / large) - 0.5
    place = place.clamp(0, small - 1)
    first = place.floor().long()
    return first, (first + 1).clamp(max=small - 1), place - first


def _thumbnail_size(height: int, width: int, long_side_px: int) -> tuple[int, int]:
    """Keep the aspect to within two pixels: every pixel of the answer is four of the thumbnail."""
    scale = min(1.0, long_side_px / max(height, width)) / 4
    return 4 * max(1, round(height * scale)), 4 * max(1, round(width * scale))


@cache
def _most_chroma(device: torch.device) -> Tensor:
    """Return the largest chroma that sRGB has, by L from 0 to 100 and hue from -pi to pi."""
    L = torch.linspace(0, 100, 201, dtype=torch.float64)[:, None].expand(-1, 721)
    hue = torch.linspace(-math.pi, math.pi, 721, dtype=torch.float64)
    inside, outside = torch.zeros_like(L), torch.full_like(L, 140.0)
    for _ in range(20):
        chroma = (inside + outside) / 2
        linear = lab_to_linear(torch.stack((L, chroma * hue.cos(), chroma * hue.sin()))[None])[0]
        # Black and white are a rounding error away from the gamut's end themselves.
        there = ((linear >= -1e-5) & (linear <= 1 + 1e-5)).all(0)
        inside, outside = torch.where(there, chroma, inside), torch.where(there, outside, chroma)
    return inside.float().to(device)


def _check(
    net: ColorNet, luma: Tensor, sizes_px: Sequence[int], temperature: float, saturation: float
) -> None:
    if net.training:
        raise ValueError("the network is training; call net.eval() first")
    if luma.ndim != 4 or luma.shape[1] != 1 or not luma.numel():
        raise ValueError(f"luma must be (B, 1, H, W), got {tuple(luma.shape)}")
    if not sizes_px or min(sizes_px) < 16 or max(sizes_px) > MOST_PX:
        raise ValueError(
            f"sizes_px must be one or more of 16 to {MOST_PX}, got {tuple(sizes_px)}; "
            f"leave it out for {SIZES[0]:g} and {SIZES[1]:g} times what the network learned from"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0, got {temperature}; try {TEMPERATURE}")
    if not 0 <= saturation < math.inf:
        raise ValueError(f"saturation must be at least 0, got {saturation}; 1 is as answered")
