"""Scans of real wear as textures: the ground taken off, the marks kept, the edges made to meet.

The ground of a scan is never black nor even: black levels of 20 to 30 of 255 are usual, and laid
over a photograph they would fog it. Marks lighter than the ground whiten a photograph, darker ones
darken it; a transparent picture says by its alpha what is ground, by its colour how it marks.
"""

import struct
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .canvas import Floats

Ground = Literal["auto", "dark", "light"]

LEAST_PX = 64
"""Of either side of a scan."""

_BLEND = 8
"""One part in so many of a texture's side is where its edges fade into each other."""

_NOISE = 3 / 255
"""At most so much is taken off with the ground, as noise of the sensor; the rest is marks."""

_UNREADABLE = (
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
    OverflowError,
    MemoryError,
)
"""What Pillow's readers raise on damaged files."""


def read_scans(
    folder: Path | str, *, size_px: int, ground: Ground
) -> tuple[NDArray[np.uint8], list[bool]]:
    """Read every picture in a folder, in the order of their names.

    Returns:
        Opacities (N, size_px, size_px), and for each whether its ground is light.

    Raises:
        ValueError: If there is no picture, or some cannot be used; names them all.
    """
    folder = Path(folder)
    if ground not in ("auto", "dark", "light"):
        raise ValueError(f"ground must be auto, dark or light, got {ground!r}; auto looks for it")
    if not folder.is_dir():
        raise ValueError(f"scans must be in a folder, got {folder}; give the folder they are in")
    paths = find_scans(folder)
    if not paths:
        raise ValueError(
            f"{folder} holds no pictures that Pillow reads by their names; put scans into it, as "
            "PNG or TIFF for example"
        )
    sheets, light, bad = [], [], []
    for path in paths:
        try:
            opacity, is_light = _take(path, size_px=size_px, ground=ground)
        except Image.DecompressionBombError:
            bad.append(f"{path.name} (too many pixels)")
        except _UNREADABLE as error:
            bad.append(f"{path.name} ({error})")
        else:
            sheets.append(np.rint(255.0 * opacity).astype(np.uint8))
            light.append(is_light)
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(paths)} scans in {folder} cannot be used: {'; '.join(bad)}; mend "
            "them or take them out of the folder"
        )
    return np.stack(sheets), light


def find_scans(folder: Path) -> list[Path]:
    """Return the pictures in a folder, by their names; what is hidden is none."""
    Image.init()
    suffixes = set(Image.registered_extensions())
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def _take(path: Path, *, size_px: int, ground: Ground) -> tuple[Floats, bool]:
    """Make one scan a texture."""
    value, alpha = _read(path)
    if min(value.shape) < LEAST_PX:
        raise ValueError(f"{value.shape[1]} x {value.shape[0]} px, needs {LEAST_PX} on each side")
    if alpha is None:
        opacity, is_light = lift(_fit(value, size_px), ground=ground)
    else:
        colour = float((alpha * value).sum() / max(float(alpha.sum()), 1e-9))
        is_light = colour < 0.5 if ground == "auto" else ground == "light"
        # Before it is reduced: what is transparent has any colour.
        opacity = _fit(alpha * ((1.0 - value) if is_light else value), size_px)
    if not (opacity >= 0.05).any():
        raise ValueError("nothing on its ground")
    return make_seamless(opacity, size_px), is_light


def lift(value: Floats, *, ground: Ground = "auto") -> tuple[Floats, bool]:
    """Take the ground off a scan: t' = clip((t - b) / (1 - b)), b the ground and its noise.

    Args:
        value: Grey values in [0, 1].
        ground: dark if marks are lighter than it, light if darker; auto tells by which there is
            more of, or by its own tone if that is even.

    Returns:
        Opacity in [0, 1], and whether the ground is light.

    Raises:
        ValueError: If neither tells.
    """
    level = fit_ground(value)
    rest = value - level
    noise = 1.4826 * float(np.median(np.abs(rest)))
    if ground == "auto":
        lighter = float(np.maximum(rest - 3.0 * noise - 0.02, 0.0).mean())
        darker = float(np.maximum(-rest - 3.0 * noise - 0.02, 0.0).mean())
        tone = float(np.median(level))
        if max(lighter, darker) >= 3.0 * min(lighter, darker) and lighter != darker:
            is_light = darker > lighter
        elif tone < 0.35 or tone > 0.65:
            is_light = tone > 0.5
        else:
            raise ValueError("as many marks lighter as darker than its ground: say which, ground=")
    else:
        is_light = ground == "light"
    sign = np.float32(-1.0 if is_light else 1.0)
    room = level if is_light else 1.0 - level
    black = np.float32(min(2.0 * noise, _NOISE))
    opacity = (sign * rest - black) / np.maximum(room - black, 0.05)
    return np.clip(opacity, 0.0, 1.0).astype(np.float32), is_light


