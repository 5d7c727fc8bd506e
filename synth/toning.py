"""Toned prints: the silver of a black-and-white print turned to a compound with a colour.

Toning multiplies the density of the silver in red, green and blue by ratios of their own, so paper
white stays white, black stays black, and the colour is deepest in between. Some toners take hold of
the highlights first and others of the shadows, and two baths after each other split the tones: so
the ratios go from those of the highlights to those of the shadows. They are near to what scans of
such prints show, and were chosen so that Rec. 601 luma stays within a few hundredths.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .defect import Defect
from .grayscale import grayscale
from .philox import bits_to_below, bits_to_uniform
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, InMode, Mask, Params, PerImage

TONES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "sepia": ((72, 103, 158), (85, 102, 124)),
    "albumen": ((85, 100, 138), (82, 106, 116)),
    "selenium": ((98, 100, 102), (92, 104, 97)),
    "gold": ((108, 99, 88), (103, 100, 95)),
    "warm": ((94, 101, 108), (95, 101, 106)),
    "split": ((76, 102, 150), (94, 103, 97)),
}
"""Density in red, green and blue, in hundredths of the silver's: in highlights, in shadows.

Sulphide sepia; albumen prints, yellow-brown with purple shadows; selenium, which turns shadows to
aubergine and leaves highlights alone; gold, which cools; warm-tone chlorobromide paper; sepia
highlights over selenium shadows.
"""

# Six bytes to a word: a table would have to be copied to the GPU, and the host would wait for that.
_PACKED = {
    name: int.from_bytes(bytes(light + dark), "little") for name, (light, dark) in TONES.items()
}


def split_tone(
    x: Images,
    *,
    amount: PerImage,
    highlights: Float[Tensor, "B 3"],
    shadows: Float[Tensor, "B 3"],
) -> Float[Tensor, "B 3 H W"]:
    """Return luma ** ratio for each channel, the ratio going from shadows to highlights with luma.

    Args:
        x: One channel or three; a print that is toned was black and white, so only luma counts.
        amount: 0 returns x, in three channels; 1 tones fully.
        highlights: Ratios of density of red, green and blue to that of silver where luma is 1.
        shadows: Where luma is 0.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    luma = grayscale(wide)
    light = 1 + amount[:, None] * (highlights - 1)
    dark = 1 + amount[:, None] * (shadows - 1)
    ratio = dark[..., None, None] + (light - dark)[..., None, None] * luma
    # Zero has the logarithm -inf, whose exponential is zero again.
    toned = (ratio * luma.log()).exp().clamp(0, 1).to(x.dtype)
    # Like x in its memory format too, which a picture of one channel leaves open.
    like = x if x.shape[1] == 3 else toned
    return torch.empty_like(like).copy_(torch.where(per_pixel(amount) > 0, toned, x))


@dataclass(frozen=True, kw_only=True, slots=True)
class Toning(Defect):
    """A toning bath; the result has three channels."""

    kinds: tuple[str, ...] = ("sepia", "albumen", "selenium", "gold", "warm", "split")
    """Of `TONES`; each photograph gets one of them, all equally often."""
    amount: Range = (0.4, 1.0)
    """How far the bath went, 1 being all the silver."""

    def __post_init__(self) -> None:
        """Check the names and the range."""
        known = isinstance(self.kinds, tuple) and set(self.kinds) <= set(TONES)
        if not self.kinds or not known:
            raise ValueError(
                f"kinds must be a tuple of at least one of {', '.join(TONES)}, got {self.kinds!r}"
            )
        check_range("amount", self.amount, low=0.0, high=1.0)

    @property
    def changes_channels(self) -> bool:
        """It does."""
        return True

    def sample(self, scene: Scene) -> Params:
        """Draw amount (B,), highlights (B, 3) and shadows (B, 3)."""
        bits = scene.bits(2)
        kind = bits_to_below(bits[:, 1], len(self.kinds))
        word = torch.zeros_like(kind)
        for number, name in enumerate(self.kinds):
            word = torch.where(kind == number, _PACKED[name], word)
        shift = 8 * torch.arange(6, device=word.device)
        ratios = ((word[:, None] >> shift) & 0xFF).float() / 100
        return {
            "amount": scene.strength(bits_to_uniform(bits[:, 0]), self.amount),
            "highlights": ratios[:, :3],
            "shadows": ratios[:, 3:],
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[InMode, Mask | None]:
        """Tone; nothing is hidden, so there is no mask."""
        return split_tone(
            x,
            amount=params["amount"],
            highlights=params["highlights"],
            shadows=params["shadows"],
        ), None
