"""Which photographs the demo works with, and which of them it holds out."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path

from PIL import Image

from agedphoto.datasets import find_photos, read_photo

MAX_HELD_OUT = 3

BUNDLED_TRAIN = (
    "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png",
)  # fmt: skip
"""The motorcycle pair shows one scene twice, so both are trained on."""
BUNDLED_HELD_OUT = ("astronaut.png",)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPhotos:
    """Photographs, parted into those to train on and those to restore."""

    source: str
    """Where they come from, in words."""
    root: Path
    train: Sequence[Path]
    held_out: Sequence[Path]


def bundled_photos() -> DemoPhotos:
    """Return the photographs that come with scikit-image.

    Raises:
        ValueError: If this installation of it comes without them.
    """
    folder = Path(str(files("skimage.data")))
    missing = [name for name in BUNDLED_TRAIN + BUNDLED_HELD_OUT if not (folder / name).exists()]
    if missing:
        raise ValueError(
            f"this scikit-image comes without {', '.join(missing)}; give photos of your own with "
            "--photos DIR"
        )
    return DemoPhotos(
        source="photographs that come with scikit-image",
        root=folder,
        train=[folder / name for name in BUNDLED_TRAIN],
        held_out=[folder / name for name in BUNDLED_HELD_OUT],
    )


def split_photos(folder: Path, *, least_px: int) -> DemoPhotos:
    """Hold out an eighth of the photographs in a folder, the last by name, three at most.

    Raises:
        ValueError: If there are not two that say they have `least_px` pixels on each side.
    """
    if not folder.is_dir():
        raise ValueError(f"--photos must be a folder, got {folder}")
    usable = [path for path in find_photos(folder) if _is_usable(path, least_px)]
    if len(usable) < 2:
        raise ValueError(
            f"{folder} has {len(usable)} photos that can be opened and have at least {least_px} px "
            "on each side; the demo needs two, one to train on and one to hold out"
        )
    wanted = min(MAX_HELD_OUT, max(1, len(usable) // 8))
    held_out = sorted(islice((path for path in reversed(usable) if _is_whole(path)), wanted))
    if not held_out or len(usable) - len(held_out) < 1:
        raise ValueError(f"none of {len(usable)} photos in {folder} can be read; see each of them")
    # Those that cannot be read go with the training photos, where they are named and left out.
    chosen = set(held_out)
    return DemoPhotos(
        source=str(folder.resolve().name),
        root=folder,
        train=[path for path in find_photos(folder) if path not in chosen],
        held_out=held_out,
    )


def _is_whole(path: Path) -> bool:
    """Whether a photo can be read to its end."""
    try:
        read_photo(path)
    except ValueError:
        return False
    return True


def _is_usable(path: Path, least_px: int) -> bool:
    """Whether a photo says of itself that it is large enough; it is read in full only once."""
    try:
        with Image.open(path) as image:
            return min(image.size) >= least_px
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
