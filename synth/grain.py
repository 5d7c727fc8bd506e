"""Film grain as independent Gaussian noise, one draw for each pixel and channel.

After `Grayscale` there is one channel, so red, green and blue grain are the same grain.
"""

from dataclasses import dataclass

from .defect import Defect
from .philox import normal_field
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Keys, Mask, Params, PerImage


def grain(
    x: Images, *, sigma: PerImage, keys: Keys, op: int, top: int = 0, left: int = 0
) -> Images:
    """Return clip(x + sigma n), n standard normal; sigma is in units of full scale.

    The pictures are a window of larger ones, whose first row is `top` and first column `left`.
    """
    _B, C, H, W = x.shape
    noise = normal_field(keys, op=op, planes=C, height=H, width=W, top=top, left=left)
    return (x + per_pixel(sigma).to(x.dtype) * noise.to(x.dtype)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grain(Defect):
    """Gaussian grain."""

    sigma: Range = (0.10, 0.10)
    """Standard deviation, uniform in this range for each photograph; 0.10 is 25.5 of 255 levels."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("sigma", self.sigma, low=0.0, high=1.0)

    def sample(self, scene: Scene) -> Params:
        """Draw sigma (B,)."""
        return {"sigma": scene.strength(scene.uniform(1)[:, 0], self.sigma)}

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Add the grain; it hides nothing, so there is no mask."""
        return grain(
            x, sigma=params["sigma"], keys=scene.keys, op=scene.op, top=scene.top, left=scene.left
        ), None
