"""Shapes and value ranges, declared once; the tests check them at run time."""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Images: TypeAlias = Float[Tensor, "B C H W"]
"""Display-referred sRGB (or its Rec. 601 luma, C = 1) in [0, 1]."""

Photos: TypeAlias = Shaped[Tensor, "B 3 H W"]
"""sRGB photographs, uint8 in 0..255 or floating point in [0, 1]."""

Mask: TypeAlias = Bool[Tensor, "B 1 H W"]
"""True where damage hides the picture."""

PerImage: TypeAlias = Float[Tensor, " B"]
"""One number for each photograph."""

Indices: TypeAlias = Int[Tensor, " B"]
"""One whole number for each photograph."""

Keys: TypeAlias = Int[Tensor, " B"]
"""One 64-bit key for each photograph (int64, all bits used, so half of them are negative)."""

Params: TypeAlias = dict[str, Tensor]
"""What a sampler drew for a batch: plain tensors, first dimension B."""
