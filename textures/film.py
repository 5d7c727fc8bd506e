"""What dirt on film measures: sizes, numbers and gathering of 12,135 marks on ten scanned frames.

Fitted to the outlines of Ivanova et al., "Simulating analogue film damage to analyse and improve
artefact restoration on high-resolution scans", Computer Graphics Forum 2023, in film pixels: 7 um,
a 35 mm frame is 5000 x 3420 of them. Outlines were drawn generously and none under 39 px².
"""

from dataclasses import dataclass

FRAME_AREA = 5000 * 3420
"""Film pixels in a frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of mark; its size is log-normal."""

    per_frame: float
    """Mean number on a frame; frames differ tenfold."""

    log_mean: float
    """Of the size: the area of specks in square film pixels, the length of the others."""

    log_sigma: float
    """Likewise."""

    clustering: float
    """As in `Sheet.place`: how marks gather within one frame."""

    width: float = 0.0
    """Median width in the middle, film pixels; 0 for specks. At half depth, over its whole length,
    a mark has about two thirds of that, and 0.45 of the generous outlines, 6.5 to 7.9 wide."""


DUST = Kind(per_frame=763, log_mean=4.118, log_sigma=0.383, clustering=0.9)
DIRT = Kind(per_frame=270, log_mean=4.865, log_sigma=0.600, clustering=1.2)
SHORT_HAIR = Kind(per_frame=134, log_mean=3.69, log_sigma=0.728, clustering=0.4, width=4.6)
LONG_HAIR = Kind(per_frame=39.8, log_mean=4.956, log_sigma=0.516, clustering=0.3, width=3.7)
SCRATCH = Kind(per_frame=6.5, log_mean=5.517, log_sigma=0.906, clustering=0.3, width=4.8)
