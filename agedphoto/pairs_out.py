"""`agedphoto pairs`: aged / clean pairs as files, for trainers that read nothing else.

    OUT/clean/00000000.png  aged/...  mask/...  params.jsonl      one line of JSON a pair
    OUT/pairs-000000.tar                                          or WebDataset shards of all that
    OUT/pairs.json                                                comes last: how all was made

Pair number n is the n-th of `AgedPairs`, whatever was written before; so a run that was killed goes
on at the first pair that is not there, and ends with the bytes of one that was not. Nothing under
its final name is ever half-written.
"""

import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import imagecodecs
import numpy as np
import torch
import tyro
from tqdm import tqdm

from agedphoto.age_params import plain_params
from agedphoto.age_recipe import read_recipe
from agedphoto.age_tiles import to_levels
from agedphoto.complaints import complain
from agedphoto.datasets import AgedPairs, Batch, ShardIndex, open_index
from agedphoto.datasets.files import check_writable, replacing, write_bytes, write_json
from agedphoto.datasets.locks import locking
from agedphoto.datasets.tar_file import TarFileWriter
from agedphoto.datasets.workers import num_cores
from agedphoto.synth import EndlessTextures, Recipe, find_textures, sample_crops
from agedphoto.textures import TextureBank
from agedphoto.training import UnfinishedError

VERSION = 1
BATCH = 32
"""Pairs that are made at a time; it enters their order, so it is the same for everybody."""
PNG_LEVEL = 3
"""Twice as fast as 6, which would save 3 %."""
FOLDERS = ("clean", "aged", "mask")
PairsFormat = Literal["folders", "shards"]
PairsMode = Literal["color", "grayscale", "rgb"]
"""Not lab: its numbers go below 0, which PNG cannot say; make it of rgb."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Write aged / clean pairs and masks as files; interrupted, the same command goes on."""

    shards: Annotated[str, tyro.conf.Positional]
    """Folder or URL of shards, or tars, braces allowed."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the pairs, a new one."""
    recipe: str = "seed"
    """How photos age: the name of a recipe, or a .json file of your own."""
    textures: str = "pack"
    """Wear for the recipes that lay textures on photos: pack, endless, or a folder of scans."""
    count: int | None = None
    """How many pairs; one epoch if not given, which is --crops-per-photo of each photo."""
    format: PairsFormat = "folders"
    """clean/, aged/, mask/ and params.jsonl; or WebDataset shards."""
    split: str = "train"
    """Which photos."""
    mode: PairsMode = "color"
    """Channels, aged -> clean: color 3 -> 3, grayscale 1 -> 1, rgb 1 -> 3."""
    crop_px: int = 256
    """Side of the square crops."""
    crops_per_photo: int = 16
    """Crops that an epoch takes of each photo."""
    seed: int = 0
    """Of the order, the crops and the ageing."""
    shard_pairs: int = 1000
    """Pairs of a shard."""
    num_threads: int | None = None
    """Decoders and encoders at work; one a core if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps. A GPU may round a pixel otherwise than a CPU."""

    def run(self) -> int:
        """Write the pairs."""
        done = write_pairs(
            self.shards,
            self.out,
            recipe=read_recipe(self.recipe),
            textures=find_textures(self.textures),
            count=self.count,
            format=self.format,
            split=self.split,
            mode=self.mode,
            crop_px=self.crop_px,
            crops_per_photo=self.crops_per_photo,
            seed=self.seed,
            shard_pairs=self.shard_pairs,
            num_threads=self.num_threads,
            device=self.device,
            progress=True,
        )
        for key in done.left_out:
            complain(f"left out: {key} is smaller than the crop of {self.crop_px} px")
        also = f" ({done.resumed} of them were there already)" if done.resumed else ""
        if done.resumed == done.count:
            also = " (finished already)"
        print(f"{done.count} pairs: {self.out}{also}")
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsWritten:
    """What is in the folder now."""

    count: int
    """Pairs."""
    resumed: int
    """How many of them were there before."""
    left_out: tuple[str, ...]
    """Keys of the photos that are smaller than the crop."""


