"""Make the weights that come with agedphoto: photographs to shards to networks to `restore/`.

    python weights/make.py --data DATA --out runs/weights

Does what weights/README.md says, by the commands of agedphoto itself, which it prints. Broken off,
the same command goes on. Nothing in `restore/` changes before all networks are trained.
"""

import hashlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from agedphoto.cli import main as agedphoto
from agedphoto.datasets import open_index
from agedphoto.datasets.files import write_bytes
from agedphoto.datasets.photos import PHOTO_SUFFIXES
from agedphoto.restore.models import CHECKSUMS
from agedphoto.train import LabNet, UNet, load_model, save_model

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "restore"
HELD_OUT = HERE / "held_out.txt"
TRAINED_ON = {"photos": "", "photos_more": "more_", "div2k_like/DIV2K_train_HR": ""}
"""Folders of DATA, and what is put before their names; the order of the photos is that of names."""
VALIDATED_ON = "div2k_like/DIV2K_valid_HR"
"""A folder of DATA; the photographs of `held_out.txt` join it."""
NEVER = "pypi_samples_"
"""Photographs that the demo, the page and the tests show: to be restored, not to be known."""

COMMON = "--preset tiny --seed 0 --init-seed 0"
WEAR = "--crop-px 96 --batch-size 32 --lr 2e-3 --validate-every 20000"
COMMANDS = {
    "grayscale": f"{COMMON} --mode grayscale --recipe mixed_wear {WEAR} --ema-half-life 20000 "
    "--num-pairs 360000 --max-minutes 112",
    "lab": f"{COMMON} --mode lab --validate-every 5000 --num-pairs 110000 --max-minutes 36",
    "color": f"{COMMON} --mode color --recipe mixed_wear_in_color {WEAR} "
    "--num-pairs 140000 --max-minutes 36",
    "rgb": f"{COMMON} --mode rgb --recipe mixed_wear {WEAR} --num-pairs 100000 --max-minutes 26",
}
"""What `agedphoto train` is given, beside the shards and a folder for the run."""
STORED = torch.float16


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to make, out of what."""

    data: Path
    """Folder with the photographs, see weights/README.md."""
    out: Path = Path("runs/weights")
    """Folder for shards and runs."""
    only: tuple[str, ...] = tuple(COMMANDS)
    """Which models; lab needs grayscale to be there."""
    keep: bool = False
    """Leave `restore/` as it is."""


def main(options: Options) -> int:
    """Make them; return the exit status."""
    unknown = [name for name in options.only if name not in COMMANDS]
    if unknown:
        raise ValueError(f"unknown model {unknown[0]!r}; there are: {', '.join(COMMANDS)}")
    shards = options.out / "shards"
    for split, photos in gather(options.data).items():
        if split in _splits(shards):
            continue
        status = _run(f"shard {link(photos, options.out / split)} {shards} --split {split}")
        if status:
            return status
    for name in options.only:
        status = _run(f"train --shards {shards} --out {options.out / name} {COMMANDS[name]}")
        if status:
            return status
    if not options.keep:
        for name in options.only:
            print(f"stored: {store(options.out, name, SHIPPED)}")
        write_checksums(SHIPPED)
    return 0


def gather(data: Path) -> dict[str, dict[str, Path]]:
    """Return the photographs of each split by the names that they get.

    Raises:
        ValueError: If a folder or a held-out photograph is missing.
    """
    held_out = set(HELD_OUT.read_text().split())
    train: dict[str, Path] = {}
    valid = dict(_photos(data / VALIDATED_ON))
    for folder, prefix in TRAINED_ON.items():
        for name, path in _photos(data / folder):
            if not name.startswith(NEVER):
                (valid if name in held_out else train)[prefix + name] = path
    missing = held_out - valid.keys()
    if missing:
        raise ValueError(f"data lacks {min(missing)}, which is held out; give the whole set")
    return {"train": train, "valid": valid}


def link(photos: dict[str, Path], folder: Path) -> Path:
    """Make a folder of links to photographs, by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in photos.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(path.resolve())
    return folder


def store(runs: Path, name: str, folder: Path) -> Path:
    """Write the result of a run, its weights rounded, as the model of that name."""
    net, card = load_model(runs / name / "model.safetensors")
    if isinstance(net, LabNet):
        # Colours alone restore nothing.
        luminance, _ = load_model(runs / "grayscale" / "model.safetensors")
        assert isinstance(luminance, UNet)
        net = LabNet(net.color, luminance)
    path = folder / f"{name}.safetensors"
    save_model(path, net, mode=card.mode, training=card.training, stored=STORED)
    return path


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every model, in the form that `sha256sum --check` reads."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.safetensors"))
    ]
    write_bytes(folder / CHECKSUMS, "".join(lines).encode())


def _splits(shards: Path) -> tuple[str, ...]:
    return open_index(str(shards)).splits if (shards / "index.json").exists() else ()


def _photos(folder: Path) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise ValueError(f"no such folder: {folder}; weights/README.md says what data holds")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PHOTO_SUFFIXES:
            yield path.name, path


def _run(command: str) -> int:
    print(f"$ agedphoto {command}", flush=True)
    return agedphoto(shlex.split(command))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
