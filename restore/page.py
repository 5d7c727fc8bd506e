"""Page: one picture of a scan with all that its file told about it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One picture, upright, and what is to be kept with it.

    Raises:
        ValueError: If pixels or alpha are not as described.
    """

    pixels: np.ndarray
    """(H, W) of grays or (H, W, 3) of colours, uint8 or uint16."""
    alpha: np.ndarray | None = None
    """(H, W), of the same depth; 0 is transparent."""
    icc_profile: bytes | None = None
    """What the numbers in `pixels` mean; None: sRGB, or gray of its tone curve."""
    exif: bytes | None = None
    """Begins with `Exif\\0\\0`; its orientation is upright."""
    xmp: bytes | None = None
    """A packet of XML."""
    dpi: tuple[float, float] | None = None
    """Dots an inch, across and down."""

    def __post_init__(self) -> None:
        shape, depth = self.pixels.shape, self.pixels.dtype
        if depth not in (np.uint8, np.uint16):
            raise ValueError(f"pixels must be uint8 or uint16, got {depth}")
        if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
            raise ValueError(f"pixels must be (H, W) or (H, W, 3), got {shape}")
        if self.alpha is not None and (
            self.alpha.shape != shape[:2] or self.alpha.dtype != self.pixels.dtype
        ):
            raise ValueError(
                f"alpha must be {shape[:2]} of {depth} as pixels are, got {self.alpha.shape} of "
                f"{self.alpha.dtype}"
            )