def write_pairs(
    shards: str | Path,
    out: Path,
    *,
    recipe: str | Recipe = "seed",
    count: int | None = None,
    format: PairsFormat = "folders",
    split: str = "train",
    mode: PairsMode = "color",
    crop_px: int = 256,
    crops_per_photo: int = 16,
    seed: int = 0,
    shard_pairs: int = 1000,
    num_threads: int | None = None,
    device: str | torch.device = "auto",
    textures: TextureBank | EndlessTextures | None = None,
    progress: bool = False,
) -> PairsWritten:
    """Write pairs as files, or what is missing of them.

    The same arguments give the same bytes, on the same kind of device, under one version of
    PyTorch and imagecodecs. See `Pairs` for the arguments.

    Raises:
        ValueError: If an argument does not fit, or the folder holds something else.
        UnfinishedError: If a photo turned out to be damaged on the way.
        OSError: If writing fails, as on a full disk. What is finished stays.
    """
    for name, value in (("count", 1 if count is None else count), ("shard_pairs", shard_pairs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if format not in ("folders", "shards"):
        raise ValueError(f"format must be folders or shards, got {format!r}")
    if mode not in ("color", "grayscale", "rgb"):
        raise ValueError(f"mode must be color, grayscale or rgb, got {mode!r}: PNG holds no lab")
    with ExitStack() as stack:
        pairs = stack.enter_context(
            AgedPairs(
                shards,
                split=split,
                recipe=recipe,
                mode=mode,
                crop_px=crop_px,
                batch_size=BATCH,
                crops_per_photo=crops_per_photo,
                seed=seed,
                device=device,
                rank=0,
                world_size=1,
                textures=textures,
                last_batch="pad",
                num_threads=num_threads,
            )
        )
        # What these textures lack for the recipe is found before anything is written.
        pairs.ageing.sample(torch.zeros(1, dtype=torch.int64, device=pairs.device), size=(16, 16))
        epoch_pairs = pairs.num_photos * crops_per_photo
        count = epoch_pairs if count is None else count
        plan = _plan(pairs, count, format, shard_pairs)
        _check_folder(out, plan)
        # The lock first would leave a trace in a folder that is refused.
        if (out / "pairs.json").exists():
            return PairsWritten(count=count, resumed=count, left_out=pairs.left_out)
        check_writable(out)
        try:
            stack.enter_context(locking(out / ".lock", wait_s=0))
        except TimeoutError as error:
            raise ValueError(
                f"another run is writing these pairs at this moment, it holds {out / '.lock'}; "
                "wait for its end, or choose another folder"
            ) from error
        _sweep(out)
        write_json(out / ".plan.json", plan)
        writer = (
            _FolderWriter(out, num_threads)
            if format == "folders"
            else _ShardWriter(out, count, shard_pairs, num_threads)
        )
        stack.enter_context(writer)
        first = min(writer.first, count)
        index = open_index(shards, split=split)
        made = _make(pairs, index, first, count, epoch_pairs)
        with tqdm(
            total=count, initial=first, desc="pairs", unit="pair", disable=not progress
        ) as bar:
            for several in made:
                writer.write(several)
                bar.update(len(several))
        writer.finish()
        (out / ".plan.json").replace(out / "pairs.json")
    return PairsWritten(count=count, resumed=first, left_out=pairs.left_out)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    """One pair, 8 bits deep."""

    name: str
    pictures: Mapping[str, np.ndarray]
    """By folder."""
    told: dict[str, Any]
    """What is said of it in params.jsonl."""

    def encode(self) -> dict[str, bytes]:
        """Return PNGs by folder."""
        return {
            folder: bytes(imagecodecs.png_encode(picture, level=PNG_LEVEL))
            for folder, picture in self.pictures.items()
        }


def _plan(pairs: AgedPairs, count: int, format: str, shard_pairs: int) -> dict[str, Any]:
    """Describe everything that the pairs depend on."""
    state = pairs.state_dict()
    same = ("seed", "split", "mode", "textures", "crops_per_photo", "mix_photos", "fingerprint")
    plan = {
        "version": VERSION,
        "count": count,
        "format": format,
        **({"shard_pairs": shard_pairs} if format == "shards" else {}),
        **{name: state[name] for name in same},
        "crop_px": pairs.crop_px,
        "batch": BATCH,
        "device": pairs.device.type,
        "recipe": pairs.ageing.recipe.to_dict(),
    }
    # As it is when it is read again: with lists for tuples.
    return json.loads(json.dumps(plan))


def _check_folder(out: Path, plan: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but these pairs, or a part of them."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"cannot write into {out}: it is a file; choose a folder")
    for path in (out / "pairs.json", out / ".plan.json"):
        if not path.exists():
            continue
        try:
            before = json.loads(path.read_text())
            differing = [name for name in plan if before.get(name) != plan[name]]
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {error}; choose another folder") from error
        if differing:
            changes = "; ".join(
                f"{name} was {_short(before.get(name))}, is {_short(plan[name])}"
                for name in differing
            )
            raise ValueError(f"{out} holds other pairs: {changes}; choose another folder")
        return
    if out.is_dir() and any(not _is_ours(path.name) for path in out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no pairs; choose a new folder")


def _make(
    pairs: AgedPairs, index: ShardIndex, first: int, count: int, epoch_pairs: int
) -> Iterator[list[_Pair]]:
    """Make pairs from number `first` on, some at a time."""
    number = first
    while number < count:
        epoch, within = divmod(number, epoch_pairs)
        # The last batch of an epoch alone is not full.
        batch_number, skipped = divmod(within, BATCH)
        state = pairs.state_dict()
        pairs.load_state_dict(state | {"epoch": epoch, "samples": batch_number * BATCH})
        try:
            for batch in pairs:
                whole = min(BATCH, epoch_pairs - batch_number * BATCH)
                made = _describe(pairs, index, batch, whole, number - skipped)[skipped:]
                yield made[: count - number]
                number, batch_number, skipped = number + len(made), batch_number + 1, 0
                if number >= count:
                    return
        except (ValueError, OSError) as error:
            raise UnfinishedError(
                f"stopped at pair {number} of {count}: {error}; agedphoto verify finds what is "
                "damaged, then the same command goes on"
            ) from error


def _describe(
    pairs: AgedPairs, index: ShardIndex, batch: Batch, whole: int, first: int
) -> list[_Pair]:
    """Return the pairs of a batch, without those that only fill it up."""
    S = pairs.crop_px
    aged, clean, mask = (
        to_levels(x).permute(0, 2, 3, 1).cpu().numpy()
        for x in (batch.aged, batch.clean, batch.mask)
    )
    keys = batch.keys.cpu()
    photos = list(batch.photos)
    boxes = sample_crops(
        keys,
        torch.from_numpy(index.height[photos]),
        torch.from_numpy(index.width[photos]),
        crop_px=S,
    )
    augment = pairs.ageing.augment
    varied = augment.sample(keys, side_px=S) if augment.moves or augment.tones else {}
    drawn = [
        {name: value.cpu() for name, value in one.items()}
        for one in pairs.ageing.sample(batch.keys, size=(S, S))
    ]
    made = []
    for i in range(whole):
        name = f"{first + i:08d}"
        told = {
            "name": name,
            "key": int(keys[i]),
            "photo": str(index.keys[photos[i]]),
            "crop": {
                "top": int(boxes.top[i]),
                "left": int(boxes.left[i]),
                "side": S,
                "turn": int(boxes.turn[i]),
            },
            "augment": {field: value[i].tolist() for field, value in varied.items()},
            "recipe": pairs.ageing.recipe.name,
            "params": plain_params(drawn, i),
        }
        pictures = {
            folder: np.ascontiguousarray(x[i, :, :, 0] if x.shape[3] == 1 else x[i])
            for folder, x in zip(FOLDERS, (clean, aged, mask), strict=True)
        }
        made.append(_Pair(name=name, pictures=pictures, told=told))
    return made


class _Writer(AbstractContextManager["_Writer"]):
    """Writes pairs in order, encoded on threads."""

    def __init__(self, num_threads: int | None) -> None:
        self._threads = ThreadPoolExecutor(num_threads or num_cores())

    @property
    @abstractmethod
    def first(self) -> int:
        """Number of the first pair that is not there."""

    @abstractmethod
    def write(self, pairs: Sequence[_Pair]) -> None:
        """Write the pairs that follow."""

    @abstractmethod
    def finish(self) -> None:
        """Finish, once all are written."""

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)


class _FolderWriter(_Writer):
    """Writes folders; a pair is there when a hidden params.jsonl has its line."""

    def __init__(self, out: Path, num_threads: int | None) -> None:
        super().__init__(num_threads)
        self._out = out
        self._hidden, self._final = out / ".params.jsonl", out / "params.jsonl"
        for folder in FOLDERS:
            (out / folder).mkdir(exist_ok=True)
            _sweep(out / folder)
        if self._final.exists():
            # All was done but for saying so.
            self._final.replace(self._hidden)
        descriptor = os.open(
            self._hidden, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
        )
        # Without a buffer: what could not be written is not tried again as the file is closed.
        self._lines = os.fdopen(descriptor, "r+b", buffering=0)
        whole = self._lines.read()
        # The last line may have been torn when the run was killed.
        self._end = whole.rfind(b"\n") + 1
        self._first = whole.count(b"\n")

    @property
    def first(self) -> int:
        return self._first

    def write(self, pairs: Sequence[_Pair]) -> None:
        # All have been tried when this ends, so none is still at work when an error is told.
        for written in [self._threads.submit(self._write_pictures, pair) for pair in pairs]:
            written.result()
        self._lines.seek(self._end)
        self._lines.truncate()
        lines = memoryview(b"".join(_json_line(pair.told) for pair in pairs))
        while lines:
            lines = lines[self._lines.write(lines) :]
        os.fsync(self._lines.fileno())
        self._end = self._lines.tell()

    def finish(self) -> None:
        # What is behind the last whole line, if nothing was to be added to it.
        self._lines.truncate(self._end)
        self._lines.close()
        self._hidden.replace(self._final)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._lines.close()

    def _write_pictures(self, pair: _Pair) -> None:
        for folder, data in pair.encode().items():
            write_bytes(self._out / folder / f"{pair.name}.png", data)


class _ShardWriter(_Writer):
    """Writes shards of so many pairs; the last has what is left."""

    def __init__(self, out: Path, count: int, shard_pairs: int, num_threads: int | None) -> None:
        super().__init__(num_threads)
        self._out, self._count, self._shard_pairs = out, count, shard_pairs
        num_shards = -(-count // shard_pairs)
        missing = (n for n in range(num_shards) if not self._path(n).exists())
        self._number = self._begun = next(missing, num_shards)
        self._shard = ExitStack()
        self._tar: TarFileWriter | None = None
        self._pairs_in_shard = 0

    @property
    def first(self) -> int:
        return self._begun * self._shard_pairs

    def write(self, pairs: Sequence[_Pair]) -> None:
        for pair, encoded in zip(pairs, self._threads.map(_Pair.encode, pairs), strict=True):
            if self._tar is None:
                self._tar = TarFileWriter(
                    self._shard.enter_context(replacing(self._path(self._number)))
                )
            for folder, data in encoded.items():
                self._tar.add(f"{pair.name}.{folder}.png", data)
            self._tar.add(f"{pair.name}.json", _json_line(pair.told))
            self._pairs_in_shard += 1
            if self._pairs_in_shard == self._shard_pairs:
                self._close_shard()

    def finish(self) -> None:
        self._close_shard()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        # With the error, so that a shard that is not whole goes.
        self._shard.__exit__(*error)

    def _close_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.finish()
        self._shard.close()
        self._tar, self._pairs_in_shard, self._number = None, 0, self._number + 1

    def _path(self, number: int) -> Path:
        return self._out / f"pairs-{number:06d}.tar"


def _is_ours(name: str) -> bool:
    """Whether a run that was killed at its very beginning may have left this."""
    return name == ".lock" or (name.startswith("..plan.json.") and name.endswith(".part"))


def _sweep(folder: Path) -> None:
    """Take away what a run that was killed has left of the files it was writing."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def _json_line(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
