"""What the page does with a photograph: check its limits, restore it, encode it as it came.

Knows nothing of the web. Everything that a visitor has done wrong is a ValueError in plain words.
"""

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms

from agedphoto.datasets.files import write_bytes
from agedphoto.datasets.photos import PHOTO_SUFFIXES, TooManyPixelsError, to_srgb
from agedphoto.restore import Restorer
from agedphoto.restore.own_colors import has_own_colors
from agedphoto.restore.scans import WRITTEN_AS, Page, encode_pages, read_pages

EXAMPLES = {"astronaut.png": "heavy_wear", "coffee.png": "creased_print", "rocket.jpg": "film_35mm"}
"""Photographs that come with scikit-image, and the recipes that they age by."""
EXAMPLE_PX = 512
PREVIEW_PX = 1600
"""Longer side of what the page shows; the download has every pixel."""
GIVEN_BACK = frozenset(WRITTEN_AS) - {".pbm"}
"""Types of files that are given back as they came; others come back as PNG."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a visitor may hand in."""

    max_megapixels: float
    """Of all pages together."""
    max_mb: float
    """Of the file."""
    max_pages: int = 50
    """Of the file."""


class EndedError(Exception):
    """The page is being closed; what is not done is given up."""


class Turns:
    """Photographs are restored one at a time, and given up between two tiles when the page ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait until it is one's turn.

        Raises:
            EndedError: If the page is being closed.
        """
        with self._lock:
            self.go_on()
            yield

    def go_on(self) -> None:
        """Raise `EndedError` if the page is being closed."""
        if self._ended.is_set():
            raise EndedError

    def end(self, *, patience_s: float) -> None:
        """Give up what is being restored, and wait until it is."""
        self._ended.set()
        if self._lock.acquire(timeout=patience_s):
            self._lock.release()


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A restored photograph."""

    file: Path
    """In the format that it came in, with all its pages."""
    before: Image.Image
    """The first page, small enough to show."""
    after: Image.Image
    mask: Image.Image | None
    """White where the network sees damage; None if it cannot tell."""
    size: tuple[int, int]
    """(width, height) of the first page in pixels."""
    changed_mode: bool
    """Whether it came gray and is in colour now."""


def open_scan(path: Path, limits: Limits) -> list[Page]:
    """Read a photograph that keeps to the limits.

    Raises:
        ValueError: If it does not, in words for a visitor; of its path only the name is told.
    """
    name = path.name
    if path.suffix.lower() not in PHOTO_SUFFIXES:
        kinds = ", ".join(sorted(suffix[1:] for suffix in PHOTO_SUFFIXES))
        raise ValueError(f"{name}: files of this type are not taken; these are: {kinds}")
    if path.stat().st_size > limits.max_mb * 1e6:
        raise ValueError(
            f"{name}: has {path.stat().st_size / 1e6:.1f} MB, this page takes {limits.max_mb:g} MB"
        )
    if _count_pages(path, limits.max_pages + 1) > limits.max_pages:
        raise ValueError(f"{name}: has more pages than this page takes, {limits.max_pages}")
    try:
        return read_pages(path, pixel_limit=int(limits.max_megapixels * 1e6))
    except TooManyPixelsError as error:
        raise ValueError(
            f"{name}: has more pixels than this page takes, {limits.max_megapixels:g} megapixels, "
            "all pages counted; make it smaller, or use `agedphoto restore`"
        ) from error
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from error


def preview(page: Page) -> Image.Image:
    """Return a page as the screen shows it: 8-bit sRGB, the longer side `PREVIEW_PX` at most."""
    pixels = page.pixels
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((PREVIEW_PX, PREVIEW_PX), Image.Resampling.LANCZOS)
    if page.icc_profile:
        image.info["icc_profile"] = page.icc_profile
        try:
            image = to_srgb(image)
        except (ImageCms.PyCMSError, OSError, ValueError):
            image = image.convert("RGB")
    image.info.clear()
    return image.convert("RGB")


def read_marks(layers: Sequence[Path]) -> np.ndarray | None:
    """Return what was painted on a preview: (h, w) uint8, 255 where the brush was, or None.

    Args:
        layers: PNG files of one size; where they are not transparent is paint.

    Raises:
        ValueError: If they are something else.
    """
    covered: np.ndarray | None = None
    for path in layers:
        try:
            with Image.open(path, formats=("PNG",)) as image:
                if max(image.size) > PREVIEW_PX:
                    raise ValueError(f"{image.size} is larger than any preview")
                alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
            covered = alpha if covered is None else np.maximum(covered, alpha)
        except FileNotFoundError:
            raise
        # All: what a decoder raises on damaged files is not written down anywhere.
        except Exception as error:
            raise ValueError(
                "What you have marked cannot be read; choose the photograph again."
            ) from error
    if covered is None or covered.max() < 128:
        return None
    return np.where(covered >= 128, 255, 0).astype(np.uint8)


def restore_scan(
    path: Path,
    folder: Path,
    *,
    limits: Limits,
    restorer: Restorer,
    coloring: Restorer | None = None,
    strength: float = 1.0,
    painted: np.ndarray | None = None,
    on_tile: Callable[[], object] = lambda: None,
) -> Finished:
    """Restore a photograph, and write it into a folder of its own below `folder`.

    Args:
        path: As it was handed in.
        folder: For results.
        limits: That it keeps to.
        restorer: For photographs that keep what colours they have.
        coloring: Gives colours to those that have none; None leaves them gray.
        strength: 0 to 1.
        painted: (h, w) uint8 of any size, white where damage was marked on the first page.
        on_tile: Called after each tile; what it raises ends the work.

    Raises:
        ValueError: If it breaks a limit, cannot be read, or its format cannot hold the result.
    """
    pages = open_scan(path, limits)
    first, restored, mask, changed_mode = pages[0], [], None, False
    for number, page in enumerate(pages):
        adds_colors = coloring is not None and strength > 0 and not has_own_colors(page.pixels)
        chosen = coloring if coloring is not None and adds_colors else restorer
        options: dict[str, Any] = {"strength": strength, "on_tile": on_tile}
        if number == 0 and painted is not None and painted.any():
            options["damage"] = _at_size(painted, page)
        if number == 0 and chosen.finds_damage:
            pixels, found = chosen(page.pixels, return_mask=True, **options)
            mask = preview(Page(pixels=found.reshape(found.shape[:2])))
        else:
            pixels = chosen(page.pixels, **options)
        if page.pixels.ndim == 2 and pixels.ndim == 3 and chosen.mode == "color":
            # Colours are not what this network is for.
            pixels = pixels.mean(2).round().astype(pixels.dtype)
        same = pixels.ndim == page.pixels.ndim and not adds_colors
        changed_mode |= pixels.ndim != page.pixels.ndim
        restored.append(
            replace(page, pixels=pixels, icc_profile=page.icc_profile if same else None)
        )
    suffix = path.suffix if path.suffix.lower() in GIVEN_BACK else ".png"
    if suffix.lower() == ".pgm" and changed_mode:
        # That format has no place for colours.
        suffix = ".ppm"
    format = WRITTEN_AS[suffix.lower()]
    file = folder / secrets.token_hex(16) / f"{path.stem}_restored{suffix}"
    write_bytes(file, encode_pages(restored, format))
    height, width = first.pixels.shape[:2]
    return Finished(
        file=file,
        before=preview(first),
        after=preview(restored[0]),
        mask=mask,
        size=(width, height),
        changed_mode=changed_mode,
    )


def make_examples(folder: Path) -> list[Path]:
    """Age the photographs of `EXAMPLES` and write them as PNG; return the files.

    Raises:
        ValueError: If scikit-image came without its photographs.
    """
    import torch

    from agedphoto.age_photos import photo_key
    from agedphoto.age_tiles import age_tiled
    from agedphoto.demo_photos import bundled_photos
    from agedphoto.synth import Ageing

    root, made = bundled_photos().root, []
    for name, recipe in EXAMPLES.items():
        with Image.open(root / name) as image:
            clean = image.convert("RGB")
        clean.thumbnail((EXAMPLE_PX, EXAMPLE_PX), Image.Resampling.LANCZOS)
        picture = np.asarray(clean)
        ageing = Ageing(recipe, mode="grayscale", augment=False)
        keys = photo_key(0, name).to(torch.device("cpu"))
        params = ageing.sample(keys, size=picture.shape[:2])
        aged = age_tiled(ageing, picture, params, keys=keys).aged
        made.append(folder / f"{Path(name).stem}.png")
        write_bytes(made[-1], encode_pages([Page(pixels=aged)], "PNG"))
    return made


def _count_pages(path: Path, most: int) -> int:
    """Count the pages of a TIFF, to `most`, without decoding any; 1 for all other files."""
    # What is broken is told of by who reads it.
    with suppress(Exception), path.open("rb") as file:
        if file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            file.seek(0)
            with tifffile.TiffFile(file) as tiff:
                return sum(1 for _ in itertools.islice(tiff.pages, most))
    return 1


def _at_size(painted: np.ndarray, page: Page) -> np.ndarray:
    """Return what was painted, as large as the page: uint8, 0 or 255."""
    height, width = page.pixels.shape[:2]
    grown = Image.fromarray(painted).resize((width, height), Image.Resampling.BILINEAR)
    return np.where(np.asarray(grown) >= 64, 255, 0).astype(np.uint8)
