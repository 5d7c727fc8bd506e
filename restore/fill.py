"""Holes filled from around them, smoothly: what the network then goes on from.

Push and pull (Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.4): averages of what is
known are pushed to ever coarser grids until there are no holes, and pulled back into them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def fill(picture: Float[Tensor, "C H W"], holes: Bool[Tensor, "H W"]) -> Float[Tensor, "C H W"]:
    """Return the picture with its holes filled; all else is as it was.

    Where nothing is known at all, the picture comes back as it is.
    """
    known = (~holes).to(picture.dtype)[None]
    if not known.any():
        return picture
    filled = _push_pull((picture * known)[None], known[None])[0]
    return torch.where(holes, filled, picture)


def _push_pull(weighted: Tensor, weight: Tensor) -> Tensor:
    """Return (1, C, H, W) without holes; `weighted` is the picture times its weight in [0, 1]."""
    H, W = weight.shape[-2:]
    if bool((weight == 1).all()) or max(H, W) == 1:
        return weighted / weight.clamp(min=1e-12)
    mean, share = _halve(weighted), _halve(weight)
    # One known pixel of four is enough to know a coarser one.
    coarse_weight = (4 * share).clamp(max=1)
    coarse = _push_pull(mean / share.clamp(min=1e-12) * coarse_weight, coarse_weight)
    # Bilinear: nearest leaves squares.
    around = F.interpolate(coarse, size=(H, W), mode="bilinear")
    return weighted + (1 - weight) * around


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
