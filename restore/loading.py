"""Two networks for one box of photographs: one for photos as they are, one that adds colours.

Adding colours changes nothing else: both restore the luminance alike.
"""

from copy import deepcopy
from dataclasses import replace

import torch

from ..train import LabNet, UNet, net_shape
from .models import shipped_models
from .restorer import Restorer

ADDING_COLORS = ("lab", "rgb")
"""Modes that give colours to photographs that have none, and their own to none."""


def load_restorers(
    model: str, color_model: str | None = None, *, device: str | torch.device = "auto"
) -> tuple[Restorer, Restorer | None]:
    """Load what restores photographs, and what also gives colours to gray ones, if there is any.

    Args:
        model: Of any mode; one that adds colours is for gray photographs alone, and the others are
            restored by its luminance network, or by `grayscale` if it has none.
        color_model: Of mode lab or rgb; if None lab, if that comes with the package.
        device: See `Restorer`.

    Raises:
        ValueError: If a model does not exist, or is of a mode that does not fit.
    """
    restorer = Restorer.from_pretrained(model, device=device)
    if restorer.mode in ADDING_COLORS:
        if color_model is not None:
            raise ValueError(
                f"model {model} is of mode {restorer.mode}, which adds colours already; leave out "
                f"color_model {color_model}, or give a model of mode grayscale or color"
            )
        return with_luminance(restorer)
    name = color_model or ("lab" if "lab" in shipped_models() else None)
    if name is None:
        return restorer, None
    coloring = Restorer.from_pretrained(name, device=device)
    if coloring.mode not in ADDING_COLORS:
        raise ValueError(
            f"color_model must be of mode lab or rgb, got {name} of mode {coloring.mode}"
        )
    luminance = restorer if restorer.mode == "grayscale" else None
    return restorer, with_luminance(coloring, luminance)[1]


def with_luminance(
    coloring: Restorer, luminance: Restorer | None = None, *, compile: bool = False
) -> tuple[Restorer, Restorer]:
    """Return what restores the luminance alone, and what adds colours to the same luminance.

    Args:
        coloring: Of mode lab or rgb.
        luminance: Of mode grayscale; if None the network that comes with `coloring`, or `grayscale`
            if none does.
        compile: See `Restorer.from_pretrained`.
    """
    device = coloring.device
    if luminance is None and isinstance(coloring.net, LabNet) and coloring.net.luminance:
        net = coloring.net.luminance
        card = replace(coloring.card, mode="grayscale", net=net_shape(net))
        luminance = Restorer(net, card, device=device, compile=compile)
    if luminance is None:
        luminance = Restorer.from_pretrained("grayscale", device=device, compile=compile)
    if not isinstance(coloring.net, LabNet):
        return luminance, coloring
    assert isinstance(luminance.net, UNet), "that is what mode grayscale has"
    # A copy: where a GPU is too small, a restorer moves its network to the CPU.
    net = LabNet(coloring.net.color, deepcopy(luminance.net))
    card = replace(coloring.card, net=net_shape(net))
    return luminance, Restorer(net, card, device=device, compile=compile)
