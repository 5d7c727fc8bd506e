"""Files in, restored files out: upright, with their colour profile, originals untouched."""

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
_NATIVE_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
"""Modes that are restored as they are, so that their colour profile stays true."""


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

    Folders are searched with all below them, and their tree is kept.

    Raises:
        ValueError: If an input does not exist, none holds a photograph, or two photographs would
            be written to one file or one over its original.
    """
    jobs: dict[Path, Job] = {}
    for source in inputs:
        for path in find_photos(source):
            below = path.parent.relative_to(source) if source.is_dir() else Path()
            extension = path.suffix if path.suffix.lower() in WRITTEN_AS else ".png"
            job = Job(path, out / below / f"{path.stem}{suffix}{extension}")
            if job.target.resolve() == path.resolve():
                raise ValueError(f"{path} would be overwritten; choose another --out or --suffix")
            other = jobs.setdefault(job.target, job)
            if other.source.resolve() != path.resolve():
                raise ValueError(
                    f"{other.source} and {path} would both be written to {job.target}; restore "
                    "them into different folders"
                )
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
    """Restore photographs one after the other; one that cannot be read stops none of the others.

    Raises:
        ValueError: If strength or tile does not fit, or a folder cannot be written.
        OSError: If writing fails, as on a full disk; no half-written file stays.
    """
    for job in jobs:
        begun = time.perf_counter()
        try:
            image = open_upright(job.source, pixel_limit=pixel_limit)
        except ValueError as error:
            yield Restored(job=job, seconds=time.perf_counter() - begun, error=str(error))
            continue
        check_writable(job.target.parent)
        result = restorer(image, strength=strength, tile=tile, on_tile=on_tile)  # type: ignore[arg-type]
        write_bytes(job.target, _encode(result, image, job.target.suffix))
        yield Restored(job=job, seconds=time.perf_counter() - begun)


def _encode(result: Image.Image, original: Image.Image, suffix: str) -> bytes:
    """Encode with the resolution and EXIF of the original, and its profile if that still holds."""
    kept = {name: original.info[name] for name in ("dpi", "exif") if name in original.info}
    if original.mode in _NATIVE_MODES and result.mode == original.mode:
        kept["icc_profile"] = original.info.get("icc_profile")
    format = WRITTEN_AS[suffix.lower()]
    buffer = io.BytesIO()
    result.save(buffer, format, **_OPTIONS.get(format, {}), **kept)
    return buffer.getvalue()
