"""The command `agedphoto`: one verb for each thing that people do with it.

Exit status: 0 all done; 1 something was not processed (named, the rest is done); 2 nothing was
started. A user's mistake is one line that says name, value and remedy; AGEDPHOTO_TRACEBACK=1 shows
where it was noticed.
"""

import errno
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agedphoto.datasets import Format
from agedphoto.synth import Mode
from agedphoto.train import TrainConfig
from agedphoto.training import UnfinishedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """Age, train and restore on a few photos, and write a report: the whole way in minutes."""

    out: Path = Path("agedphoto-demo")
    """Folder for the report; an earlier demo in it is replaced."""
    photos: Path | None = None
    """Folder of your own photos; the default is a handful that come with scikit-image."""
    recipe: str = "seed"
    """How photos age."""
    num_pairs: int = 60_000
    """How many aged / clean pairs to train on."""
    minutes: float = 4.5
    """When to stop training, if that comes sooner."""
    seed: int = 0
    """Of everything drawn at random."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def run(self) -> int:
        """Run the demo."""
        from agedphoto.demo import run_demo

        done = run_demo(
            self.out,
            photos=self.photos,
            recipe=self.recipe,
            num_pairs=self.num_pairs,
            minutes=self.minutes,
            seed=self.seed,
            device=self.device,
            progress=True,
        )
        for name, reason in done.left_out:
            _warn(f"left out: {name}: {reason}")
        print(
            f"aged {done.record['psnr_aged_db']:.2f} dB -> best blur "
            f"{done.record['psnr_blur_db']:.2f} dB -> restored "
            f"{done.record['psnr_restored_db']:.2f} dB (PSNR, held-out photos)"
        )
        print(f"report: {done.report.resolve()}")
        return 1 if done.unreadable else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Store photos in WebDataset shards with an index, ready to train on."""

    source: Annotated[Path, tyro.conf.Positional]
    """Folder of photos, searched with all below it."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the shards; splits that are in it stay."""
    split: str = "train"
    """Name of the split that these photos make."""
    format: Format = "htj2k"
    """How photos are stored; all but jpeg are lossless."""
    quality: int = 95
    """1 to 100, for jpeg."""
    shard_mb: float = 256
    """A shard that has reached this many megabytes is closed."""

    def run(self) -> int:
        """Write the shards."""
        from agedphoto.datasets import find_photos, write_shards

        if not 0 < self.shard_mb < math.inf:
            raise ValueError(f"shard_mb must be finite and above 0, got {self.shard_mb}")
        done = write_shards(
            find_photos(self.source),
            self.out,
            split=self.split,
            root=self.source if self.source.is_dir() else None,
            format=self.format,
            quality=self.quality,
            shard_bytes=int(self.shard_mb * 1e6),
            progress=True,
        )
        for _, reason in done.rejected:
            _warn(f"left out: {reason}")
        shards = [shard for shard in done.index.shards if shard.split == self.split]
        size = sum(shard.bytes for shard in shards)
        print(f"{done.written} photos in {len(shards)} shards, {size / 1e6:.1f} MB: {self.out}")
        return 1 if done.rejected else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train a network on shards; on 8 GPUs: torchrun --nproc-per-node 8 -m agedphoto train ..."""

    shards: str
    """Folder or URL of shards with an index."""
    out: Path
    """Folder for model.safetensors, log.jsonl and config.json; it must not hold a model yet."""
    mode: Mode = "grayscale"
    """What the network sees and answers."""
    recipe: str = "seed"
    """How photos age."""
    crop_px: int = 128
    """Side of the square crops."""
    batch_size: int = 32
    """Pairs of a batch on each rank."""
    crops_per_photo: int = 16
    """Crops that an epoch takes of each photo."""
    seed: int = 0
    """Of the order, the crops and the ageing."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; under torchrun auto is one GPU a rank."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the configuration and what it implies, and stop."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def run(self) -> int:
        """Train."""
        from agedphoto.training import run_training

        described = run_training(
            self.shards,
            self.out,
            self.train,
            mode=self.mode,
            recipe=self.recipe,
            crop_px=self.crop_px,
            batch_size=self.batch_size,
            crops_per_photo=self.crops_per_photo,
            seed=self.seed,
            device=self.device,
            dry_run=self.dry_run,
            warn=_warn,
        )
        if described:
            print(json.dumps(described, indent=1))
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Restore:
    """Restore old photos; originals are never touched."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    """Photos, or folders of photos, searched with all below them."""
    out: Path
    """Folder for the results."""
    model: str = "grayscale"
    """Name of a model that comes with agedphoto, a .safetensors file, or a folder of a training."""
    strength: float = 1.0
    """0 leaves photos as they are, 1 restores fully."""
    suffix: str = "_restored"
    """Added to the names of the results."""
    tile: int | Literal["auto"] = "auto"
    """Side in pixels of the tiles that large photos are done in."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def run(self) -> int:
        """Restore the photographs."""
        from tqdm import tqdm

        from agedphoto.datasets.files import check_writable
        from agedphoto.restore import Restorer, plan_jobs, restore_photos

        if not self.inputs:
            raise ValueError("no photographs given; name at least one photo or folder")
        jobs = plan_jobs(self.inputs, self.out, suffix=self.suffix)
        restorer = Restorer.from_pretrained(self.model, device=self.device)
        restorer.check(strength=self.strength, tile=self.tile)
        check_writable(self.out)
        failed = tiles = 0
        with tqdm(total=len(jobs), desc="restore", unit="photo") as bar:

            def show_tile() -> None:
                # A large photo takes minutes; its tiles show that it moves.
                nonlocal tiles
                tiles += 1
                bar.set_postfix_str(f"{tiles} tiles")

            for done in restore_photos(
                restorer, jobs, strength=self.strength, tile=self.tile, on_tile=show_tile
            ):
                bar.update()
                if done.error:
                    failed += 1
                    bar.clear()
                    _warn(f"not restored: {done.error}")
        print(f"{len(jobs) - failed} of {len(jobs)} photos restored: {self.out}")
        return 1 if failed else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Doctor:
    """Show versions, devices and decoders, what `auto` would take, and a remedy for each fault."""

    def run(self) -> int:
        """Examine this machine."""
        from agedphoto.doctor import examine

        findings = examine()
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{finding.mark} {finding.name:<{width}}  {finding.value}")
            if finding.remedy:
                print(f"  {'':<{width}}  -> {finding.remedy}")
        return 1 if any(finding.broken for finding in findings) else 0


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Shard, tyro.conf.subcommand("shard")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Restore, tyro.conf.subcommand("restore")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)

