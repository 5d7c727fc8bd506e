"""The loss of the colour network: cross-entropy with the bins of each pixel's colour.

After Zhang, Isola, Efros (ECCV 2016): soft targets, pixels of rare colours count for more, and
photographs that are nearly gray teach nothing.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..synth.modes import LAB_SCALE
from .ab_bins import num_bins, soft_targets

CELL_PX = 4
"""Pixels of a photograph's side to one of the network's answer."""

NEARLY_GRAY = 5.0
"""Photographs no pixel of which has more |a| or |b| than this are black and white ones."""


def color_loss(
    logits: Float[Tensor, "B Q h w"],
    lab_clean: Float[Tensor, "B 3 H W"],
    inside: Bool[Tensor, "B 1 H W"] | None,
    weights: Float[Tensor, " Q"],
) -> Float[Tensor, " B"]:
    """Return the loss of each photograph, in nats, in float32; nearly gray ones have none.

    Args:
        logits: The network's answer, at a quarter of the resolution.
        lab_clean: The clean photographs, scaled as `synth.modes` does.
        inside: Where the photographs are; None is everywhere.
        weights: Of each bin, see `ab_bins.rebalance_weights`.
    """
    ab, share = average_colors(lab_clean, inside)
    bins, parts = soft_targets(ab)
    entropy = -(parts * logits.float().log_softmax(1).gather(1, bins)).sum(1)
    share = share * ~_nearly_gray(lab_clean, inside)[:, None, None]
    weighted = entropy * weights[bins[:, 0]] * share
    return weighted.sum((1, 2)) / share.sum((1, 2)).clamp(min=1e-6)


def average_colors(
    lab: Float[Tensor, "B 3 H W"], inside: Bool[Tensor, "B 1 H W"] | None
) -> tuple[Float[Tensor, "B 2 h w"], Float[Tensor, "B h w"]]:
    """Average a and b over squares of four pixels' side.

    Returns:
        The mean colour of what is inside, in CIELAB units, and the share of each square that is.
    """
    B, _, H, W = lab.shape
    ab = lab[:, 1:].float()
    there = ab.new_ones((B, 1, H, W)) if inside is None else inside.to(ab.dtype)
    cut = (0, -W % CELL_PX, 0, -H % CELL_PX)
    share = F.avg_pool2d(F.pad(there, cut), CELL_PX)
    means = F.avg_pool2d(F.pad(ab * there, cut), CELL_PX) / share.clamp(min=1e-6)
    return torch.stack([means[:, 0] * LAB_SCALE[1], means[:, 1] * LAB_SCALE[2]], 1), share[:, 0]


def estimate_prior(
    batches: Iterable[tuple[Float[Tensor, "B 3 H W"], Bool[Tensor, "B 1 H W"] | None]],
) -> Float[Tensor, " Q"]:
    """Return how often each bin occurs in photographs, smoothed by the soft targets; sums to 1.

    Args:
        batches: Clean photographs as `color_loss` takes them, and where they are.

    Raises:
        ValueError: If there is no pixel of colour.
    """
    total = torch.zeros(num_bins(), dtype=torch.float64)
    for lab, inside in batches:
        ab, share = average_colors(lab, inside)
        share = share * ~_nearly_gray(lab, inside)[:, None, None]
        bins, parts = soft_targets(ab)
        shares = (parts * share[:, None]).double().cpu()
        total.index_add_(0, bins.flatten().cpu(), shares.flatten())
    if not total.sum() > 0:
        raise ValueError("the photographs have no colours to learn; give coloured ones")
    # A bin that no photograph has would weigh as if it were impossible; one pixel in a million.
    total += 1e-6 * total.sum()
    return (total / total.sum()).float()


def _nearly_gray(
    lab: Float[Tensor, "B 3 H W"], inside: Bool[Tensor, "B 1 H W"] | None
) -> Bool[Tensor, " B"]:
    a, b = lab[:, 1].abs() * LAB_SCALE[1], lab[:, 2].abs() * LAB_SCALE[2]
    most = torch.maximum(a, b)
    if inside is not None:
        most = most * inside[:, 0]
    return most.flatten(1).amax(1) <= NEARLY_GRAY
