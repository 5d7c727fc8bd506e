"""The order of samples: which crop of which photo stands where in which batch, for any number of
ranks.

An epoch takes K crops of each of N photos, each once. The photos are permuted: the shards first,
and then the photos within blocks of neighbours, so that who follows the line reads near one place
for a long time. The N K samples are laid in that line: photo by photo, K crops each. The line is
cut into G equal lanes, one for each position of the global batch; batch b is the b-th sample of
every lane. So a batch shows as many different photos as can be, from all over the set, and a photo
meets one lane alone, but for those that a cut divides.

Ranks own neighbouring lanes. The global batches are therefore the same for every number of ranks
that divides G, and a photo is decoded by one rank, but for at most one at each border of ranks.

Inside a lane, samples are shuffled in windows of `mix_photos` K, so that consecutive batches differ
in their photos too. The windows of different lanes begin at different batches, evenly spread: after
the first few batches of an epoch, where every lane begins, new photos are wanted at the even rate
of G / K a batch, and decoding does not come in bursts.

All of it is a pure function of (seed, epoch, position). An epoch begins at once however many photos
there are: only the blocks that are being read are ever laid out.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int

from ..synth import draw_bits, sample_keys

MOST_MIXED = 65_536
"""Crops that one place of the batch may shuffle together: every place keeps a list of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The plan of all epochs."""

    num_photos: int
    """N, at least 1."""
    crops_per_photo: int
    """K, at least 1."""
    global_batch: int
    """G, over all ranks; at least 1."""
    mix_photos: int = 4
    """Photos whose crops a lane shuffles together; about, for windows begin within photos too."""
    shard_photos: tuple[int, ...] = ()
    """Number of photos in each shard, in order; they are shuffled as wholes. Empty: one shard."""
    block_photos: int = 1024
    """Photos that are shuffled with each other, neighbours in the line of shards."""
    pad_last: bool = False
    """Keep the last, incomplete batch of an epoch and pad it, instead of dropping it."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that every number is in range and there is at least one batch."""
        for name in ("num_photos", "crops_per_photo", "global_batch", "mix_photos", "block_photos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.mix_photos * self.crops_per_photo > MOST_MIXED:
            raise ValueError(
                f"mix_photos x crops_per_photo must be at most {MOST_MIXED:,}, got "
                f"{self.mix_photos} x {self.crops_per_photo}; use less of either"
            )
        if self.shard_photos and sum(self.shard_photos) != self.num_photos:
            raise ValueError(
                f"shard_photos must add up to num_photos {self.num_photos}, got "
                f"{sum(self.shard_photos)}"
            )
        if self.num_batches == 0:
            most = self.num_photos * self.crops_per_photo
            raise ValueError(
                f"{self.num_photos} photos with {self.crops_per_photo} crops each do not fill one "
                f"batch of {self.global_batch}; use a global batch of at most {most}, more "
                "crops_per_photo, or last_batch='pad'"
            )

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        full, rest = divmod(self.num_photos * self.crops_per_photo, self.global_batch)
        return full + (1 if self.pad_last and rest else 0)

    def epoch(self, epoch: int, *, first_lane: int, num_lanes: int) -> "EpochOrder":
        """Return the part of one epoch that lies in some neighbouring lanes, as a rank's do."""
        return EpochOrder(self, epoch, first_lane, num_lanes)


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """What stands in the lanes of one batch."""

    photos: Int[np.ndarray, " L"]
    """Number of the photo, 0 to N - 1."""
    crops: Int[np.ndarray, " L"]
    """Number of the crop in its photo, 0 to K - 1."""
    valid: Bool[np.ndarray, " L"]
    """False where the last batch is padded, by repeating samples."""


class EpochOrder:
    """One epoch of some lanes; `batch(b)` costs the same for any b, and least in sequence."""

    def __init__(self, order: Order, epoch: int, first_lane: int, num_lanes: int) -> None:
        if not 0 <= first_lane < first_lane + num_lanes <= order.global_batch:
            raise ValueError(
                f"lanes {first_lane} to {first_lane + num_lanes - 1} are not all within the "
                f"global batch of {order.global_batch}"
            )
        self._order, self._epoch = order, epoch
        self._lanes = first_lane + np.arange(num_lanes)
        self._line = _Line(order, epoch)
        shortest, longer = divmod(order.num_photos * order.crops_per_photo, order.global_batch)
        self._start = self._lanes * shortest + np.minimum(self._lanes, longer)
        self._length = shortest + (self._lanes < longer)
        self._window_length = order.mix_photos * order.crops_per_photo
        self._lead = self._lanes * self._window_length // order.global_batch
        self._window = np.full(num_lanes, -1)
        self._photos = np.zeros((num_lanes, self._window_length), dtype=np.int64)
        self._crops = np.zeros((num_lanes, self._window_length), dtype=np.int64)

    def batch(self, number: int) -> BatchOrder:
        """Return batch `number`, 0 to num_batches - 1."""
        if not 0 <= number < self._order.num_batches:
            raise IndexError(f"batch {number} of {self._order.num_batches}")
        valid = number < self._length
        # A padded place repeats its lane's last sample; a lane without any repeats the line's.
        place = np.minimum(number, np.maximum(self._length - 1, 0))
        window = (place + self._lead) // self._window_length
        self._shuffle(window)
        # The first window of a lane is cut short at its front by the lane's lead.
        begin = np.maximum(window * self._window_length - self._lead, 0)
        here = np.arange(len(self._lanes)), place - begin
        return BatchOrder(self._photos[here], self._crops[here], valid)

    @property
    def _num_samples(self) -> int:
        return self._order.num_photos * self._order.crops_per_photo

    def _shuffle(self, window: Int[np.ndarray, " L"]) -> None:
        """Bring the permutations of lanes that have come to a new window up to date."""
        stale = np.flatnonzero(window != self._window)
        if not len(stale):
            return
        keys = sample_keys(
            self._order.seed,
            self._epoch,
            torch.from_numpy(-2 - self._lanes[stale]),
            torch.from_numpy(window[stale]),
        )
        words = draw_bits(keys, op=0, count=self._window_length).numpy()
        begin = np.maximum(window[stale] * self._window_length - self._lead[stale], 0)
        end = (window[stale] + 1) * self._window_length - self._lead[stale]
        length = np.minimum(end, self._length[stale]) - begin
        # Places beyond the window's end sort behind all others.
        words = np.where(np.arange(self._window_length) < length[:, None], words, 2**32)
        shuffled = np.argsort(words, axis=1, kind="stable")
        line = np.minimum((self._start[stale] + begin)[:, None] + shuffled, self._num_samples - 1)
        place, self._crops[stale] = np.divmod(line, self._order.crops_per_photo)
        self._photos[stale] = self._line.photos(place)
        self._window[stale] = window[stale]


class _Line:
    """The permuted photos of an epoch, laid out block by block as they are asked for."""

    def __init__(self, order: Order, epoch: int) -> None:
        self._order, self._epoch = order, epoch
        sizes = np.array(order.shard_photos or (order.num_photos,))
        words = self._draw([0], len(sizes))[0]
        permuted = np.argsort(words, kind="stable")
        # Of each shard, in the order of the line: its first photo, and where it begins and ends.
        self._first = (np.cumsum(sizes) - sizes)[permuted]
        self._end = np.cumsum(sizes[permuted])
        self._begin = self._end - sizes[permuted]
        self._blocks: OrderedDict[int, Int[np.ndarray, " B"]] = OrderedDict()

    def photos(self, place: Int[np.ndarray, "L S"]) -> Int[np.ndarray, "L S"]:
        """Return the numbers of the photos at these places of the line."""
        number, within = np.divmod(place, self._order.block_photos)
        needed, slot = np.unique(number, return_inverse=True)
        self._lay_out(needed.tolist())
        # A lane goes through one block after the other; twice as many as it needs now are kept.
        found = np.zeros((len(needed), self._order.block_photos), dtype=np.int64)
        for row, block in enumerate(needed.tolist()):
            self._blocks.move_to_end(block)
            found[row, : len(self._blocks[block])] = self._blocks[block]
        while len(self._blocks) > 2 * self._order.global_batch + len(needed):
            self._blocks.popitem(last=False)
        return found[slot.reshape(place.shape), within]

    def _lay_out(self, blocks: Sequence[int]) -> None:
        missing = [block for block in blocks if block not in self._blocks]
        if not missing:
            return
        size, total = self._order.block_photos, self._order.num_photos
        for block, words in zip(
            missing, self._draw([block + 1 for block in missing], min(size, total)), strict=True
        ):
            line = np.arange(block * size, min(block * size + size, total))
            shard = np.searchsorted(self._end, line, side="right")
            inside = self._first[shard] + line - self._begin[shard]
            self._blocks[block] = inside[np.argsort(words[: len(line)], kind="stable")]

    def _draw(self, numbers: Sequence[int], count: int) -> Int[np.ndarray, "N count"]:
        # Photo numbers start at 0, so samples below it are free for the keys of the order itself.
        keys = sample_keys(
            self._order.seed,
            self._epoch,
            # Wherever a user's new tensors go, these stay here.
            torch.full((len(numbers),), -1, device="cpu"),
            torch.tensor(numbers, device="cpu"),
        )
        return draw_bits(keys, op=0, count=count).numpy()
