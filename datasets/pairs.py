"""AgedPairs: endless aged / clean pairs out of shards, for one process or many.

    shards --ranged reads--> decoder threads --> PhotoPool --crops--> Ageing --> batches, made ahead

What comes out depends on (seed, epoch, position) alone. The state is a place in that sequence, the
same on every rank, so training goes on with another number of processes just as well.
"""

import json
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import IterableDataset, get_worker_info

from ..synth import Ageing, EndlessTextures, Mode, Recipe, find_device
from ..synth.keys import check_epoch, check_seed
from ..textures import TextureBank
from .batch import Batch
from .clock import Clock
from .decoders import find_decoder
from .frameworks import refuse_second_split
from .maker import BatchMaker, PhotoSizes, View, finish_for
from .memory import choose_pool_bytes
from .order import BatchOrder, Order
from .pool import PhotoPool
from .producer import Producer
from .ranges import RangeReader
from .ranks import find_rank, ranks_on_this_host
from .sources import Source, open_index
from .state import check_state
from .supply import AHEAD_SHARE, Lookahead, OnError, PhotoSupply
from .workers import num_cores

STATE_VERSION = 2
REPORT_EVERY = 64
"""Batches between two reports to the decoder of how much was waited for it."""


class AgedPairs(IterableDataset):
    """An iterable of batches; each pass over it is one epoch, and the next follows by itself.

    It is a loader, with threads and ranks of its own. Where a framework insists on a DataLoader,
    `DataLoader(pairs, batch_size=None)` hands the batches through.

    Example:
        with AgedPairs("data/div2k", crop_px=128, batch_size=32) as pairs:
            for batch in pairs:
                ...
    """

    def __init__(
        self,
        shards: Source,
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
        augment: bool = True,
        textures: TextureBank | EndlessTextures | None = None,
        last_batch: Literal["drop", "pad"] = "drop",
        view: View = "crop",
        long_side_px: int = 512,
        mix_photos: int = 4,
        pool: Literal["device", "host"] = "device",
        pool_bytes: int | Literal["auto"] = "auto",
        decoder: Literal["auto", "cpu", "dali"] = "auto",
        num_threads: int | None = None,
        prefetch_batches: int = 64,
        ready_batches: int | None = None,
        on_error: OnError = "raise",
        max_bad: int = 16,
        retries: int = 5,
        deadline_s: float = 60.0,
        cache_dir: str | Path | None = None,
        cache_bytes: int = 50_000_000_000,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Open the shards and plan the epochs.

        Args:
            shards: Folder or URL of shards, tars, or brace notation for tars, or a list of these;
                see `open_index`.
            split: Which of the splits of a folder; tars named outright are all taken.
            recipe: Name of a recipe, or one of your own.
            mode: Channels of aged and clean, see `synth.modes`.
            crop_px: Side of the square crops; photos with a shorter side are left out and named
                in `left_out`.
            batch_size: Pairs of a batch on this rank.
            crops_per_photo: Crops that an epoch takes of each photo.
            seed: 0 to 2**64 - 1.
            device: Where batches are made and live: auto, cpu, cuda, cuda:N or mps.
            rank: Number of this process; None asks torch.distributed, then torchrun's environment.
            world_size: Number of processes; goes with rank.
            augment: Whether clean photos are varied as the recipe has it; crops are drawn and
                turned anyway, and whole photos stay in their place.
            textures: Wear to draw from; the 64 textures that are shipped if None. Endless ones are
                made afresh on the device every epoch.
            last_batch: Drop the last, incomplete batch of an epoch, or pad it (see `valid`).
            view: Square crops, or whole photos, made small, in the corner of a square.
            long_side_px: For whole photos the side of that square.
            mix_photos: Photos whose crops each place of the batch shuffles together.
            pool: Whether decoded photos are kept on the device or in host memory, pinned for a GPU.
            pool_bytes: Size of the photo pool on this rank, of which no more than all photos need
                is taken. "auto" is half of the memory that is free where the pool lies; ranks on
                one host share it.
            decoder: CPU threads, DALI, or what suits the device and the photos; see `find_decoder`.
            num_threads: Decoding threads; None is one a core, shared by the ranks on one host.
            prefetch_batches: Photos are decoded up to this many batches ahead, also of the next
                epoch, as far as the pool has room.
            ready_batches: Batches made ahead on a thread of their own; 0 makes each when it is
                asked for. None is 2 on a GPU, and 0 on a CPU, which has no time to spare.
            on_error: About photos that cannot be read: raise the error; skip them (a black photo
                is aged in their place, and is not valid); or substitute the next good one. See
                also `bad`.
            max_bad: With more bad photos than this, on this rank, the error is raised after all.
            retries: Of a read over the network.
            deadline_s: Longest time that a read may take, retries included.
            cache_dir: Folder to keep what was read over the network; None keeps nothing.
            cache_bytes: Size of this cache; what was used longest ago goes first.
            dtype: Floating-point type of aged and clean.

        Raises:
            ValueError: If something does not exist, does not fit, or is out of range.
        """
        for name, value, least in (
            ("crop_px", crop_px, 1),
            ("long_side_px", long_side_px, 1),
            ("batch_size", batch_size, 1),
            ("prefetch_batches", prefetch_batches, 1),
            ("num_threads", 1 if num_threads is None else num_threads, 1),
            ("ready_batches", 0 if ready_batches is None else ready_batches, 0),
            ("max_bad", max_bad, 0),
            ("crops_per_photo", crops_per_photo, 1),
            ("mix_photos", mix_photos, 1),
            ("pool_bytes", 3 if pool_bytes == "auto" else pool_bytes, 0),
            ("cache_bytes", cache_bytes, 0),
        ):
            _check_whole(name, value, least)
        for name, choice, choices in (
            ("last_batch", last_batch, ("drop", "pad")),
            ("view", view, ("crop", "whole")),
            ("pool", pool, ("device", "host")),
            ("on_error", on_error, ("raise", "skip", "substitute")),
        ):
            if choice not in choices:
                raise ValueError(
                    f"{name} must be {' or '.join(map(repr, choices))}, got {choice!r}"
                )
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating-point type of torch, got {dtype!r}")
        self.device = find_device(device)
        self.rank, self.world_size = find_rank(rank, world_size)
        self.batch_size, self.crop_px, self.split, self.view = batch_size, crop_px, split, view
        self.ageing = Ageing(
            recipe, seed=seed, mode=mode, textures=textures, dtype=dtype, augment=augment
        )
        self._side_px = crop_px if view == "crop" else long_side_px
        self._reader = RangeReader(
            retries=retries,
            deadline_s=deadline_s,
            cache_dir=Path(cache_dir) if cache_dir is not None else None,
            cache_bytes=cache_bytes,
        )
        self._index = open_index(shards, split=split, reader=self._reader)
        self._fingerprint = self._index.fingerprint
        self._sizes = PhotoSizes.of(self._index, view=view, side_px=self._side_px)
        self._order = Order(
            num_photos=len(self._sizes.numbers),
            crops_per_photo=crops_per_photo,
            global_batch=batch_size * self.world_size,
            mix_photos=mix_photos,
            pad_last=last_batch == "pad",
            shard_photos=_run_lengths(self._index.shard[self._sizes.numbers]),
            seed=check_seed(seed),
        )
        self._prefetch_batches = prefetch_batches
        place = self.device if pool == "device" else torch.device("cpu")
        sharing = ranks_on_this_host(self.world_size)
        photo_pool = PhotoPool(
            choose_pool_bytes(
                pool_bytes,
                photo_bytes=self._sizes.bytes,
                # A place is in the midst of mix_photos more or less; with fewer in the pool, photos
                # would be decoded time and again.
                in_use=batch_size * (mix_photos + 2),
                place=place,
                sharing=1 if place.type == "cuda" else sharing,
            ),
            device=place,
            pinned=place.type == "cpu" and self.device.type == "cuda",
        )
        self._maker = BatchMaker(
            photo_pool,
            self.ageing,
            sizes=self._sizes,
            view=view,
            side_px=self._side_px,
            device=self.device,
        )
        self._supply = PhotoSupply(
            find_decoder(
                decoder,
                index=self._index,
                reader=self._reader,
                device=place,
                num_threads=num_threads,
                finish=finish_for(view, self._side_px),
            ),
            photo_pool,
            samples=self._sizes.numbers,
            photo_bytes=self._sizes.bytes,
            # Enough for every thread, and for the batches of a GPU's decoder.
            most_decoding=max(32, 4 * (num_threads or num_cores())),
            on_error=on_error,
            max_bad=max_bad,
        )
        self._clock = Clock()
        self._ready_batches = (
            (0 if self.device.type == "cpu" else 2) if ready_batches is None else ready_batches
        )
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        if self._stream:
            # What the memory of the pool was used for before may still be under way; and who gets
            # it after the pool must wait for what is done to it here.
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            photo_pool.record_stream(self._stream)
        self._passes: WeakSet[Producer] = WeakSet()
        self._closed = False
        self._process = os.getpid()
        # Settled once: hashing all textures takes longer than a step of training.
        settled = self.ageing.recipe.to_dict() | {"augment": asdict(self.ageing.augment)}
        recipe_text = json.dumps(settled, sort_keys=True)
        self._hashes = {
            "recipe": sha256(recipe_text.encode()).hexdigest()[:16],
            "textures": sha256(str(self.ageing.textures_fingerprint).encode()).hexdigest()[:16],
        }
        # Counts who else has set the place: a pass that is under way then leaves it alone.
        self._times_set = 0
        self._epoch = self._batches_done = 0
        self._resumed = False

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

    @property
    def side_px(self) -> int:
        """Side of the squares that batches show."""
        return self._side_px

    @property
    def left_out(self) -> tuple[str, ...]:
        """Keys of the photos that are smaller than the crop."""
        small = np.ones(len(self._index), dtype=bool)
        small[self._sizes.numbers] = False
        return tuple(self._index.keys[small].tolist())

    @property
    def bad(self) -> dict[str, str]:
        """Keys of the photos that could not be read on this rank so far, and why."""
        numbers = self._sizes.numbers
        # A list first: the maker may find another one meanwhile.
        found = list(self._supply.bad.items())
        return {str(self._index.keys[numbers[photo]]): why for photo, why in found}

    def __iter__(self) -> Iterator[Batch]:
        """Go through an epoch: from its start, or once from where `load_state_dict` has set it.

        Raises:
            ValueError: If these pairs are closed, or inside something that would split them a
                second time; or, at the batch that needs it, for a damaged photo.
            OSError: At the batch that needs it, for a photo that cannot be read.
        """
        if get_worker_info() is not None:
            raise ValueError(
                "AgedPairs has threads of its own and cannot run in a worker process of a "
                "DataLoader; use num_workers=0"
            )
        if os.getpid() != self._process:
            raise ValueError("these pairs were opened in another process; open them in this one")
        refuse_second_split()
        if self._closed:
            raise ValueError("these pairs are closed; open new ones")
        check_epoch(self._epoch)
        if not self._resumed:
            self._batches_done = 0
        self._resumed = False
        # Kept here, not in self: a pass that is under way goes on, whatever is set meanwhile.
        epoch, first, times_set = self._epoch, self._batches_done, self._times_set
        batches = self._made_ahead(self._make_batches(epoch, first))
        with closing(batches):
            for done in range(first + 1, len(self) + 1):
                with self._clock.waiting(self.batch_size):
                    batch, made = self._next(batches)
                self._hand_over(batch, made)
                if times_set == self._times_set:
                    self._epoch, self._batches_done = (
                        (epoch + 1, 0) if done == len(self) else (epoch, done)
                    )
                if done % REPORT_EVERY == 0:
                    self._supply.decoder.report_wait(self._clock.recent_wait_share())
                with self._clock.using():
                    yield batch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the next pass begins there."""
        self._epoch, self._batches_done, self._resumed = check_epoch(epoch), 0, False
        self._times_set += 1

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
        samples = check_state(
            state,
            {"version": STATE_VERSION, **self._identity()},
            num_samples=len(self) * self._order.global_batch,
            world_size=self.world_size,
        )
        self._epoch = check_epoch(state.get("epoch"))  # type: ignore[arg-type]
        self._batches_done = samples // self._order.global_batch
        self._resumed = True
        self._times_set += 1

    def stats(self) -> dict[str, float]:
        """Return what has happened so far on this rank: counts, rates in 1/s, and shares of time.

        Times leave out the first batch, which has `first_batch_s` to itself. `wait_share` is the
        share of the time in which the user of the pairs waited: for photos, or where batches are
        made ahead, for a batch. `make_share` is the time that cropping and ageing took (on a GPU:
        to launch it), as a share of the same time. `accelerator_utilization` is the share that the
        user had for other things than getting batches, as MLPerf Storage defines it.
        """
        clock, supply, reads = self._clock, self._supply, self._reader.counts
        rates = clock.rates()
        return {
            "pairs": clock.pairs,
            "photos_decoded": supply.num_decoded,
            "photos_decoded_per_s": supply.num_decoded
            / max(rates["seconds"] + clock.first_batch_s, 1e-9),
            **rates,
            "decode_cpu_s": supply.decoder.cpu_seconds,
            "bytes_read": reads.bytes_read,
            "retries": reads.retries,
            "cache_hits": reads.cache_hits,
            "bad_photos": len(supply.bad),
            "pool_photos": len(supply.pool),
            "pool_bytes": supply.pool.used_bytes,
            "pool_capacity_bytes": supply.pool.capacity_bytes,
        }

    def describe(self) -> str:
        """Say in one line what is kept where, and who decodes."""
        pool, everything = self._supply.pool, int(self._sizes.bytes.sum())
        held = (
            "all"
            if pool.capacity_bytes >= everything
            else f"{pool.capacity_bytes / everything:.0%} of the"
        )
        decoder = self._supply.decoder
        return (
            f"pool of {pool.capacity_bytes / 1e9:.2f} GB on {pool.device} for {held} "
            f"{self.num_photos:,} photos; decoder {decoder.name}: {decoder.reason}"
        )

    def close(self) -> None:
        """End all threads; nothing is left running."""
        self._closed = True
        for batches in list(self._passes):
            batches.close()
        # Reads that are under way end at once, so that no thread waits for a network.
        self._reader.close()
        self._supply.decoder.close()
        if self._stream:
            self._stream.synchronize()
        self._supply.pool.release()

    def __enter__(self) -> "AgedPairs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        raise ValueError(
            "AgedPairs holds threads and memory of this process and cannot be sent to another; "
            "open it there, or use num_workers=0"
        )

    @property
    def generator(self) -> None:
        """Not there; Accelerate looks for it before it splits what each rank reads once more."""
        refuse_second_split()
        raise AttributeError("AgedPairs has no generator; what is random in it comes from its seed")

    def _identity(self) -> dict[str, Any]:
        """What must agree for a place in the sequence to mean the same."""
        order = self._order
        return {
            "seed": order.seed,
            "split": self.split,
            "mode": self.ageing.mode,
            **self._hashes,
            "view": self.view,
            "side_px": self._side_px,
            "global_batch": order.global_batch,
            "crops_per_photo": order.crops_per_photo,
            "mix_photos": order.mix_photos,
            "last_batch": "pad" if order.pad_last else "drop",
            "fingerprint": self._fingerprint,
        }

    def _steps(self, epoch: int, first: int) -> Iterator[BatchOrder]:
        """Plan batches from number `first` of an epoch on, through all epochs that follow."""
        while epoch < 2**32:
            order = self._order.epoch(
                epoch, first_lane=self.rank * self.batch_size, num_lanes=self.batch_size
            )
            yield from (order.batch(number) for number in range(first, len(self)))
            epoch, first = epoch + 1, 0

    def _make_batches(self, epoch: int, first: int) -> Generator["_Made", None, None]:
        """Make the batches of one pass, each with the event that says when its GPU work is done."""
        supply, capacity = self._supply, self._supply.pool.capacity_bytes
        ahead = Lookahead(
            self._steps(epoch, first),
            photo_bytes=self._sizes.bytes,
            most_batches=self._prefetch_batches,
            most_bytes=int(AHEAD_SHARE * capacity),
        )
        for _ in range(first, len(self)):
            step, wanted = ahead.next()
            # Another pass may be under way; what it brings must not push out what is being cut.
            # A pool cannot be written to from within a user's inference mode.
            with supply.lock, self._on_stream(), torch.inference_mode(False), torch.no_grad():
                with self._clock.fetching():
                    instead = supply.bring(step.photos.tolist(), wanted)
                with self._clock.making(self.batch_size):
                    batch = self._maker.make(epoch, step, instead)
                    made = self._stream.record_event() if self._stream else None
            ahead.done()
            yield batch, made

    def _next(self, batches: "Generator[_Made, None, None] | Producer[_Made]") -> "_Made":
        """Wait for the next batch."""
        following, error = None, None
        try:
            following = None if self._closed else next(batches, None)
        except Exception as caught:
            # What is closed under way fails in many ways; they all mean the same.
            if not self._closed:
                raise
            error = caught
        if following is None:
            raise ValueError("these pairs were closed while they were being used") from error
        return following

    def _made_ahead(
        self, batches: Generator["_Made", None, None]
    ) -> "Generator[_Made, None, None] | Producer[_Made]":
        if not self._ready_batches:
            return batches
        producer = Producer(batches, depth=self._ready_batches, name="make batches")
        self._passes.add(producer)
        return producer

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def _hand_over(self, batch: Batch, made: torch.Event | None) -> None:
        """Let the user's stream wait for the batch, and keep its memory until that is done."""
        if made is None:
            return
        using = torch.cuda.current_stream(self.device)
        using.wait_event(made)
        for tensor in batch.tensors().values():
            tensor.record_stream(using)


_Made = tuple[Batch, torch.Event | None]


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _run_lengths(values: Int[np.ndarray, " N"]) -> tuple[int, ...]:
    """Count how often each value comes in a row."""
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, len(values))
    return tuple(np.diff(ends, prepend=0).tolist())
