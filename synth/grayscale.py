"""Black-and-white film: the colours go, their Rec. 601 luma stays."""

from dataclasses import dataclass

from kornia.color import rgb_to_grayscale

from .defect import Defect
from .scene import Scene
from .types import Images, Mask, OneChannel, Params


def grayscale(x: Images) -> OneChannel:
    """Weigh red, green and blue by 0.299, 0.587 and 0.114 (ITU-R BT.601); one channel stays."""
    return x if x.shape[1] == 1 else rgb_to_grayscale(x)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grayscale(Defect):
    """Turn every photograph to black and white; a matter of the film, not of severity."""

    @property
    def changes_channels(self) -> bool:
        """It does."""
        return True

    def sample(self, scene: Scene) -> Params:
        """Draw nothing."""
        return {}

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[OneChannel, Mask | None]:
        """Return luma, (B, 1, H, W), and no mask: the picture is all still there."""
        return grayscale(x), None