def fit_ground(value: Floats) -> Floats:
    """Fit the slow variation of a ground: a quadratic through medians of blocks, marks left out."""
    edges = [np.linspace(0, side, 17).astype(int) for side in value.shape]
    medians = np.array(
        [
            [np.median(value[top:bottom, left:right]) for left, right in _steps(edges[1])]
            for top, bottom in _steps(edges[0])
        ]
    )
    at = (np.arange(16) + 0.5) / 8.0 - 1.0
    terms = _quadratic(at[:, None], at[None, :])
    basis = np.stack([np.broadcast_to(t, (16, 16)).ravel() for t in terms], axis=1)
    wanted, weight = medians.ravel(), np.ones(256)
    weights = np.zeros(6)
    for _ in range(12):
        root = np.sqrt(weight)
        weights = np.linalg.lstsq(basis * root[:, None], wanted * root, rcond=None)[0]
        off = np.abs(wanted - basis @ weights)
        # Tukey's: blocks full of marks lie far off and have no say.
        scale = 4.7 * max(1.4826 * float(np.median(off)), 1e-3)
        weight = np.maximum(1.0 - (off / scale) ** 2, 0.0) ** 2
    y, x = ((np.arange(side) + 0.5) / side * 2.0 - 1.0 for side in value.shape)
    terms = _quadratic(y[:, None].astype(np.float32), x[None, :].astype(np.float32))
    level = sum(np.float32(w) * term for w, term in zip(weights, terms, strict=True))
    return np.clip(np.broadcast_to(level, value.shape), 0.0, 1.0).astype(np.float32)


def make_seamless(opacity: Floats, size_px: int) -> Floats:
    """Cut a square of `size_px` out of a larger one so that it goes on at its opposite sides.

    What is beyond the square fades into its first rows and columns, and they into it; the larger
    counts, so that marks do not go dim.
    """
    for _ in range(2):
        band = opacity.shape[0] - size_px
        rise = ((np.arange(band, dtype=np.float32) + 0.5) / max(band, 1))[:, None]
        head = opacity[:band] * np.minimum(2.0 * rise, 1.0)
        tail = opacity[size_px:] * np.minimum(2.0 - 2.0 * rise, 1.0)
        opacity = np.concatenate([np.maximum(head, tail), opacity[band:size_px]]).T
    return np.ascontiguousarray(opacity)


def _fit(value: Floats, size_px: int) -> Floats:
    """Reduce a scan to the side of a texture and the band that is blended, or mirror a small one.

    A square from the middle; nothing is enlarged, for enlarged dust is blurred dust.
    """
    side = size_px + size_px // _BLEND
    height, width = value.shape
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    value = value[top : top + short, left : left + short]
    if short > side:
        # Area, not bilinear: bilinear drops specks.
        box = Image.Resampling.BOX
        return np.asarray(Image.fromarray(value).resize((side, side), box), np.float32)
    return np.pad(value, (0, side - short), mode="symmetric")


def _read(path: Path) -> tuple[Floats, Floats | None]:
    """Read grey values in [0, 1], and the alpha where a picture is transparent anywhere."""
    with warnings.catch_warnings():
        # Large scans are meant; what is far too large is an error all the same.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            image.load()
            return _to_grey(image)


def _to_grey(image: Image.Image) -> tuple[Floats, Floats | None]:
    if image.mode == "F" or image.mode.startswith("I"):
        value = np.asarray(image).astype(np.float32)
        top = float(value.max())
        if not np.isfinite(value).all() or value.min() < 0 or top > 2**32:
            raise ValueError("values that are no grey levels")
        if image.mode == "F":
            # Floats count from 0 to 1, or as the 8 or 16 bits that they were.
            full = next((f for f in (1.0, 255.0, 65535.0) if top <= f), top)
        else:
            full = 65535.0 if top <= 65535 else top
        return value / np.float32(full), None
    if image.has_transparency_data:
        layers = np.asarray(image.convert("RGBA").convert("LA"), np.float32) / 255.0
        alpha = layers[..., 1]
        return layers[..., 0], alpha if alpha.min() < 1.0 else None
    if image.mode == "LAB":
        image = image.getchannel(0)
    elif image.mode not in ("1", "L"):
        image = image.convert("RGB").convert("L")
    return np.asarray(image.convert("L"), np.float32) / 255.0, None


def _quadratic(y: Floats, x: Floats) -> Sequence[Floats]:
    return np.ones_like(y), y, x + 0.0 * y, y * y, x * y, x * x + 0.0 * y


def _steps(edges: NDArray[np.integer]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(edges)]
