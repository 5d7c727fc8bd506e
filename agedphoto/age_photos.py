"""Photographs in, aged photographs out: upright, in sRGB, originals untouched.

A photograph's key is a function of the seed and its name below the folder that was given. So it
ages alike alone or among others, whatever is added to the folder or taken away; its place in the
list would change with every photograph before it, and its content with every edit.
"""

import errno
import hashlib
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms

from agedphoto.age_params import Drawn
from agedphoto.age_tiles import AgedPicture, age_tiled
from agedphoto.datasets.files import check_writable, write_bytes
from agedphoto.datasets.photos import PIXEL_LIMIT, open_upright, to_srgb
from agedphoto.restore.photos import WRITTEN_AS, plan_jobs
from agedphoto.synth import Ageing, EndlessTextures, Mode, Recipe, sample_keys
from agedphoto.synth.types import Keys, Params
from agedphoto.textures import TextureBank

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""Errors that will meet the other photographs too."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_deflate"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AgeJob:
    """One photograph to age."""

    source: Path
    name: str
    """Below the folder that was given, with slashes; of a photograph named outright, the file's."""
    target: Path
    mask: Path | None = None
    """Where the damage mask goes, if anywhere."""
    params: Path | None = None
    """Where what was drawn goes, if anywhere."""
    replay: Path | None = None
    """Where to read what is not to be drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Aged:
    """What became of it."""

    job: AgeJob
    error: str = ""
    """Why it was not aged; empty if it was."""


def plan_ageing(
    inputs: Iterable[Path],
    out: Path,
    *,
    suffix: str = "_aged",
    save_mask: bool = False,
    save_params: bool = False,
    replay: Path | None = None,
) -> list[AgeJob]:
    """Find the photographs and name their results.

    Args:
        inputs: Photographs, or folders, searched with all below; their tree is kept.
        out: Folder for the results: `a_aged.jpg`, `a_aged_mask.png` and `a_aged.json`.
        suffix: Added to the names.
        save_mask: Whether there are masks.
        save_params: Whether there are JSON files.
        replay: A JSON file for all photographs, or a folder of them, named as they were saved.

    Raises:
        ValueError: If an input does not exist, none holds a photograph, two results would be
            written to one file, or one over an original.
    """
    jobs = []
    for job in plan_jobs(inputs, out, suffix=suffix):
        below = job.target.parent.relative_to(out)
        stem = job.target.with_suffix("")
        replayed = replay
        if replay is not None and replay.is_dir():
            replayed = replay / below / f"{stem.name}.json"
        jobs.append(
            AgeJob(
                source=job.source,
                name=(below / job.source.name).as_posix(),
                target=job.target,
                mask=stem.with_name(f"{stem.name}_mask.png") if save_mask else None,
                params=stem.with_name(f"{stem.name}.json") if save_params else None,
                replay=replayed,
            )
        )
    check_targets(jobs)
    return jobs


def check_targets(jobs: Iterable[AgeJob], others: Iterable[Path] = ()) -> None:
    """Refuse what would be written over an original, or over another result.

    Args:
        jobs: With all they write.
        others: Files that are written beside them.

    Raises:
        ValueError: If there is such a thing.
    """
    jobs = list(jobs)
    originals = {job.source.resolve() for job in jobs}
    taken: dict[Path, object] = {}
    wanted: list[tuple[Path, object]] = [(path, "contact sheets") for path in others]
    for job in jobs:
        wanted += [(path, job.source) for path in (job.target, job.mask, job.params) if path]
    for path, source in wanted:
        if path in taken:
            raise ValueError(
                f"{taken[path]} and {source} would both be written to {path}; use different "
                "folders, or another --suffix"
            )
        taken[path] = source
        if path.resolve() in originals:
            raise ValueError(f"{path} would be overwritten; choose another --out or --suffix")


def photo_key(seed: int, name: str) -> Keys:
    """Return the key (1,) of a photograph: of its name and the seed alone."""
    # macOS writes an umlaut as two characters, other systems as one.
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode(errors="surrogateescape"))
    number = int.from_bytes(digest.digest()[:8], "big") >> 1
    return sample_keys(seed, 0, torch.tensor([number]), torch.zeros(1, dtype=torch.int64))


def age_photos(
    jobs: Iterable[AgeJob],
    *,
    recipe: Recipe,
    seed: int = 0,
    mode: Mode = "color",
    device: torch.device,
    textures: TextureBank | EndlessTextures | None = None,
    num_ageings: int = 1,
    show: Callable[[AgeJob, int, np.ndarray], object] = lambda *_: None,
    on_tile: Callable[[], object] = lambda: None,
) -> Iterator[Aged]:
    """Age photographs one after the other; one that cannot be done stops none of the others.

    Args:
        jobs: Of `plan_ageing`.
        recipe: How they age, but for those that are replayed.
        seed: Of what is drawn.
        mode: `color`, or `grayscale`.
        device: Where.
        textures: Wear to draw from; None is the pack that is shipped.
        num_ageings: How often each photograph ages, with seeds from `seed` on; only the first
            result is written.
        show: Told the original (number 0), and every aged picture (from 1 on), as 8-bit arrays.
        on_tile: Called after each tile of a picture.

    Raises:
        ValueError: If the textures lack what the recipe wants of them; nothing was done then.
        OSError: If the disk is full; no half-written file stays.
    """
    jobs = list(jobs)
    ager = _Ager(recipe, mode, device, textures, on_tile)
    if any(job.replay is None for job in jobs):
        ager.check()
    for job in jobs:
        error = ""
        try:
            check_writable(job.target.parent)
            image = open_upright(job.source, pixel_limit=PIXEL_LIMIT)
            kept = _metadata(image)
            picture = np.asarray(to_srgb(image))
            del image
            show(job, 0, picture)
            ageing, keys, params, drawn = ager.draw(job, seed, picture)
            aged = ager.age(ageing, picture, keys, params)
            _write(job, aged, drawn, kept)
            show(job, 1, aged.aged)
            del aged
            for number in range(1, num_ageings):
                again, keys, params, _ = ager.draw(
                    replace(job, replay=None), (seed + number) % 2**64, picture
                )
                show(job, number + 1, ager.age(again, picture, keys, params).aged)
        except (ValueError, IndexError) as reason:
            error = str(reason)
        except OSError as reason:
            if reason.errno in DISK_IS_FULL:
                raise
            error = f"{job.source}: {reason.strerror or reason}: {reason.filename or job.target}"
        yield Aged(job=job, error=error)


class _Ager:
    """Ages pictures on one device, after one recipe or those of what is replayed."""

    def __init__(
        self,
        recipe: Recipe,
        mode: Mode,
        device: torch.device,
        textures: TextureBank | EndlessTextures | None,
        on_tile: Callable[[], object],
    ) -> None:
        self._textures, self._device, self._on_tile = textures, device, on_tile
        self._ageing = self._make(recipe, mode)
        self._replaying = self._ageing
        self._fingerprint: str | None = None

    def check(self) -> None:
        """Raise ValueError if nothing can be drawn, from these textures."""
        self._ageing.sample(photo_key(0, "").to(self._device), size=(16, 16))

    def draw(
        self, job: AgeJob, seed: int, picture: np.ndarray
    ) -> tuple[Ageing, Keys, list[Params], Drawn]:
        """Draw what happens to a photograph, or read it."""
        H, W, _ = picture.shape
        if job.replay is not None:
            drawn = Drawn.read(job.replay)
            if drawn.size != (H, W):
                raise ValueError(
                    f"{job.source}: is {W} x {H} px, but {job.replay} was drawn for {drawn.size[1]}"
                    f" x {drawn.size[0]} px; a replay needs the same size"
                )
            if (drawn.recipe, drawn.mode) != (self._replaying.recipe, self._replaying.mode):
                self._replaying = self._make(drawn.recipe, drawn.mode)
            ageing = self._replaying
            try:
                keys, params = drawn.restore(
                    ageing, device=self._device, textures=self._fingerprint_of(ageing)
                )
            except ValueError as error:
                raise ValueError(f"{job.replay}: {error}") from error
            return ageing, keys, params, replace(drawn, photo=job.name)
        ageing = self._ageing
        keys = photo_key(seed, job.name).to(self._device)
        params = ageing.sample(keys, size=(H, W))
        drawn = Drawn.of(
            ageing,
            params,
            photo=job.name,
            keys=keys,
            size=(H, W),
            textures=self._fingerprint_of(ageing) if job.params else None,
        )
        return ageing, keys, params, drawn

    def age(
        self, ageing: Ageing, picture: np.ndarray, keys: Keys, params: list[Params]
    ) -> AgedPicture:
        """Age a picture as was drawn."""
        return age_tiled(ageing, picture, params, keys=keys, on_tile=self._on_tile)

    def _make(self, recipe: Recipe, mode: Mode) -> Ageing:
        ageing = Ageing(recipe, mode=mode, textures=self._textures, augment=False)
        if recipe.uses_textures:
            # One bank for all recipes that are replayed.
            self._textures = ageing.textures_on(self._device)
        return ageing

    def _fingerprint_of(self, ageing: Ageing) -> str | None:
        if not ageing.recipe.uses_textures:
            return None
        if self._fingerprint is None:
            # Hashing all textures takes longer than ageing a small photograph.
            self._fingerprint = ageing.textures_on(self._device).fingerprint[:16]
        return self._fingerprint


def _metadata(image: Image.Image) -> dict[str, Any]:
    """Return what is kept: resolution and EXIF; and, for one that had a profile, that of sRGB."""
    kept = {name: image.info[name] for name in ("dpi", "exif") if name in image.info}
    if image.info.get("icc_profile"):
        kept["icc_profile"] = _srgb_profile()
    return kept


def _srgb_profile() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Bytes 24 to 35 are the time at which it was made: the same photograph gives the same file.
    return profile[:24] + bytes(12) + profile[36:]


def _write(job: AgeJob, aged: AgedPicture, drawn: Drawn, kept: dict[str, Any]) -> None:
    """Write the aged photograph, and before it what belongs to it."""
    format = WRITTEN_AS[job.target.suffix.lower()]
    if aged.aged.ndim == 2:
        # A gray picture with a profile for colours cannot be read by some.
        kept = {name: value for name, value in kept.items() if name != "icc_profile"}
    try:
        data = _encoded(aged.aged, format, **_OPTIONS.get(format, {}), **kept)
    except (OSError, ValueError) as error:
        raise ValueError(f"{job.source}: cannot be written as {format}: {error}") from error
    if job.mask is not None:
        write_bytes(job.mask, _encoded(aged.mask.astype(np.uint8) * 255, "PNG"))
    if job.params is not None:
        text = json.dumps(drawn.to_dict(), indent=1, allow_nan=False)
        write_bytes(job.params, (text + "\n").encode())
    write_bytes(job.target, data)


def _encoded(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()
