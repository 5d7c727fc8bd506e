"""The command `agedphoto`: one verb for each thing that people do with it.

Exit status: 0 all done; 1 something was not processed (named, the rest is done); 2 nothing was
started. A user's mistake is one line that says name, value and remedy; AGEDPHOTO_TRACEBACK=1 shows
where it was noticed.
"""

import errno
import json
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agedphoto.age import Age
from agedphoto.app import App
from agedphoto.bench import Bench
from agedphoto.complaints import complain
from agedphoto.datasets import PhotoInput, StoredFormat
from agedphoto.evaluate import Evaluate
from agedphoto.exporting import Export
from agedphoto.pairs_out import Pairs
from agedphoto.restoring import Restore
from agedphoto.synth import Mode
from agedphoto.texture_pack import Textures
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
            complain(f"left out: {name}: {reason}")
        print(
            f"aged {done.record['psnr_aged_db']:.2f} dB -> best blur "
            f"{done.record['psnr_blur_db']:.2f} dB -> restored "
            f"{done.record['psnr_restored_db']:.2f} dB (PSNR, held-out photos)"
        )
        print(f"report: {done.report.resolve()}")
        return 1 if done.unreadable else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Store photos in WebDataset shards with an index; interrupted, the same command goes on."""

    source: Annotated[str, tyro.conf.Positional]
    """Folder of photos, searched with all below it; a zip of photos; or div2k, which is fetched."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the shards; splits that are in it stay."""
    split: str | None = None
    """Name of the split that these photos make, train if not given; div2k has its own."""
    format: StoredFormat = "htj2k"
    """How photos are stored; all but jpeg are lossless, keep leaves the bytes as they are."""
    quality: int | None = None
    """1 to 100, for jpeg; 95 if not given."""
    shard_mb: float = 256
    """A shard that has reached this many megabytes is closed."""
    part: str | None = None
    """I/N: make the I-th of N parts, anywhere, at any time; join them with agedphoto index OUT."""
    num_threads: int | None = None
    """Encoders at work; one a core if not given."""
    base_url: str | None = None
    """Where the zips of div2k lie, if not at their authors'."""
    test_from_train: int | None = None
    """Hold out so many photos of div2k's train, always the same, as split test."""
    test_photos: Path | None = None
    """Folder or zip of photos that make the split test beside div2k."""
    download_dir: Path | None = None
    """Where the zips of div2k are kept; OUT/downloads if not given."""

    def run(self) -> int:
        """Write the shards."""
        from agedphoto.datasets import ShardOptions, write_splits

        if not 0 < self.shard_mb < math.inf:
            raise ValueError(f"shard_mb must be finite and above 0, got {self.shard_mb}")
        if self.quality is not None and self.format != "jpeg":
            raise ValueError(f"quality is for format jpeg, got format {self.format}; leave it out")
        options = ShardOptions(
            format=self.format,
            quality=95 if self.quality is None else self.quality,
            shard_bytes=max(1, int(self.shard_mb * 1e6)),
        )
        part = _parse_part(self.part)
        self._check_options()
        begun = time.perf_counter()
        results = write_splits(
            self._find_splits(),
            self.out,
            options=options,
            part=part,
            num_threads=self.num_threads,
            progress=True,
        )
        seconds = time.perf_counter() - begun
        for split, done in results.items():
            for _, reason in done.rejected:
                complain(f"left out: {reason}")
            shards = [shard for shard in done.index.shards if shard.split == split]
            size = sum(shard.bytes for shard in shards) / 1e6

            also = f" ({done.resumed} of them were there already)" if done.resumed else ""
            where = f", {split}" if len(results) > 1 else ""
            print(
                f"{done.written} photos in {len(shards)} shards, {size:.1f} MB{where}: "
                f"{self.out}{also}"
            )
        new = sum(done.written - done.resumed for done in results.values())
        print(f"{new} photos in {seconds:.1f} s: {new / max(seconds, 1e-9):.1f} photos/s")
        return 1 if any(done.rejected for done in results.values()) else 0

    def _check_options(self) -> None:
        """Refuse options that mean nothing for this source."""
        if self.source == "div2k":
            wrong = [name for name in ("split", "part") if getattr(self, name) is not None]
            if self.test_from_train is not None and self.test_photos is not None:
                raise ValueError(
                    "test_from_train and test_photos are two ways to make the split test; "
                    "choose one"
                )
            why = "div2k makes its own splits, whole"
        else:
            names = ("base_url", "test_from_train", "test_photos", "download_dir")
            wrong = [name for name in names if getattr(self, name) is not None]
            why = f"it is for the source div2k, got {self.source}"
        if wrong:
            raise ValueError(f"{wrong[0]} does not go with this source: {why}; leave it out")

    def _find_splits(self) -> dict[str, list[PhotoInput]]:
        """Find the photographs of each split."""
        from agedphoto.datasets import find_inputs

        if self.source != "div2k":
            return {self.split or "train": find_inputs(Path(self.source))}

        from agedphoto.datasets.div2k import DIV2K_URL, fetch_div2k, test_names

        # First what may be a mistake, then the gigabytes.
        held_out = frozenset() if self.test_from_train is None else test_names(self.test_from_train)
        tests = [] if self.test_photos is None else find_inputs(self.test_photos)
        archives = fetch_div2k(
            self.download_dir or self.out / "downloads",
            base_url=self.base_url or DIV2K_URL,
            progress=True,
        )
        splits = {split: find_inputs(archive) for split, archive in archives.items()}
        if held_out:
            train = splits["train"]
            tests = [photo for photo in train if Path(photo.name).stem in held_out]
            if len(tests) != len(held_out):
                raise ValueError(
                    f"only {len(tests)} of the {len(held_out)} photos to hold out are in "
                    f"{archives['train']}; leave out --test-from-train, or fetch all of DIV2K"
                )
            splits["train"] = [photo for photo in train if Path(photo.name).stem not in held_out]
        return splits | ({"test": tests} if tests else {})


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """Join the parts of a folder of shards into one index.json, and index tars from elsewhere."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of shards."""

    def run(self) -> int:
        """Write the index."""
        from agedphoto.datasets import index_folder

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            done = index_folder(self.folder, progress=True)
        for warning in caught:
            complain(str(warning.message))
        for split, source, reason in done.rejected:
            complain(f"left out of {split}: {source}: {reason}")
        if not (done.joined or done.foreign):
            print("nothing new to index")
        for split in done.index.splits:
            photos = done.index.of_split(split)
            shards = [shard for shard in done.index.shards if shard.split == split]
            print(f"{len(photos)} photos in {len(shards)} shards, {split}: {self.folder}")
        return 1 if done.rejected or caught else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Compare every byte of shards with their index, and decode every photo."""

    shards: Annotated[str, tyro.conf.Positional]
    """Folder or URL of shards, or tars, braces allowed."""
    num_threads: int | None = None
    """Decoders at work; one a core if not given."""

    def run(self) -> int:
        """Verify the shards."""
        from agedphoto.datasets import open_index, verify_shards

        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {self.num_threads}")
        done = verify_shards(
            open_index(self.shards),
            num_threads=self.num_threads,
            on_fault=lambda fault: complain(str(fault)),
            progress=True,
        )
        seconds = max(done.seconds, 1e-9)
        rates = (
            f"{done.photos} photos, {done.bytes / 1e6:.1f} MB in {done.seconds:.1f} s: "
            f"{done.photos / seconds:.1f} photos/s, {done.bytes / 1e6 / seconds:.1f} MB/s"
        )
        if done.faults:
            print(f"{len(done.faults)} faults in {rates}")
            return 1
        print(f"all right: {rates}")
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train a network on shards; on 8 GPUs: torchrun --nproc-per-node 8 -m agedphoto train ...

    Broken off, by Ctrl-C, SIGTERM or worse, the same command goes on where it was.
    """

    shards: str
    """Folder or URL of shards with an index."""
    out: Path
    """Folder for all of this training: model, checkpoints, log, curves."""
    mode: Mode = "grayscale"
    """What the network sees and answers; lab colours whole photos."""
    recipe: str | None = None
    """How photos age: the name of a recipe, or a .json file of your own; if not given seed, for lab
    tones, for color faded_print."""
    textures: str = "pack"
    """Wear for the recipes that lay textures on photos: pack, endless, or a folder of scans."""
    crop_px: int = 128
    """Side of the square crops."""
    long_side_px: int | None = None
    """Mode lab: what the long side of whole photos is brought down to; if not given the preset's,
    128 for tiny, 192 for the others."""
    batch_size: int = 32
    """Pairs of a batch on each rank."""
    crops_per_photo: int | None = None
    """Crops that an epoch takes of each photo; if not given 16, and of whole photos (lab) 1."""
    seed: int = 0
    """Of the order, the crops and the ageing."""
    decoder: Literal["auto", "cpu", "dali"] = "auto"
    """Who decodes photos; doctor says what auto takes."""
    pool: Literal["device", "host"] = "device"
    """Where decoded photos are kept."""
    on_error: Literal["raise", "skip", "substitute"] = "raise"
    """About photos that cannot be read: stop, leave them out, or put others in their place."""
    cache_dir: Path | None = None
    """Where to keep what is read over the network; nowhere if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; under torchrun auto is one GPU a rank."""
    valid_split: str = "valid"
    """Split of the shards to measure on while training."""
    init: str | None = None
    """Weights to start from: name of a model, a .safetensors file, or a folder of a training."""
    luminance: str | None = None
    """Mode lab: model of mode grayscale that is to restore the luminance; kept with the colours."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Try some steps, print the configuration and what it implies, and stop."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def run(self) -> int:
        """Train."""
        from agedphoto.age_recipe import read_recipe
        from agedphoto.restore import find_model
        from agedphoto.training import run_training

        described = run_training(
            self.shards,
            self.out,
            self.train,
            mode=self.mode,
            recipe=None if self.recipe is None else read_recipe(self.recipe),
            textures=self.textures,
            crop_px=self.crop_px,
            long_side_px=self.long_side_px,
            valid_split=self.valid_split,
            init=None if self.init is None else find_model(self.init)[0],
            luminance=None if self.luminance is None else find_model(self.luminance)[0],
            batch_size=self.batch_size,
            crops_per_photo=self.crops_per_photo,
            seed=self.seed,
            device=self.device,
            loading={
                "decoder": self.decoder,
                "pool": self.pool,
                "on_error": self.on_error,
                "cache_dir": self.cache_dir,
            },
            dry_run=self.dry_run,
            warn=complain,
        )
        if described:
            print(json.dumps(described, indent=1))
        return 0


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
    | Annotated[Index, tyro.conf.subcommand("index")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Textures, tyro.conf.subcommand("textures")]
    | Annotated[Age, tyro.conf.subcommand("age")]
    | Annotated[Pairs, tyro.conf.subcommand("pairs")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Restore, tyro.conf.subcommand("restore")]
    | Annotated[App, tyro.conf.subcommand("app")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
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
        complain("an argument is empty; it may come from a variable that is not set")
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
    except KeyboardInterrupt as error:
        complain(_with_notes("interrupted; nothing is left half-written", error))
        return 130
    except (ValueError, FloatingPointError, OSError, UnfinishedError) as error:
        if os.environ.get("AGEDPHOTO_TRACEBACK"):
            raise
        complain(_one_line(error))
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
        return _with_notes(f"{error.strerror}{place}{remedy}", error)
    return _with_notes(str(error) or type(error).__name__, error)


def _with_notes(message: str, error: BaseException) -> str:
    """Add what those have noted on an error that it came by."""
    return "; ".join([message, *getattr(error, "__notes__", [])])


def _parse_part(part: str | None) -> tuple[int, int]:
    if part is None:
        return 1, 1
    if not (match := re.fullmatch(r"(\d+)/(\d+)", part)):
        raise ValueError(f"part must be I/N, such as 3/10, got {part!r}")
    return int(match[1]), int(match[2])
