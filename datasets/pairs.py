"""AgedPairs: endless aged / clean pairs out of shards, for one process or many.

    shards --ranged reads, decoded on threads ahead of time--> PhotoPool --crops--> Ageing --> batch

What comes out depends on (seed, epoch, position) alone. The state is a place in that sequence, the
same on every rank, so training goes on with another number of processes just as well.
"""

import os
import time
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..synth import Ageing, Mode, Recipe, find_device, sample_crops, sample_keys, turn_crops
from ..synth.keys import check_epoch, check_seed
from ..textures import TextureBank
from .memory import available_bytes
from .order import BatchOrder, Order
from .pool import PhotoPool
from .ranks import find_rank
from .sources import open_index

STATE_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One batch of pairs, on the device."""

    aged: Float[Tensor, "B C H W"]
    """What the network sees, see `synth.modes` for the channels."""
    clean: Float[Tensor, "B D H W"]
    """What it is to answer."""
    mask: Bool[Tensor, "B 1 H W"]
    """True where damage hides the picture."""
    keys: Int[Tensor, " B"]
    """The 64-bit key that each pair was made from."""
    valid: Bool[Tensor, " B"]
    """False for pairs that only fill up the last batch."""
    photos: tuple[int, ...]
    """Number of the photo in its split."""


class AgedPairs:
    """An iterable of batches; each pass over it is one epoch, and the next follows by itself.

    Example:
        with AgedPairs("data/div2k", crop_px=128, batch_size=32) as pairs:
            for batch in pairs:
                ...
    """

    def __init__(
        self,
        shards: str | Path,
        *,
        split: str = "train",
        recipe: str | Recipe = "seed",
        mode: Mode = "grayscale",
        crop_px: int = 256,
        batch_size: int = 64,
        crops_per_photo: int = 16,
        seed: int = 0,
        device: str | torch.device = "auto",
        rank: int | None = None,
        world_size: int | None = None,
        textures: TextureBank | None = None,
        last_batch: Literal["drop", "pad"] = "drop",
        mix_photos: int = 4,
        pool_bytes: int | Literal["auto"] = "auto",
        num_threads: int | None = None,
        prefetch_batches: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Open the shards and plan the epochs.

        Args:
            shards: Folder or URL with an index.json, as `agedphoto shard` makes it.
            split: Which of its splits.
            recipe: Name of a recipe, or one of your own.
            mode: Channels of aged and clean, see `synth.modes`.
            crop_px: Side of the square crops; photos with a shorter side are left out and named
                in `left_out`.
            batch_size: Pairs of a batch on this rank.
            crops_per_photo: Crops that an epoch takes of each photo.
            seed: 0 to 2**64 - 1.
            device: Where pool, ageing and batches live: auto, cpu, cuda, cuda:N or mps.
            rank: Number of this process; None asks torch.distributed, then torchrun's environment.
            world_size: Number of processes; goes with rank.
            textures: Wear to draw from; 64 textures of 1024 px if None.
            last_batch: Drop the last, incomplete batch of an epoch, or pad it (see `valid`).
            mix_photos: Photos whose crops each place of the batch shuffles together.
            pool_bytes: Size of the photo pool on this rank, of which no more than all photos need
                is taken. "auto" is half of the memory that is free on the device.
            num_threads: Decoding threads; None is one a core.
            prefetch_batches: Photos are decoded this many batches ahead, also of the next epoch.
            dtype: Floating-point type of aged and clean.

        Raises:
            ValueError: If something does not exist, does not fit, or is out of range.
        """
        for name, value in (
            ("crop_px", crop_px),
            ("batch_size", batch_size),
            ("prefetch_batches", prefetch_batches),
            ("num_threads", 1 if num_threads is None else num_threads),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if last_batch not in ("drop", "pad"):
            raise ValueError(f"last_batch must be 'drop' or 'pad', got {last_batch!r}")
        self.device = find_device(device)
        self.rank, self.world_size = find_rank(rank, world_size)
        self.batch_size, self.crop_px, self.split = batch_size, crop_px, split
        self.ageing = Ageing(recipe, seed=seed, mode=mode, textures=textures, dtype=dtype)

        whole = open_index(shards).of_split(split)
        fits = np.minimum(whole.height, whole.width) >= crop_px
        self.left_out = tuple(whole.keys[~fits].tolist())
        """Keys of the photos that are smaller than the crop."""
        if not fits.any():
            largest = int(np.minimum(whole.height, whole.width).max(initial=0))
            raise ValueError(
                f"crop_px {crop_px} is larger than every photo of split {split!r} in {whole.root}; "
                f"the largest short side is {largest} px, use at most that"
            )
        # Photos keep their number in the whole split: their keys do not depend on crop_px.
        self._numbers = np.flatnonzero(fits)
        self._index = whole
        self._fingerprint = whole.fingerprint
        self._order = Order(
            num_photos=len(self._numbers),
            crops_per_photo=crops_per_photo,
            global_batch=batch_size * self.world_size,
            mix_photos=mix_photos,
            pad_last=last_batch == "pad",
            seed=check_seed(seed),
        )
        self._prefetch_batches = prefetch_batches
        self._pool = PhotoPool(self._pool_bytes(pool_bytes), device=self.device)
        self._threads = ThreadPoolExecutor(
            num_threads or os.cpu_count() or 1, thread_name_prefix="decode"
        )
        self._decoding: dict[int, Future[np.ndarray]] = {}
        self._epoch = self._batches_done = 0
        self._resumed = False
        self._counts = {"photos_decoded": 0, "pairs": 0}
        self._seconds = {"wait": 0.0, "make": 0.0, "total": 0.0}

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._order.num_batches

    @property
    def num_photos(self) -> int:
        """Photos of the split that are large enough."""
        return self._order.num_photos

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._epoch

    def __iter__(self) -> Iterator[Batch]:
        """Go through an epoch: from its start, or once from where `load_state_dict` has set it."""
        if not self._resumed:
            self._batches_done = 0
        self._resumed = False
        # Kept here, not in self: a pass that is under way goes on, whatever is set meanwhile.
        epoch, first = self._epoch, self._batches_done
        steps = self._steps(epoch, first)
        ahead = deque(islice(steps, self._prefetch_batches))
        for number in range(first, len(self)):
            begun = time.perf_counter()
            wanted = dict.fromkeys(photo for step in ahead for photo in step.photos.tolist())
            self._request(wanted)
            step = ahead.popleft()
            self._fetch(set(step.photos.tolist()), wanted)
            fetched = time.perf_counter()
            batch = self._make(epoch, step)
            ahead.extend(islice(steps, 1))
            done = number + 1
            self._epoch, self._batches_done = (epoch + 1, 0) if done == len(self) else (epoch, done)
            self._counts["pairs"] += self.batch_size
            made = time.perf_counter()
            self._seconds["wait"] += fetched - begun
            self._seconds["make"] += made - fetched
            self._seconds["total"] += made - begun
            yield batch
            self._seconds["total"] += time.perf_counter() - made

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the next pass begins there."""
        self._epoch, self._batches_done, self._resumed = check_epoch(epoch), 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the sequence of pairs: after the last batch that was handed out.

        Plain JSON, below 1 kB, the same on every rank.
        """
        return {
            "version": STATE_VERSION,
            "epoch": self._epoch,
            "samples": self._batches_done * self._order.global_batch,
            **self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved place; the number of ranks may differ, the global batch may not.

        Raises:
            ValueError: If the state belongs to other photos or another plan; names what differs.
        """
        state = dict(state)
        mine = {"version": STATE_VERSION, **self._identity()}
        differing = [name for name in mine if state.get(name) != mine[name]]
        if differing:
            changes = "; ".join(
                f"{name} was {state.get(name)!r}, is {mine[name]!r}" for name in differing
            )
            saved = state.get("global_batch")
            hint = ""
            if "global_batch" in differing and isinstance(saved, int):
                fits = saved % self.world_size == 0
                hint = (
                    f"; use batch_size={saved // self.world_size} on {self.world_size} ranks"
                    if fits
                    else f"; {self.world_size} ranks cannot share a global batch of {saved}"
                )
            raise ValueError(f"this state is not of these pairs: {changes}{hint}")
        samples, G = state.get("samples"), self._order.global_batch
        if not isinstance(samples, int) or samples % G or not 0 <= samples < len(self) * G:
            raise ValueError(
                f"samples of a state must be a multiple of {G} below {len(self) * G}, "
                f"got {samples!r}; the state is damaged"
            )
        self._epoch = check_epoch(state.get("epoch"))  # type: ignore[arg-type]
        self._batches_done = samples // G
        self._resumed = True

    def stats(self) -> dict[str, float]:
        """Return what has happened so far on this rank: counts, rates in 1/s, and shares of time.

        `wait_share` is the share of the time in which the user of the pairs stood still because a
        photo was not decoded yet; `make_share` the share that cropping and ageing took in the
        user's thread (on a GPU: to launch it).
        """
        total = max(self._seconds["total"], 1e-9)
        making = max(self._seconds["make"] + self._seconds["wait"], 1e-9)
        return {
            **self._counts,
            "photos_decoded_per_s": self._counts["photos_decoded"] / total,
            "pairs_per_s": self._counts["pairs"] / total,
            "pairs_per_s_unhindered": self._counts["pairs"] / making,
            "wait_share": self._seconds["wait"] / total,
            "make_share": self._seconds["make"] / total,
            "pool_photos": len(self._pool),
            "pool_bytes": self._pool.used_bytes,
            "pool_capacity_bytes": self._pool.capacity_bytes,
        }

    def close(self) -> None:
        """End the decoding threads; nothing is left running."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._decoding.clear()

    def __enter__(self) -> "AgedPairs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _identity(self) -> dict[str, Any]:
        """What must agree for a place in the sequence to mean the same."""
        order = self._order
        return {
            "seed": order.seed,
            "split": self.split,
            "crop_px": self.crop_px,
            "global_batch": order.global_batch,
            "crops_per_photo": order.crops_per_photo,
            "mix_photos": order.mix_photos,
            "last_batch": "pad" if order.pad_last else "drop",
            "fingerprint": self._fingerprint,
        }

    def _pool_bytes(self, wanted: int | Literal["auto"]) -> int:
        """Settle the size of the pool: never less than the photos in use at a time may need."""
        sizes = np.sort(self._index.decoded_bytes[self._numbers])[::-1]
        # The batches ahead want at most one photo a place each, and must fit. A place is in the
        # midst of mix_photos more or less; with fewer, photos would be decoded time and again.
        photos_a_place = max(self._prefetch_batches, self._order.mix_photos + 2)
        least = int(sizes[: self.batch_size * photos_a_place].sum())
        everything = int(sizes.sum())
        if wanted == "auto":
            free = available_bytes(self.device)
            if free // 2 < least:
                raise ValueError(
                    f"not enough memory on {self.device}: {free:,} bytes are free, half of them "
                    f"are for the pool, and photos in use need up to {least:,}; use a smaller "
                    "batch_size, mix_photos or prefetch_batches"
                )
            return min(everything, free // 2)
        if wanted < least:
            raise ValueError(
                f"pool_bytes is {wanted:,}, but photos in use need up to {least:,}; use at least "
                "that, or a smaller batch_size, mix_photos or prefetch_batches"
            )
        return min(everything, wanted)

    def _steps(self, epoch: int, first: int) -> Iterator[BatchOrder]:
        """Plan batches from number `first` of an epoch on, through all epochs that follow."""
        while epoch < 2**32:
            order = self._order.epoch(
                epoch, first_lane=self.rank * self.batch_size, num_lanes=self.batch_size
            )
            yield from (order.batch(number) for number in range(first, len(self)))
            epoch, first = epoch + 1, 0

    def _request(self, wanted: Collection[int]) -> None:
        """Start decoding what is neither in the pool nor on its way."""
        # Left over from a pass that was broken off: there may be no room for it.
        for photo in [photo for photo in self._decoding if photo not in wanted]:
            self._decoding.pop(photo).cancel()
        for photo in wanted:
            if photo not in self._pool and photo not in self._decoding:
                number = int(self._numbers[photo])
                self._decoding[photo] = self._threads.submit(self._index.read, number)

    def _fetch(self, needed: Collection[int], wanted: Collection[int]) -> None:
        """Bring the photos of a batch, and others that are ready, into the pool, keeping what the
        next batches want.
        """
        for photo, decoding in list(self._decoding.items()):
            # One that failed waits until it is needed: the same batch raises in every run.
            if photo in needed or (decoding.done() and not decoding.exception()):
                del self._decoding[photo]
                self._pool.put(photo, decoding.result(), keep=wanted)
                self._counts["photos_decoded"] += 1

    def _make(self, epoch: int, step: BatchOrder) -> Batch:
        numbers = self._numbers[step.photos]
        keys = sample_keys(
            self._order.seed, epoch, torch.from_numpy(numbers), torch.from_numpy(step.crops)
        )
        # Boxes are drawn on the CPU, where the pool is addressed; they are the same anywhere.
        boxes = sample_crops(
            keys,
            torch.from_numpy(self._index.height[numbers]),
            torch.from_numpy(self._index.width[numbers]),
            crop_px=self.crop_px,
        )
        cut = torch.stack(
            [
                self._pool[photo][top : top + self.crop_px, left : left + self.crop_px]
                for photo, top, left in zip(
                    step.photos.tolist(), boxes.top.tolist(), boxes.left.tolist(), strict=True
                )
            ]
        )
        keys = keys.to(self.device)
        # Contiguous: turning is three times faster than with the channels last.
        planes = cut.permute(0, 3, 1, 2).contiguous()
        turned = turn_crops(planes, boxes.turn.to(self.device))
        aged, clean, mask = self.ageing(turned, keys)
        return Batch(
            aged=aged,
            clean=clean,
            mask=mask,
            keys=keys,
            valid=torch.from_numpy(step.valid).to(self.device),
            photos=tuple(numbers.tolist()),
        )
