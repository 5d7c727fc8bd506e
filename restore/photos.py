"""Which photographs to do, and what their results are called: `{stem}{suffix}.{ext}` in one folder.

A folder is searched with all below it, and its tree is kept; so is that below the fixed part of a
pattern such as `scans/**/*.tif`. Of photographs that would get one name because their format
changes (`a.gif` beside `a.png`), those that change carry their old format: `a_gif_restored.png`.
"""

import glob
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..datasets.photos import PHOTO_SUFFIXES, find_photos

WRITTEN_AS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
"""Formats that Pillow alone writes a photograph in as it came; all others become PNG."""


@dataclass(frozen=True, slots=True)
class Job:
    """One photograph to do."""

    source: Path
    target: Path
    mask: Path | None = None
    """A picture that is white where to restore; None is everywhere."""
    damage: Path | None = None
    """A picture that is white where nothing of the photograph is left."""
    mask_target: Path | None = None
    """Where the mask of what was found damaged goes, if anywhere."""


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    below: Path
    """Its folder, below the one that was given."""
    is_named: bool
    """Named outright, not come upon in a folder or by a pattern."""


def plan_jobs(
    inputs: Iterable[Path],
    out: Path,
    *,
    suffix: str = "_restored",
    recursive: bool = True,
    extension: str = "auto",
    writable: Collection[str] = frozenset(WRITTEN_AS),
    save_mask: bool = False,
    skip_existing: bool = False,
    others: Sequence[Path] = (),
) -> list[Job]:
    """Find the photographs and name their results.

    Args:
        inputs: Photographs, folders of them, or patterns with `*`, `?` and `[`.
        out: Folder for the results. One inside a folder that is searched is passed over: it holds
            results of earlier runs.
        suffix: Added to the names.
        recursive: Whether what lies below a folder counts too.
        extension: Of the results, as in `png`; `auto` keeps each photograph's own.
        writable: Extensions that `auto` keeps, in lower case; all others become `.png`.
        save_mask: Whether each result has a mask, `{stem}{suffix}_mask.png`.
        skip_existing: Results that are there stay. A result beside its photograph is then passed
            over too; it would be written over otherwise, and is refused.
        others: Folders to pass over as well.

    Raises:
        ValueError: If an input does not exist, none holds a photograph, two photographs would be
            written to one file, or one over an original.
    """
    if any(character in suffix for character in "/\\\0"):
        raise ValueError(f"suffix must be a part of a file name, without / or \\, got {suffix!r}")
    places = _Places()
    found: dict[Path, _Found] = {}
    for photo in _find(inputs, recursive, [out, *others]):
        found.setdefault(places.of(photo.path), photo)
    if not found:
        raise ValueError(f"no photographs but the results in {out}")
    jobs = _name(found.values(), out, suffix, extension, writable)
    if save_mask:
        jobs = _with_mask_targets(jobs)
    if skip_existing:
        results = {places.of(job.target) for job in jobs}
        jobs = [
            job
            for job, photo in zip(jobs, found.values(), strict=True)
            if photo.is_named or places.of(job.source) not in results
        ]
    check_targets(jobs)
    return jobs


def check_targets(jobs: Iterable[Job], others: Iterable[Path] = ()) -> None:
    """Refuse what would be written over an original.

    Args:
        jobs: With all they write.
        others: Files that are written beside them.

    Raises:
        ValueError: If there is such a thing.
    """
    jobs = list(jobs)
    places = _Places()
    originals = {
        places.of(path)
        for job in jobs
        for path in (job.source, job.mask, job.damage)
        if path is not None
    }
    # A photograph that is a link stands for what it points to.
    originals |= {path.resolve() for path in originals if path.is_symlink()}
    wanted = list(others)
    for job in jobs:
        wanted.append(job.target)
        if job.mask_target is not None:
            wanted += [job.mask_target, job.mask_target.with_suffix(".tif")]
    for path in wanted:
        if places.of(path) in originals:
            raise ValueError(f"{path} would be overwritten; choose another --out or --suffix")


