r"""The network: a residual UNet of plain convolutions, without biases and without normalisation.

    aged -> pixel-unshuffle -> convolution -> [residual blocks, halve] ... -> middle
         -> [double, add the skip, residual blocks] ... -> convolution -> pixel-shuffle -> + aged
                                                     \-> convolution -> pixel-shuffle -> damage mask

Bias-free, so that scaling the input scales the output and noise levels never seen still work
(Mohan et al., "Robust and interpretable blind image denoising via bias-free convolutional neural
networks", ICLR 2020; as DRUNet, Zhang et al. 2021). The unshuffle stem does the first level's work
at half resolution (FFDNet, Zhang et al. 2018). The head of the mask alone has a bias, for damage is
rare whatever the exposure; restoring does not pass through it. There is no operation over the whole
picture, so a picture may be restored in tiles.
"""

import itertools
from dataclasses import dataclass
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

MASK_PRIOR_LOGIT = -4.0
"""Of the untrained mask: 2 % of the picture, about what the recipes hide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """Shape of the network."""

    in_channels: int = 1
    """Channels of the aged picture."""
    out_channels: int = 1
    """Channels of the answer."""
    residual_channels: int = 1
    """How many channels of the answer the aged picture is added to, from the first on."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Feature channels of each level, finest first; every further level halves the resolution."""
    blocks: int = 2
    """Residual blocks of each level on the way down, and again on the way up."""
    middle_blocks: int = 4
    """Residual blocks at the coarsest level."""
    unshuffle: int = 2
    """Side of the square of pixels that the stem turns into channels; 1 keeps full resolution."""
    mask_head: bool = False
    """Whether a second head tells where damage hides the picture."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("in_channels", "out_channels", "middle_blocks", "unshuffle"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.blocks < 0:
            raise ValueError(f"blocks must be at least 0, got {self.blocks}")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be one or more positive numbers, got {self.widths}")
        if not 0 <= self.residual_channels <= self.out_channels:
            raise ValueError(
                f"residual_channels must be 0 to {self.out_channels} (out_channels), "
                f"got {self.residual_channels}"
            )

    @property
    def stride(self) -> int:
        """Pixels of the input to one of the coarsest level; inputs are padded to a multiple."""
        return self.unshuffle * 2 ** (len(self.widths) - 1)


PRESETS: dict[str, UNetConfig] = {
    "tiny": UNetConfig(widths=(32, 64, 96), blocks=1, middle_blocks=2),
    "base": UNetConfig(widths=(48, 96, 192, 256), blocks=2, middle_blocks=2),
    "large": UNetConfig(widths=(64, 128, 256, 512), blocks=2, middle_blocks=4),
}


def find_preset(name: str) -> UNetConfig:
    """Return a preset, or raise ValueError with the list of presets."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


class UNet(nn.Module):
    """Restores pictures of any size."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, square = config.widths, config.unshuffle**2
        self.stem = _conv3(config.in_channels * square, widths[0])
        self.down = nn.ModuleList(_blocks(width, config.blocks) for width in widths[:-1])
        self.shrink = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2, bias=False)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.middle = _blocks(widths[-1], config.middle_blocks)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(_blocks(width, config.blocks) for width in widths[:-1])
        self.tail = _conv3(widths[0], config.out_channels * square)
        # The untrained network returns its input: training starts from "do nothing".
        nn.init.zeros_(self.tail.weight)
        if config.mask_head:
            self.mask_tail = nn.Conv2d(widths[0], square, 3, padding=1)
            nn.init.zeros_(self.mask_tail.weight)
            nn.init.constant_(self.mask_tail.bias, MASK_PRIOR_LOGIT)  # type: ignore[arg-type]

    @overload
    def forward(self, aged: Tensor, *, with_mask: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, aged: Tensor, *, with_mask: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, aged: Float[Tensor, "B C H W"], *, with_mask: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Restore.

        Args:
            aged: Pictures of any size.
            with_mask: Also tell where the damage is.

        Returns:
            The restored pictures (B, D, H, W), not clipped; `with_mask` also the logits of the
            damage mask (B, 1, H, W).

        Raises:
            ValueError: If a mask is asked of a network that has no head for it.
        """
        if with_mask and not self.config.mask_head:
            raise ValueError("this network has no mask head; it was trained with mask_weight 0")
        height, width = aged.shape[-2:]
        padded = pad_to_multiple(aged, self.config.stride)
        x = self.stem(F.pixel_unshuffle(padded, self.config.unshuffle))
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            x = blocks(x)
            skips.append(x)
            x = shrink(x)
        x = self.middle(x)
        for blocks, grow in zip(self.up[::-1], self.grow[::-1], strict=True):
            x = blocks(grow(x) + skips.pop())
        change = F.pixel_shuffle(self.tail(x), self.config.unshuffle)[..., :height, :width]
        restored = self._add_input(change, aged)
        if not with_mask:
            return restored
        logits = F.pixel_shuffle(self.mask_tail(x), self.config.unshuffle)
        return restored, logits[..., :height, :width]

    @property
    def num_parameters(self) -> int:
        """Weights of the network."""
        return sum(weight.numel() for weight in self.parameters())

    def _add_input(self, change: Tensor, aged: Tensor) -> Tensor:
        kept = self.config.residual_channels
        if kept == 0:
            return change
        if kept == change.shape[1]:
            return change + aged
        return torch.cat([change[:, :kept] + aged, change[:, kept:]], dim=1)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv3(width, width)
        self.second = _conv3(width, width)
        # Without normalisation, blocks that start as the identity keep deep networks trainable
        # (Zhang, Dauphin, Ma, "Fixup initialization", ICLR 2019).
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels as came in."""
        return x + self.second(F.relu(self.first(x)))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Continue the picture to the right and below, mirrored where it is large enough to mirror."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not (below or right):
        return x
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, below), mode=mode)


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
