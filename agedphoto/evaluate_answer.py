"""What a network answers to a picture of any size, as 8-bit pictures to be judged."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from agedphoto.evaluate_cases import Levels, luma_levels, to_levels
from agedphoto.restore.colorize import colorize, with_colors
from agedphoto.restore.restorer import AUTO_TILE_PX
from agedphoto.restore.tiles import apply_tiled, overlap_px_for
from agedphoto.synth import Mode
from agedphoto.train import LabNet, UNet


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back."""

    picture: Levels
    """Luma (H, W); in mode `color` sRGB (H, W, 3)."""
    colors: UInt8[np.ndarray, "H W 3"] | None = None
    """sRGB, if the network answers colours and they were asked for."""
    hidden: Float[Tensor, "1 1 H W"] | None = None
    """Logits of the damage mask, if the network tells."""


@torch.no_grad()
def answer(
    net: UNet | LabNet,
    aged: Float[Tensor, "C H W"],
    *,
    mode: Mode,
    device: torch.device,
    colors: bool = True,
    on_tile: Callable[[], object] = lambda: None,
) -> Answer:
    """Ask a network; its input is not clipped, its answer is.

    Args:
        net: In evaluation mode, on `device`.
        aged: On the CPU; one tile at a time goes to the device.
        mode: Of the network.
        device: Where the network is.
        colors: Whether colours are wanted, where they come from a network of their own.
        on_tile: Called after each tile.

    Raises:
        ValueError: If the answer is not finite, or a tile does not fit into the device's memory.
    """
    try:
        if isinstance(net, LabNet):
            return _answer_of_two(net, aged, device, colors, on_tile)
        restored, hidden = _tiled(net, aged, device, on_tile)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"not enough memory on {device}; use --device cpu or --crop-px") from error
    levels = _levels(restored)
    if mode == "grayscale":
        return Answer(picture=levels[:, :, 0], hidden=hidden)
    picture = levels if mode == "color" else luma_levels(levels)
    return Answer(picture=picture, colors=levels, hidden=hidden)


def _answer_of_two(
    net: LabNet,
    aged: Float[Tensor, "1 H W"],
    device: torch.device,
    colors: bool,
    on_tile: Callable[[], object],
) -> Answer:
    """Restore the luma, then have it coloured; the luma is judged before there are colours."""
    luma, hidden = aged, None
    if net.luminance is not None:
        luma, hidden = _tiled(net.luminance, aged, device, on_tile)
    luma_picture = _levels(luma)[:, :, 0]
    if not colors:
        return Answer(picture=luma_picture, hidden=hidden)
    luma = luma.clamp(0, 1)[None]
    ab = colorize(net.color, luma.to(device)).float().cpu()
    on_tile()
    return Answer(picture=luma_picture, colors=_levels(with_colors(luma, ab)[0]), hidden=hidden)


def _tiled(
    net: UNet, aged: Float[Tensor, "C H W"], device: torch.device, on_tile: Callable[[], object]
) -> tuple[Float[Tensor, "D H W"], Float[Tensor, "1 1 H W"] | None]:
    """Return the answer, and the logits of the damage mask if the network has a head for it."""
    stride, has_mask = net.config.stride, getattr(net.config, "mask_head", False)
    overlap = overlap_px_for(net.config)
    wanted = max(AUTO_TILE_PX.get(device.type, 512), 2 * overlap)

    def both(tile: Tensor) -> Tensor:
        return torch.cat(net(tile, with_mask=True), dim=1)

    done = apply_tiled(
        both if has_mask else net,
        aged,
        stride=stride,
        tile_px=-(-wanted // stride) * stride,
        overlap_px=overlap,
        device=device,
        on_tile=on_tile,
    )
    if not bool(done.isfinite().all()):
        raise ValueError("the network's answer is not finite; its training has diverged")
    return (done[:-1], done[None, -1:]) if has_mask else (done, None)


def _levels(picture: Float[Tensor, "C H W"]) -> UInt8[np.ndarray, "H W C"]:
    return to_levels(picture.permute(1, 2, 0).numpy())
