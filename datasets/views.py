"""What of a photo a batch shows: square crops at full resolution, or the whole photo made small."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from .decoders import Photo


def whole_size(
    height: Int[np.ndarray, " N"], width: Int[np.ndarray, " N"], long_side_px: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Return the sizes of photos whose long side is brought down to `long_side_px`.

    The aspect is kept to within half a pixel; smaller photos stay as they are.
    """
    scale = np.minimum(1.0, long_side_px / np.maximum(height, width))
    return (
        np.maximum(1, np.rint(height * scale)).astype(np.int64),
        np.maximum(1, np.rint(width * scale)).astype(np.int64),
    )


def shrink(photo: Photo, long_side_px: int) -> Photo:
    """Average over areas, so nothing aliases, until the long side is `long_side_px` at most."""
    H, W, _ = photo.shape
    height, width = (
        int(side[0]) for side in whole_size(np.array([H]), np.array([W]), long_side_px)
    )
    if (height, width) == (H, W):
        return photo
    small = photo.new_empty((height, width, 3))
    # One colour at a time: a large photo in float32 is several times a decoded one.
    for colour in range(3):
        plane = photo[None, None, :, :, colour].float()
        small[:, :, colour] = F.interpolate(plane, size=(height, width), mode="area")[0, 0].round()
    return small


def cut_crops(
    photos: Sequence[Photo | None],
    top: Sequence[int],
    left: Sequence[int],
    out: UInt8[Tensor, "B S S 3"],
) -> None:
    """Copy one square of each photo, of the size that `out` has; None is black."""
    S = out.shape[1]
    black = out.new_zeros((S, S, 3))
    squares = [
        black if photo is None else photo[y : y + S, x : x + S]
        for photo, y, x in zip(photos, top, left, strict=True)
    ]
    torch.stack(squares, out=out)


def place_whole(
    photos: Sequence[Photo | None],
    mirror: Sequence[bool],
    out: UInt8[Tensor, "B S S 3"],
) -> Bool[Tensor, "B 1 S S"]:
    """Copy whole photos into the upper left corner of squares, mirrored or not; the rest is black.

    Returns:
        Where the photos are.
    """
    inside = torch.zeros(
        (len(photos), 1, out.shape[1], out.shape[2]), dtype=torch.bool, device=out.device
    )
    out.zero_()
    for number, (photo, flipped) in enumerate(zip(photos, mirror, strict=True)):
        if photo is not None:
            H, W, _ = photo.shape
            out[number, :H, :W] = photo.flip(1) if flipped else photo
            inside[number, :, :H, :W] = True
    return inside
