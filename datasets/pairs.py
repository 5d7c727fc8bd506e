"""AgedPairs: endless aged / clean pairs out of shards, for one process or many.

    shards --ranged reads, decoded on threads ahead of time--> PhotoPool --crops--> Ageing --> batch

What comes out depends on (seed, epoch, position) alone. The state is a place in that sequence, the
same on every rank, so training goes on with another number of processes just as well.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..synth import Ageing, Mode, Recipe, find_device, sample_crops, sample_keys, turn_crops
from ..synth.keys import check_epoch, check_seed
from ..textures import TextureBank
from .index import open_index
from .memory import available_bytes
from .order import Order
from .pool import PhotoPool
from .ranks import find_rank

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
            pool_bytes: Size of the photo pool on this rank. "auto" takes what all photos need, but
                at most half of the memory that is free on the device.
            num_threads: Decoding threads; None is one a core.
            prefetch_batches: Photos are decoded this many batches ahead.
            dtype: Floating-point type of aged and clean.

        Raises:
            ValueError: If something does not exist, does not fit, or is out of range.
        """
        if crop_px < 1:
            raise ValueError(f"crop_px must be at least 1, got {crop_px}")
        if last_batch not in ("drop", "pad"):
            raise ValueError(f"last_batch must be 'drop' or 'pad', got {last_batch!r}")
        if prefetch_batches < 1:
            raise ValueError(f"prefetch_batches must be at least 1, got {prefetch_batches}")
        self.device = find_device(device)
        self.rank, self.world_size = find_rank(rank, world_size)
        self.batch_size, self.crop_px, self.split = batch_size, crop_px, split
        self.ageing = Ageing(recipe, seed=seed, mode=mode, textures=textures, dtype=dtype)

        whole = open_index(shards).of_split(split)
        fits = np.minimum(whole.height, whole.width) >= crop_px
        self.left_out = tuple(whole.keys[i] for i in np.flatnonzero(~fits))
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
        order = self._order.epoch(
            self._epoch, first_lane=self.rank * self.batch_size, num_lanes=self.batch_size
        )
        ahead = [
            order.batch(number)
            for number in range(
                self._batches_done, min(self._batches_done + self._prefetch_batches, len(self))
            )
        ]
        while ahead:
            begun = time.perf_counter()
            wanted = dict.fromkeys(int(photo) for step in ahead for photo in step.photos)
            self._request(wanted)
            step = ahead.pop(0)
            self._fetch(step.photos, wanted)
            fetched = time.perf_counter()
            batch = self._make(step.photos, step.crops, step.valid)
            following = self._batches_done + self._prefetch_batches
            if following < len(self):
                ahead.append(order.batch(following))
            self._batches_done += 1
            if self._batches_done == len(self):
                self._epoch, self._batches_done = self._epoch + 1, 0
            self._counts["pairs"] += self.batch_size
            made = time.perf_counter()
            self._seconds["wait"] += fetched - begun
            self._seconds["make"] += made - fetched
            yield batch
            self._seconds["total"] += time.perf_counter() - begun

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
        self._epoch = check_epoch(state["epoch"])
        self._batches_done = state["samples"] // self._order.global_batch
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
        # A window of a lane reaches into one photo more than it mixes, prefetching into the next
        # window; and no lane can want more photos than there are batches ahead.
        wanted_by_lane = min(self._prefetch_batches, 2 * (self._order.mix_photos + 1))
        least = int(sizes[: self.batch_size * wanted_by_lane].sum())
        everything = int(sizes.sum())
        if wanted == "auto":
            free = available_bytes(self.device)
            wanted = min(everything, max(free // 2, 0))
            if wanted < least:
                raise ValueError(
                    f"not enough memory on {self.device}: {free:,} bytes are free, half of them "
                    f"are for the pool, and photos in use need up to {least:,}; use a smaller "
                    "batch_size or prefetch_batches"
                )
        elif wanted < least:
            raise ValueError(
                f"pool_bytes is {wanted:,}, but photos in use need up to {least:,}; use at least "
                "that, or a smaller batch_size or prefetch_batches"
            )
        return wanted

    def _request(self, wanted: dict[int, None]) -> None:
        """Start decoding what is neither in the pool nor on its way."""
        for photo in wanted:
            if photo not in self._pool and photo not in self._decoding:
                number = int(self._numbers[photo])
                self._decoding[photo] = self._threads.submit(self._index.read, number)

    def _fetch(self, photos: np.ndarray, wanted: dict[int, None]) -> None:
        """Bring the photos of a batch, and others that are ready, into the pool, keeping what the
        next batches want.
        """
        needed = set(photos.tolist())
        for photo, decoding in list(self._decoding.items()):
            if photo in needed or decoding.done():
                del self._decoding[photo]
                self._pool.put(photo, decoding.result(), keep=wanted)
                self._counts["photos_decoded"] += 1

    def _make(self, photos: np.ndarray, crops: np.ndarray, valid: np.ndarray) -> Batch:
        numbers = self._numbers[photos]
        keys = sample_keys(
            self._order.seed, self._epoch, torch.from_numpy(numbers), torch.from_numpy(crops)
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
                    photos.tolist(), boxes.top.tolist(), boxes.left.tolist(), strict=True
                )
            ]
        ).permute(0, 3, 1, 2)
        keys = keys.to(self.device)
        turned = turn_crops(cut, boxes.turn.to(self.device))
        aged, clean, mask = self.ageing(turned, keys)
        return Batch(
            aged=aged,
            clean=clean,
            mask=mask,
            keys=keys,
            valid=torch.from_numpy(valid).to(self.device),
            photos=tuple(numbers.tolist()),
        )
