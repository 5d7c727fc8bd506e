"""Shapes and value ranges, declared once; the tests check them at run time."""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

Images: TypeAlias = Float[Tensor, "B C H W"]
"""Display-referred sRGB (or its Rec. 601 luma, C = 1) in [0, 1]."""

OneChannel: TypeAlias = Float[Tensor, "B 1 H W"]
"""Luma, or the opacity of what lies on a picture, in [0, 1]."""

InMode: TypeAlias = Float[Tensor, "B _ H W"]
"""Pictures with the channels of a mode, see `synth.modes`; a and b of CIELAB go below 0."""

Photos: TypeAlias = Shaped[Tensor, "B 3 H W"]
"""sRGB photographs, uint8 in 0..255 or floating point in [0, 1]."""

Mask: TypeAlias = Bool[Tensor, "B 1 H W"]
"""True where damage hides the picture."""

PerImage: TypeAlias = Float[Tensor, " B"]
"""One number for each photograph."""

Indices: TypeAlias = Int[Tensor, " B"]
"""One whole number for each photograph."""

Keys: TypeAlias = Int64[Tensor, " B"]
"""One 64-bit key for each photograph (int64, all bits used, so half of them are negative)."""

Params: TypeAlias = dict[str, Tensor]
"""What a sampler drew for a batch: plain tensors, first dimension B."""
