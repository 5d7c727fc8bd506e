"""A pack of textures on disk: lossless WebP as scans look, and a manifest that declares them.

Those on dark ground show opacity as light; those on light ground 255 less it. The manifest
`textures.json` comes last, so a folder has one or is unfinished. The same arguments give the same
bytes under the same versions of NumPy and of Pillow's libwebp, and the same pixels under any of
the latter.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from .families import DARKENING, ROTA, draw, plan

MANIFEST = "textures.json"
SHEET = "sheet.png"
"""The one other file that may lie in a pack; it goes when the pack is written anew."""

_UNFINISHED = "textures.json.part"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What the manifest says of one texture."""

    file: str
    """Name in the folder."""
    family: str
    number: int
    ground: str
    """dark: light marks on black, which whiten; light: dark marks on white, which darken."""
    sha256: str
    """Of the file, in hexadecimal."""

    @property
    def name(self) -> str:
        """As in a bank."""
        return f"{self.family}-{self.number:04d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What `write_pack` has done."""

    entries: tuple[Entry, ...]
    bytes: int
    """Of all textures together."""


def write_pack(
    folder: Path | str,
    *,
    count: int = 64,
    size_px: int = 1024,
    seed: int = 0,
    progress: bool = False,
) -> Written:
    """Draw textures into a folder; a pack that is there already, finished or not, is replaced.

    Args:
        folder: Made if it is not there.
        count: How many, at least 1.
        size_px: Side of each, at least 64.
        seed: 0 or more.
        progress: Show a bar.

    Raises:
        ValueError: If an argument is out of range, or the folder holds other files.
    """
    folder = Path(folder)
    numbered = plan(count=count, size_px=size_px, seed=seed, first=0, families=ROTA)
    old = _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"{family}-{number:04d}.webp" for number, family in numbered]
    # From here on the folder is known by what it will hold and still holds.
    _replace(folder / _UNFINISHED, _as_json({"files": sorted({*old, *files})}))
    (folder / MANIFEST).unlink(missing_ok=True)
    entries, total = [], 0
    for file, (number, family) in tqdm(
        list(zip(files, numbered, strict=True)), "textures", disable=not progress
    ):
        opacity = draw(seed=seed, index=number, size_px=size_px, family=family)
        ground = "light" if family in DARKENING else "dark"
        data = _encode(255 - opacity if ground == "light" else opacity)
        _replace(folder / file, data)
        entries.append(
            Entry(
                file=file,
                family=family,
                number=number,
                ground=ground,
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
        total += len(data)
    for file in set(old) - set(files):
        (folder / file).unlink(missing_ok=True)
    manifest = {
        "version": _VERSION,
        "count": count,
        "size_px": size_px,
        "seed": seed,
        "textures": [asdict(entry) for entry in entries],
    }
    _replace(folder / MANIFEST, _as_json(manifest))
    (folder / _UNFINISHED).unlink()
    return Written(entries=tuple(entries), bytes=total)


def read_pack(folder: Path | str) -> tuple[NDArray[np.uint8], tuple[Entry, ...]]:
    """Read the opacities (N, S, S) of a pack, 0 for clean whatever the ground, and its manifest.

    Raises:
        ValueError: If there is no manifest, or files are missing or not as it says; names them.
    """
    folder = Path(folder)
    size_px, entries = _read_manifest(folder)
    opacities = np.empty((len(entries), size_px, size_px), np.uint8)
    bad = []
    for i, entry in enumerate(entries):
        try:
            data = (folder / entry.file).read_bytes()
        except OSError as error:
            bad.append(f"{entry.file} ({error.strerror or error})")
            continue
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            bad.append(f"{entry.file} (not the bytes that the manifest says)")
            continue
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("L"))
        if pixels.shape != (size_px, size_px):
            bad.append(f"{entry.file} ({pixels.shape[1]} x {pixels.shape[0]} px, not {size_px})")
            continue
        opacities[i] = 255 - pixels if entry.ground == "light" else pixels
    if bad:
        raise ValueError(
            f"{len(bad)} textures in {folder} are damaged: {'; '.join(bad)}; write the pack anew "
            "with agedphoto textures, or install agedphoto anew if it is its own"
        )
    return opacities, entries


def _read_manifest(folder: Path) -> tuple[int, tuple[Entry, ...]]:
    path = folder / MANIFEST
    if not path.is_file():
        what = "an unfinished pack" if (folder / _UNFINISHED).is_file() else "no pack of textures"
        raise ValueError(
            f"{folder} is {what}: it has no {MANIFEST}; make one with agedphoto textures {folder}, "
            "or read scans of your own with TextureBank.from_scans"
        )
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["version"]
        entries = tuple(Entry(**item) for item in manifest["textures"]) if version == 1 else ()
        size_px = int(manifest["size_px"])
        sound = all(Path(e.file).name == e.file and e.ground in ("dark", "light") for e in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no manifest of textures: {error!r}; write the pack anew with agedphoto "
            "textures"
        ) from error
    if version != _VERSION or not entries or not sound or size_px < 1:
        raise ValueError(
            f"{path} has version {version!r}, or textures, that this agedphoto does not read; "
            "write the pack anew with agedphoto textures"
        )
    return size_px, entries


def _check_folder(folder: Path) -> list[str]:
    """Return the files of an earlier pack in a folder; refuse any others."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"a pack needs a folder, got the file {folder}; choose another name")
    if not folder.is_dir():
        return []
    known: set[str] = set()
    for name in (MANIFEST, _UNFINISHED):
        if (folder / name).is_file():
            known |= {SHEET, *_files_named_in(folder / name)}
    there = {path.name for path in folder.iterdir()}
    ours = {MANIFEST, _UNFINISHED, *known}
    strangers = sorted(there - ours - {_temporary(name) for name in ours})
    if strangers:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise ValueError(
            f"{folder} holds other files: {', '.join(strangers[:3])}{more}; choose an empty folder "
            "or a new one"
        )
    for name in there & {_temporary(name) for name in ours}:
        (folder / name).unlink()
    return sorted(known & there)


def _files_named_in(path: Path) -> set[str]:
    try:
        data: Any = json.loads(path.read_bytes())
        named = data.get("files") or [item["file"] for item in data["textures"]]
        return {name for name in named if Path(name).name == name and name.endswith(".webp")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "WEBP", lossless=True, quality=75, method=4)
    return held.getvalue()


def _temporary(name: str) -> str:
    return f".{name}.tmp"


def _replace(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it: whole or not there."""
    temporary = path.with_name(_temporary(path.name))
    temporary.write_bytes(data)
    temporary.replace(path)


def _as_json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
