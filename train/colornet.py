"""The colour network: whole small pictures of luma in, how likely every colour is at a quarter out.

    luma -> pixel-unshuffle -> 1/2 -> 1/4 -> 1/8 -> 1/16, attention -> 1/8 -> 1/4 -> bins

Residual convolutions with skips that are added, as `unet.py`; BatchNorm below half resolution, and
self-attention at a sixteenth, for what a thing is depends on what is around it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..synth.philox import draw_uniform
from ..synth.types import Keys
from .ab_bins import num_bins, rebalance_weights
from .unet import pad_to_multiple

DROPOUT_OP = 0xFFFFFFFA
"""Philox op of dropout; those of `augment` and `crops` are next to it, recipes count from 0."""

_LEVELS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorNetConfig:
    """Shape of the colour network."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Feature channels at 1/2, 1/4, 1/8 and 1/16 of the resolution."""
    blocks: tuple[int, ...] = (1, 2, 2, 2)
    """Residual blocks at these levels, on the way down."""
    up_blocks: int = 1
    """Residual blocks at 1/8 and at 1/4, on the way up."""
    attention_blocks: int = 2
    """Blocks of self-attention at 1/16, each followed by a residual block."""
    heads: int = 4
    """Attention heads; they divide the last width."""
    dropout: float = 0.1
    """Share of the channels at 1/16 that training leaves out."""
    rebalance_mix: float = 0.5
    """How much of a uniform prior is mixed in before rare colours are given more weight."""
    long_side_px: int = 192
    """Long side of the pictures it learns from; it colours best what it sees at about this size."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("widths", "blocks"):
            values = getattr(self, name)
            if len(values) != _LEVELS or min(values) < (name == "widths"):
                raise ValueError(
                    f"{name} must be {_LEVELS} numbers, for 1/2, 1/4, 1/8 and 1/16 of the "
                    f"resolution, got {values}"
                )
        for name in ("up_blocks", "attention_blocks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.long_side_px < self.stride:
            raise ValueError(
                f"long_side_px must be at least {self.stride} (stride), got {self.long_side_px}"
            )
        if self.heads < 1 or self.widths[-1] % self.heads:
            raise ValueError(f"heads must divide {self.widths[-1]} (last width), got {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}; try 0.1")
        if not 0 <= self.rebalance_mix <= 1:
            raise ValueError(
                f"rebalance_mix must be in [0, 1], got {self.rebalance_mix}; 0.5 is CIC's"
            )

    @property
    def stride(self) -> int:
        """Pixels of the input to one of the coarsest level; inputs are padded to a multiple."""
        return 2**_LEVELS


COLOR_PRESETS: dict[str, ColorNetConfig] = {
    "tiny": ColorNetConfig(
        widths=(16, 32, 64, 128),
        blocks=(1, 1, 1, 1),
        attention_blocks=1,
        heads=4,
        dropout=0.2,
        long_side_px=128,
    ),
    "base": ColorNetConfig(
        widths=(32, 64, 128, 320), blocks=(1, 2, 2, 1), attention_blocks=2, heads=5
    ),
    "large": ColorNetConfig(
        widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), attention_blocks=2, heads=8
    ),
}


class ColorNet(nn.Module):
    """Says how likely each ab bin is, for pictures of any size."""

    prior: Tensor
    """How often each bin occurs in the photographs of training (Q,)."""

    def __init__(self, config: ColorNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            _blocks(width, count, norm=level > 0)
            for level, (width, count) in enumerate(zip(widths, config.blocks, strict=True))
        )
        self.shrink = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[level], widths[level + 1], 2, stride=2, bias=False),
                nn.BatchNorm2d(widths[level + 1]),
            )
            for level in range(_LEVELS - 1)
        )
        self.attention = nn.ModuleList(
            AttentionBlock(widths[-1], config.heads) for _ in range(config.attention_blocks)
        )
        self.after = nn.ModuleList(
            ColorBlock(widths[-1], norm=True) for _ in range(config.attention_blocks)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2) for level in (2, 1)
        )
        self.up = nn.ModuleList(
            _blocks(widths[level], config.up_blocks, norm=True) for level in (2, 1)
        )
        self.head_norm = nn.BatchNorm2d(widths[1])
        self.head = nn.Conv2d(widths[1], num_bins(), 1)
        # Untrained, every bin is as likely as every other.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.register_buffer("prior", torch.full((num_bins(),), 1 / num_bins()))

    def forward(
        self,
        luma: Float[Tensor, "B 1 H W"],
        *,
        inside: Bool[Tensor, "B 1 H W"] | None = None,
        dropout: Float[Tensor, "B C"] | None = None,
    ) -> Float[Tensor, "B Q h w"]:
        """Return logits at a quarter of the resolution, rounded up.

        Args:
            luma: In [0, 1].
            inside: Where the pictures are; what lies outside does not change what is inside. None
                is everywhere.
            dropout: What each channel at 1/16 is multiplied by, see `keyed_dropout`; None keeps
                all as they are.
        """
        H, W = luma.shape[-2:]
        x = luma - 0.5
        ignored = None
        if inside is not None:
            x = x * inside
            ignored = _ignored_tokens(inside, self.config.stride, x.dtype)
        x = self.stem(F.pixel_unshuffle(pad_to_multiple(x, self.config.stride), 2))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
            x = blocks(x)
            skips.append(x)
        for attend, block in zip(self.attention, self.after, strict=True):
            x = block(attend(x, ignored))
        if dropout is not None:
            x = x * dropout.to(x.dtype)[:, :, None, None]
        for grow, blocks, skip in zip(self.grow, self.up, (skips[2], skips[1]), strict=True):
            x = blocks(grow(x) + skip)
        logits = self.head(F.relu(self.head_norm(x)))
        return logits[..., : -(-H // 4), : -(-W // 4)]

    def rebalance_weights(self) -> Float[Tensor, " Q"]:
        """Return what the loss multiplies pixels of each bin by."""
        return rebalance_weights(self.prior, self.config.rebalance_mix)

    @property
    def stride(self) -> int:
        """Pixels of the input to one of the coarsest level."""
        return self.config.stride

    @property
    def num_parameters(self) -> int:
        """Weights of the network."""
        return sum(weight.numel() for weight in self.parameters())


def keyed_dropout(keys: Keys, channels: int, p: float) -> Float[Tensor, "B channels"]:
    """Draw what to multiply channels by: 0 with probability p, otherwise 1 / (1 - p).

    A function of the keys of the pairs alone, so that it is the same in any batch, on any rank and
    after any resume.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p must be in [0, 1), got {p}; try 0.1")
    kept = draw_uniform(keys, op=DROPOUT_OP, count=channels) >= p
    return kept.float() / (1 - p)


class ColorBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), see He et al., "Identity mappings", ECCV 2016."""

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=not norm)
        self.second_norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels as came in."""
        y = self.first(F.relu(self.first_norm(x)))
        return x + self.second(F.relu(self.second_norm(y)))


class AttentionBlock(nn.Module):
    """x + attention(norm(x)) between all places of a picture."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.BatchNorm2d(width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, ignored: Tensor | None) -> Tensor:
        """Attend to all places but those whose `ignored` (B, places) is far below 0."""
        _, C, H, W = x.shape
        tokens = self.query_key_value(self.norm(x)).flatten(2).mT
        q, k, v = tokens.unflatten(2, (3, self.heads, C // self.heads)).permute(2, 0, 3, 1, 4)
        bias = None if ignored is None else ignored[:, None, None].to(q.dtype)
        if bias is not None:
            bias = bias.expand(-1, self.heads, H * W, -1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return x + self.out(y.transpose(1, 2).flatten(2).mT.unflatten(2, (H, W)))


def _ignored_tokens(inside: Tensor, stride: int, dtype: torch.dtype) -> Tensor:
    """Return (B, places), 0 where a token sees anything of the picture."""
    H, W = inside.shape[-2:]
    there = F.pad(inside.to(dtype), (0, -W % stride, 0, -H % stride))
    # Not infinity: a picture of which nothing is inside would attend to nothing, which is NaN.
    return (F.max_pool2d(there, stride).flatten(1) - 1) * 1e4


def _blocks(width: int, count: int, *, norm: bool) -> nn.Sequential:
    return nn.Sequential(*(ColorBlock(width, norm=norm) for _ in range(count)))
