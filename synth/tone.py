"""The tone curve of a print: blacks that are not black, whites that are not white, and a gamma."""

from dataclasses import dataclass

from .defect import Defect
from .ranges import Range, check_range
from .scene import Scene, per_pixel
from .types import Images, Mask, Params, PerImage


def tone_curve(x: Images, *, black: PerImage, white: PerImage, gamma: PerImage) -> Images:
    """Return black + (white - black) x**gamma.

    Args:
        x: In [0, 1].
        black: What 0 becomes, in [0, 1].
        white: What 1 becomes, in [0, 1].
        gamma: Above 0; 1 leaves the middle tones alone, less lightens them.
    """
    low, high = per_pixel(black), per_pixel(white)
    # The smallest step of a float photo stands in for 0, whose logarithm would be infinite.
    curve = (x.float().clamp(min=1e-12).log() * per_pixel(gamma)).exp()
    # Exactly x where nothing is asked for: exp(log(x)) is not.
    curve = curve.where(per_pixel(gamma) != 1, x.float())
    return (low + (high - low) * curve).clamp(0, 1).to(x.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToneCurve(Defect):
    """Flatten the tones of the whole picture: what exposure and developer left of them."""

    black: Range = (0.0, 0.1)
    """What black becomes."""
    white: Range = (0.0, 0.1)
    """What white loses."""
    gamma: Range = (0.8, 1.25)
    """Exponent of the middle tones, at severity 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("black", self.black, low=0.0, high=0.5)
        check_range("white", self.white, low=0.0, high=0.5)
        check_range("gamma", self.gamma, low=0.25, high=4.0)

    def sample(self, scene: Scene) -> Params:
        """Draw black, white and gamma (B,)."""
        u = scene.uniform(3)
        return {
            "black": scene.strength(u[:, 0], self.black, most=0.5),
            "white": 1 - scene.strength(u[:, 1], self.white, most=0.5),
            "gamma": 1 + scene.severity.clamp(max=1) * (scene.amount(u[:, 2], self.gamma) - 1),
        }

    def apply(self, x: Images, params: Params, scene: Scene) -> tuple[Images, Mask | None]:
        """Bend the tones; the picture is all still there, so there is no mask."""
        return tone_curve(
            x, black=params["black"], white=params["white"], gamma=params["gamma"]
        ), None