def _find(inputs: Iterable[Path], recursive: bool, passed_over: Sequence[Path]) -> Iterator[_Found]:
    for source in inputs:
        if not source.exists() and glob.has_magic(str(source)):
            for match, root in _expand(source):
                yield from _find_in(match, root, recursive, passed_over, is_named=False)
        else:
            root = source if source.is_dir() else source.parent
            yield from _find_in(source, root, recursive, passed_over, is_named=True)


def _find_in(
    source: Path, root: Path, recursive: bool, passed_over: Sequence[Path], *, is_named: bool
) -> Iterator[_Found]:
    """Find what a file or folder holds; `root` is where the tree begins that is kept."""
    if not source.is_dir():
        (path,) = find_photos(source)
        yield _Found(path, path.parent.relative_to(root), is_named)
        return
    resolved = source.resolve()
    inside = {folder.resolve() for folder in passed_over}
    inside = {folder for folder in inside if resolved in folder.parents}
    for path in find_photos(source, recursive=recursive):
        if inside and not inside.isdisjoint(path.resolve().parents):
            continue
        yield _Found(path, path.parent.relative_to(root), is_named=False)


def _expand(pattern: Path) -> list[tuple[Path, Path]]:
    """Return what matches a pattern, and the fixed part of it; files that are no photographs are
    passed over as in a folder.
    """
    parts = pattern.parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    variable = [*parts[fixed:], *(["*"] if parts[-1] == "**" else [])]
    found = []
    for path in sorted(set(root.glob("/".join(variable)))):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.is_dir():
            # What lies below folders that ** has passed through matches by itself.
            found += [] if "**" in parts else [path]
        elif path.suffix.lower() in PHOTO_SUFFIXES:
            found.append(path)
    if not found:
        raise ValueError(f"no photographs match {pattern}")
    return [(path, root) for path in found]


def _name(
    found: Iterable[_Found], out: Path, suffix: str, extension: str, writable: Collection[str]
) -> list[Job]:
    """Name the results, in the same order."""
    found = list(found)
    targets = []
    groups: dict[Path, list[int]] = defaultdict(list)
    for number, photo in enumerate(found):
        path = photo.path
        kept = _keeps_extension(path, extension, writable)
        new = path.suffix if kept else ".png" if extension == "auto" else f".{extension}"
        targets.append(out / photo.below / f"{path.stem}{suffix}{new}")
        groups[targets[-1]].append(number)
    for target, members in groups.items():
        for number in members if len(members) > 1 else ():
            path = found[number].path
            if path.suffix and not _keeps_extension(path, extension, writable):
                name = f"{path.stem}_{path.suffix[1:]}{suffix}{target.suffix}"
                targets[number] = target.with_name(name)
    taken: dict[Path, Path] = {}
    for photo, target in zip(found, targets, strict=True):
        other = taken.setdefault(target, photo.path)
        if other is not photo.path:
            raise ValueError(
                f"{other} and {photo.path} would both be written to {target}; restore "
                "them into different folders"
            )
    return [Job(photo.path, target) for photo, target in zip(found, targets, strict=True)]


def _keeps_extension(path: Path, extension: str, writable: Collection[str]) -> bool:
    old = path.suffix.lower()
    return old in writable if extension == "auto" else old == f".{extension}"


def _with_mask_targets(jobs: Sequence[Job]) -> list[Job]:
    """Name the masks after the results; `a.jpg` and `a.jpeg` have one each."""
    stems: dict[Path, int] = defaultdict(int)
    for job in jobs:
        stems[job.target.with_suffix("")] += 1
    taken = {job.target for job in jobs}
    masked = []
    for job in jobs:
        stem = job.target.with_suffix("")
        twin = f"_{job.target.suffix[1:]}" if stems[stem] > 1 else ""
        mask = stem.with_name(f"{stem.name}{twin}_mask.png")
        if mask in taken:
            raise ValueError(
                f"the mask of {job.source} and another photograph would both be written to "
                f"{mask}; choose another --suffix"
            )
        masked.append(replace(job, mask_target=mask))
    return masked


class _Places:
    """Where files really lie, asking the file system once for each folder."""

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def of(self, path: Path) -> Path:
        """Return the path of a file without links in its folders; the file may be a link."""
        if (folder := self._folders.get(path.parent)) is None:
            folder = self._folders[path.parent] = path.parent.resolve()
        return folder / path.name
