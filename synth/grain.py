"""Film grain as independent Gaussian noise, one draw for each pixel and channel.

After `Grayscale` there is one channel, so red, green and blue grain are the same grain.
"""

from dataclasses import dataclass

from ..textures import TextureBank
from .philox import draw_uniform, normal_field
from .ranges import Range, check_range, spread
from .types import Images, Keys, Mask, Params, PerImage


def grain(x: Images, *, sigma: PerImage, keys: Keys, op: int) -> Images:
    """Return clip(x + sigma n), n standard normal; sigma is in units of full scale."""
    _B, C, H, W = x.shape
    noise = normal_field(keys, op=op, planes=C, height=H, width=W).to(x.dtype)
    return (x + sigma.to(x.dtype)[:, None, None, None] * noise).clamp_(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grain:
    """Gaussian grain."""

    sigma: Range = (0.10, 0.10)
    """Standard deviation, uniform in this range for each photograph; 0.10 is 25.5 of 255 levels."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("sigma", self.sigma, low=0.0, high=1.0)

    def sample(
        self, keys: Keys, *, op: int, size: tuple[int, int], textures: TextureBank
    ) -> Params:
        """Draw sigma (B,)."""
        return {"sigma": spread(draw_uniform(keys, op=op, count=1)[:, 0], self.sigma)}

    def apply(
        self, x: Images, params: Params, *, keys: Keys, op: int, textures: TextureBank
    ) -> tuple[Images, Mask | None]:
        """Add the grain; it hides nothing, so there is no mask."""
        return grain(x, sigma=params["sigma"], keys=keys, op=op), None
