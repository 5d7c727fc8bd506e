"""Whether a photograph has colours of its own, or is a gray one that was toned or has yellowed.

On a toned print or a yellowed scan every tone has one colour: a and b follow from the lightness.
What they differ by from that curve is colour of the picture's own.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Shaped

from ..synth import LAB_SCALE, clean_in_mode

LEAST_CHROMA = 4.5
"""CIELAB units about the curve (root mean square): toned and stained prints stay below it, prints
coloured by hand and most colour photographs are above."""

_THUMBNAIL_PX = 128
_DEGREE = 3


def has_own_colors(pixels: Shaped[np.ndarray, "H W *C"]) -> bool:
    """Tell whether a picture (H, W), (H, W, 1) or (H, W, 3), uint8 or uint16, is in colour."""
    return own_chroma(pixels) > LEAST_CHROMA


def own_chroma(pixels: Shaped[np.ndarray, "H W *C"]) -> float:
    """Return the root mean square of a and b about their means at each lightness, CIELAB units."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return 0.0
    lab = clean_in_mode(_thumbnail(pixels)[None], "lab")[0].flatten(1).double()
    powers = torch.stack([(2 * lab[0] - 1) ** power for power in range(_DEGREE + 1)], 1)
    ab = torch.stack((lab[1] * LAB_SCALE[1], lab[2] * LAB_SCALE[2]), 1)
    # By the pseudo-inverse: of a picture of one tone all powers are alike.
    rest = ab - powers @ (torch.linalg.pinv(powers) @ ab)
    return float(rest.square().sum(1).mean().sqrt())


def _thumbnail(pixels: np.ndarray) -> torch.Tensor:
    """Return (3, h, w) in [0, 1]; averaged, for grain and dust of any colour to go."""
    top = np.iinfo(pixels.dtype).max
    # Every k-th row and column first, of a large picture: enough are left to average.
    step = max(1, max(pixels.shape[:2]) // (8 * _THUMBNAIL_PX))
    few = torch.from_numpy(pixels[::step, ::step].astype(np.float32) / top).permute(2, 0, 1)
    scale = min(1.0, _THUMBNAIL_PX / max(few.shape[1:]))
    size = [max(1, round(side * scale)) for side in few.shape[1:]]
    return F.interpolate(few[None], size=size, mode="area")[0]