_HALF_WAY = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of the file system that come when work is already under way."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `agedphoto` with the given arguments, or those of the process; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        from agedphoto import __version__

        print(f"agedphoto {__version__}")
        return 0
    if any(word == "" and before != "--suffix" for before, word in pairwise(["", *arguments])):
        _warn("an argument is empty; it may come from a variable that is not set")
        return 2
    try:
        # Inside: a configuration checks itself as it is made.
        command = tyro.cli(
            Command,
            prog="agedphoto",
            description="Turn clean photographs into aged / clean pairs, train on them, restore.",
            args=arguments,
        )
        return command.run()
    except KeyboardInterrupt:
        _warn("interrupted; nothing is left half-written")
        return 130
    except (ValueError, FloatingPointError, OSError, UnfinishedError) as error:
        if os.environ.get("AGEDPHOTO_TRACEBACK"):
            raise
        _warn(_one_line(error))
        return (
            1
            if isinstance(error, FloatingPointError | UnfinishedError) or _is_half_way(error)
            else 2
        )


def _is_half_way(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _HALF_WAY


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        remedy = "; free some space, or choose another folder" if _is_half_way(error) else ""
        return f"{error.strerror}{place}{remedy}"
    return str(error) or type(error).__name__


def _warn(message: str) -> None:
    # A file name may hold line breaks; a message is one line all the same.
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    print(f"agedphoto: {plain}", file=sys.stderr)
