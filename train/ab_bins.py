"""Colour as a choice: the cells of a 10-grid in a and b of CIELAB that sRGB reaches.

A network that answers one colour answers the mean of the likely ones, which is brown; one that
answers how likely each is need not (Zhang, Isola, Efros, "Colorful image colorization", ECCV 2016:
CIC below). There are 261 such cells among the 8-bit colours of sRGB.
"""

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..synth.modes import LAB_SCALE, clean_in_mode

STEP = 10.0
"""Side of a cell, in CIELAB units."""

SIGMA = 5.0
"""Of the Gaussian that spreads a colour over the bins, in CIELAB units (CIC, section 2.1)."""


@cache
def ab_bins() -> Float[Tensor, "Q 2"]:
    """Return the centres of the cells, by a and then by b.

    For every a and b that a colour has, some colour on the surface of the cube of sRGB has them
    too, so its six sides are enough: the same cells as of all 2**24 colours, thirty times faster.
    """
    # Networks are also made without memory for their weights, on device meta.
    with torch.device("cpu"):
        steps = torch.arange(256, dtype=torch.float64) / 255
        first, second = torch.meshgrid(steps, steps, indexing="ij")
        sides = []
        for end in (torch.zeros_like(first), torch.ones_like(first)):
            sides += [(end, first, second), (first, end, second), (first, second, end)]
        lab = clean_in_mode(torch.stack([torch.stack(side) for side in sides]), "lab")
        ab = lab[:, 1:].movedim(1, -1).reshape(-1, 2) * torch.tensor(LAB_SCALE[1:])
        return (ab / STEP).round().unique(dim=0).float() * STEP


def num_bins() -> int:
    """Return Q, how many bins there are."""
    return len(ab_bins())


def soft_targets(
    ab: Float[Tensor, "B 2 h w"],
) -> tuple[Int[Tensor, "B N h w"], Float[Tensor, "B N h w"]]:
    """Spread colours over the bins near them by a Gaussian of their distance.

    Near are the bins nearest to the middle of the colour's cell: for most colours the square of
    five by five around it. All others together would have a thousandth of the weight.

    Args:
        ab: CIELAB units.

    Returns:
        The numbers of the bins, and their shares, which sum to 1.
    """
    ab = ab.float()
    near = _nearest(ab.device)[_cell_of(ab)].movedim(-1, 1)
    centres = ab_bins_on(ab.device)[near]
    distance = (centres[..., 0] - ab[:, :1]).square() + (centres[..., 1] - ab[:, 1:]).square()
    return near, (distance * (-0.5 / SIGMA**2)).softmax(1)


def nearest_bins(ab: Float[Tensor, "B 2 h w"]) -> Int[Tensor, "B h w"]:
    """Return the number of the cell that holds each colour.

    Means of several colours may lie in a cell that no colour lies in: those get a near one.
    """
    return _nearest(ab.device)[_cell_of(ab), 0]


def rebalance_weights(prior: Float[Tensor, " Q"], mix: float = 0.5) -> Float[Tensor, " Q"]:
    """Return 1 / ((1 - mix) prior + mix / Q), scaled so that sum(prior * weight) is 1 (CIC, eq. 4).

    Args:
        prior: How often each bin occurs; sums to 1.
        mix: 0 weighs every bin by its rarity, 1 weighs all the same.
    """
    if not 0 <= mix <= 1:
        raise ValueError(f"mix must be in [0, 1], got {mix}; 0.5 is CIC's")
    weights = 1 / ((1 - mix) * prior + mix / prior.shape[0])
    return weights / (prior * weights).sum()


def decode(
    logits: Float[Tensor, "B Q h w"],
    weights: Float[Tensor, " Q"],
    temperature: float = 0.38,
    undo: float = 0.5,
) -> Float[Tensor, "B 2 h w"]:
    """Return the annealed mean of the bins (CIC, eq. 5), in CIELAB units.

    Args:
        logits: What the network says.
        weights: By which its loss was rebalanced.
        temperature: 1 is the mean, which is grayish; towards 0 the likeliest bin alone, vivid and
            in patches.
        undo: Share of the rebalancing that is taken back: 0 is colourful and often wrong, 1 careful
            and brown.

    Raises:
        ValueError: If the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; 0.38 is CIC's")
    scores = logits.float() - undo * weights.float().log()[:, None, None]
    return mean_of_bins((scores / temperature).softmax(1))


def mean_of_bins(shares: Float[Tensor, "B Q h w"]) -> Float[Tensor, "B 2 h w"]:
    """Return the mean colour of bins that have these shares, in CIELAB units."""
    # A sum of products, not a convolution: those may round to TF32 on a GPU.
    a, b = ab_bins_on(shares.device).to(shares.dtype).mT[:, :, None, None]
    return torch.stack(((shares * a).sum(1), (shares * b).sum(1)), 1)


def ab_bins_on(device: torch.device) -> Float[Tensor, "Q 2"]:
    """Return the centres on a device; kept there, for copying them would make the host wait."""
    return _tables(device)[0]


_NEAR = 25
_REACH = 11
"""Cells on either side of gray; sRGB has |a| and |b| up to 107.9."""


def _cell_of(ab: Tensor) -> Tensor:
    cell = (ab / STEP).round().clamp(-_REACH, _REACH).long() + _REACH
    return cell[:, 0] * (2 * _REACH + 1) + cell[:, 1]


def _nearest(device: torch.device) -> Int[Tensor, "cells _NEAR"]:
    """Return the numbers of the bins nearest to the middle of each cell, nearest first."""
    return _tables(device)[1]


@cache
def _make_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what `ab_bins_on` and `_nearest` do."""
    axis = torch.arange(-_REACH, _REACH + 1) * STEP
    distance = torch.cdist(torch.cartesian_prod(axis, axis), ab_bins())
    nearest = distance.argsort(dim=1, stable=True)[:, :_NEAR]
    return ab_bins().to(device), nearest.to(device)


# Compiled code calls it: it would look inside, past the cache, and make the tables in every step.
_tables = cast(
    Callable[[torch.device], tuple[Tensor, Tensor]], torch.compiler.disable(_make_tables)
)
