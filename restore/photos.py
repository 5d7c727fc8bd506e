"""Files in, restored files out: upright, with their colour profile, originals untouched.

Gray scans of 16 bits stay that deep; Pillow reads 16-bit colour as 8-bit.
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..datasets.files import check_writable, write_bytes
from ..datasets.photos import PIXEL_LIMIT, find_photos, open_upright
from .restorer import Restorer

WRITTEN_AS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""Formats that a restored photograph is written in as it came; all others become PNG."""

_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_deflate"},
}
_MODES = {
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "JPEG": ("1", "L", "CMYK", "RGB"),
    "WEBP": ("1", "L", "LA", "P", "RGB", "RGBA"),
}
"""What these formats hold: the name of a file need not tell the truth about its content."""


@dataclass(frozen=True, slots=True)
class Job:
    """One photograph to restore."""

    source: Path
    target: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What became of it."""

    job: Job
    seconds: float
    error: str = ""
    """Why it was not restored; empty if it was."""


def plan_jobs(inputs: Iterable[Path], out: Path, *, suffix: str = "_restored") -> list[Job]:
    """Find the photographs and name their results: `{stem}{suffix}.{ext}` in `out`.

    Folders are searched with all below them, and their tree is kept; results of earlier runs, in
    an `out` inside a folder, are passed over.

    Raises:
        ValueError: If an input does not exist, none holds a photograph, two photographs would be
            written to one file, or one over an original.
    """
    if any(character in suffix for character in "/\\\0"):
        raise ValueError(f"suffix must be a part of a file name, without / or \\, got {suffix!r}")
    jobs: dict[Path, Job] = {}
    for source in inputs:
        results_inside = source.is_dir() and source.resolve() in out.resolve().parents
        for path in find_photos(source):
            if results_inside and out.resolve() in path.resolve().parents:
                continue
            below = path.parent.relative_to(source) if source.is_dir() else Path()
            extension = path.suffix if path.suffix.lower() in WRITTEN_AS else ".png"
            job = Job(path, out / below / f"{path.stem}{suffix}{extension}")
            other = jobs.setdefault(job.target, job)
            if other.source.resolve() != path.resolve():
                raise ValueError(
                    f"{other.source} and {path} would both be written to {job.target}; restore "
                    "them into different folders"
                )
    if not jobs:
        raise ValueError(f"no photographs but the results in {out}")
    originals = {job.source.resolve() for job in jobs.values()}
    for job in jobs.values():
        if job.target.resolve() in originals:
            raise ValueError(f"{job.target} would be overwritten; choose another --out or --suffix")
    return list(jobs.values())


def restore_photos(
    restorer: Restorer,
    jobs: Iterable[Job],
    *,
    strength: float = 1.0,
    tile: int | str = "auto",
    pixel_limit: int = PIXEL_LIMIT,
    on_tile: Callable[[], object] = lambda: None,
) -> Iterator[Restored]:
    """Restore photographs one after the other; one that cannot be done stops none of the others.

    Raises:
        ValueError: If strength or tile does not fit, or a folder cannot be written.
        OSError: If writing fails, as on a full disk; no half-written file stays.
    """
    restorer.check(strength=strength, tile=tile)  # type: ignore[arg-type]
    for job in jobs:
        check_writable(job.target.parent)
        begun = time.perf_counter()
        error = ""
        try:
            image = open_upright(job.source, pixel_limit=pixel_limit)
            data = _restore(restorer, image, job, strength=strength, tile=tile, on_tile=on_tile)
        except ValueError as reason:
            error = str(reason)
        else:
            write_bytes(job.target, data)
        yield Restored(job=job, seconds=time.perf_counter() - begun, error=error)


def _restore(
    restorer: Restorer,
    image: Image.Image,
    job: Job,
    *,
    strength: float,
    tile: int | str,
    on_tile: Callable[[], object],
) -> bytes:
    """Return the encoded result, with the resolution and EXIF of the original, and its colour
    profile if that still holds; of a TIFF, whose EXIF Pillow drops in turning it upright, the
    resolution and the profile.
    """
    result = restorer(image, strength=strength, tile=tile, on_tile=on_tile)  # type: ignore[arg-type]
    kept = {name: image.info[name] for name in ("dpi", "exif") if name in image.info}
    # Another mode means other colours: converted to sRGB, or added to a gray picture.
    if result.mode.rstrip("A") == image.mode.rstrip("A"):
        kept["icc_profile"] = image.info.get("icc_profile")
    format = WRITTEN_AS[job.target.suffix.lower()]
    if result.mode not in _MODES.get(format, (result.mode,)):
        raise ValueError(
            f"{job.source}: its content (mode {result.mode}) is more than a {job.source.suffix} "
            "file can hold; rename it after what it is, .png or .tif"
        )
    buffer = io.BytesIO()
    try:
        result.save(buffer, format, **_OPTIONS.get(format, {}), **kept)
    except (OSError, ValueError) as error:
        raise ValueError(f"{job.source}: cannot be written as {format}: {error}") from error
    return buffer.getvalue()
