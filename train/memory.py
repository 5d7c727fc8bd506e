"""How much memory a training takes, found out without any: the step is run on shapes alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .colornet import ColorNet
from .unet import UNet

BYTES_A_WEIGHT = 4 * (1 + 1 + 2 + 1)
"""float32 weights, gradients, two moments and the average."""

SPARE = 1.25
"""Of what is kept for the backward pass, for what comes and goes besides: workspaces, gradients of
activations, fragments."""


def training_bytes(
    make_net: Callable[[], nn.Module], *, batch_size: int, side_px: int, bf16: bool
) -> tuple[int, int]:
    """Return the bytes that training takes whatever the batch, and those of `batch_size` pairs.

    Args:
        make_net: Makes the network.
        batch_size: Pairs at a time.
        side_px: Side of the squares.
        bf16: Activations take two bytes, not four.
    """
    with torch.device("meta"):
        net = make_net()
        dtype = torch.bfloat16 if bf16 else torch.float32
        net = net.to(dtype)
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            # Once for each storage: views of one are one.
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        weights = {weight.untyped_storage()._cdata for weight in net.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            if isinstance(net, ColorNet):
                answer = net(torch.empty(batch_size, 1, side_px, side_px, dtype=dtype))
                outputs = answer.numel()
            else:
                assert isinstance(net, UNet)
                aged = torch.empty(
                    batch_size, net.config.in_channels, side_px, side_px, dtype=dtype
                )
                if net.config.mask_head:
                    answer = net(aged, with_mask=True)
                    outputs = sum(one.numel() for one in answer)
                else:
                    answer = net(aged)
                    outputs = answer.numel()
            activations = sum(
                tensor.untyped_storage().nbytes()
                for number, tensor in kept.items()
                if number not in weights
            )
            del answer
    fixed = BYTES_A_WEIGHT * sum(weight.numel() for weight in net.parameters())
    # The loss works in float32, on the answer and on what it is compared with.
    return fixed, int(SPARE * activations) + 4 * 4 * outputs


def largest_batch(
    make_net: Callable[[], nn.Module], *, side_px: int, bf16: bool, free_bytes: int
) -> int:
    """Return how many pairs at a time fit into memory; 0 if not even one does."""

    def fits(batch_size: int) -> bool:
        taken = training_bytes(make_net, batch_size=batch_size, side_px=side_px, bf16=bf16)
        return sum(taken) <= free_bytes

    # By trial: some of what is kept, statistics of normalisation, is the same for any batch.
    fitting, too_large = 0, 1
    while fits(too_large):
        fitting, too_large = too_large, 2 * too_large
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        fitting, too_large = (middle, too_large) if fits(middle) else (fitting, middle)
    return fitting
