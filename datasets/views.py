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
    *,
    margin_px: int = 0,
) -> None:
    """Copy one square of each photo, of the size that `out` has; None is black.

    Args:
        photos: Decoded photos.
        top: First row of each square, without its margin.
        left: First column of each square, likewise.
        out: What to fill.
        margin_px: How much of `out` on each side is margin, which may reach out of the photo: there
            the photo is reflected.
    """
    S = out.shape[1]
    black = out.new_zeros((S, S, 3))
    squares = [
        black if photo is None else _square(photo, y - margin_px, x - margin_px, S)
        for photo, y, x in zip(photos, top, left, strict=True)
    ]
    torch.stack(squares, out=out)


def _square(photo: Photo, top: int, left: int, side: int) -> Photo:
    H, W, _ = photo.shape
    if top < 0 or top + side > H:
        photo, top = photo[_reflected(top, side, H, photo.device)], 0
    if left < 0 or left + side > W:
        photo, left = photo[:, _reflected(left, side, W, photo.device)], 0
    return photo[top : top + side, left : left + side]


def _reflected(first: int, count: int, length: int, device: torch.device) -> Tensor:
    """Numbers of `count` rows from `first` on, of a photo that is reflected at its outer rows."""
    period = max(2 * (length - 1), 1)
    place = torch.arange(first, first + count, device=device).remainder(period)
    return torch.minimum(place, period - place)


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
