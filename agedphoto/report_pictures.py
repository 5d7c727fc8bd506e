"""Pictures of the report, carried inside the page, and where a detail is worth a closer look."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

# Three prints of 352 px and two gaps of 16 px fill the page, so 176 px are shown at 2:1.
DETAIL_PX = 176
# Long side and JPEG quality, from what is wanted to what is still worth showing.
_ENCODINGS = [(1600, 92), (1600, 86), (1280, 86), (1280, 78), (960, 78), (640, 70), (200, 70)]


def embed_photos(images: list[np.ndarray], budget: int) -> tuple[list[str], tuple[int, int], int]:
    """Data URIs of all images within `budget` bytes if possible, their (width, height), quality."""
    uris, size, quality = [], (0, 0), 0
    for long_side_px, quality in _ENCODINGS:
        height, width = images[0].shape[:2]
        scale = min(1.0, long_side_px / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        # BOX is the mean over the covered area: grain shrinks as it would on paper, unsharpened.
        small = (Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in images)
        uris = [_data_uri(x, "JPEG", quality=quality, subsampling=0) for x in small]
        if sum(map(len, uris)) * 3 // 4 <= budget:
            break
    return uris, size, quality


def embed_lossless(image: np.ndarray) -> str:
    """Return a data URI that holds the image to the bit."""
    return _data_uri(Image.fromarray(image), "WEBP", lossless=True)


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def find_detail(clean: np.ndarray, aged: np.ndarray) -> tuple[int, int, int]:
    """Top, left and side of the square that has most of both: texture, and damage upon it."""
    clean, aged = (x.reshape(*x.shape[:2], -1).mean(2, dtype=np.float32) for x in (clean, aged))
    side = min(DETAIL_PX, *clean.shape)
    step = max(1, side // 4)
    down, right = (np.diff(clean, axis=a, append=clean.take([-1], a)) for a in (0, 1))
    texture = np.abs(down) + np.abs(right)
    error = np.abs(aged - clean)
    # Above three medians it is no longer grain but a speck or a scratch.
    damage = np.maximum(error - 3 * np.median(error), 0)

    def windows(x: np.ndarray) -> np.ndarray:
        h, w = x.shape[0] // step, x.shape[1] // step
        blocks = x[: h * step, : w * step].reshape(h, step, w, step).mean((1, 3))
        return np.lib.stride_tricks.sliding_window_view(blocks, (side // step,) * 2).mean((2, 3))

    score = np.sqrt(windows(texture)) * (windows(damage) + damage.mean() + 1)
    row, column = np.unravel_index(score.argmax(), score.shape)
    return int(row) * step, int(column) * step, side
